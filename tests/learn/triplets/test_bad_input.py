"""Bad input for training is explained clearly, and progress so far is kept."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchengine.cli.main import main
from searchengine.errors import IndexingError, LearningError
from searchengine.extractors import custom
from searchengine.learn.triplets.inputs import Features, check_labels
from searchengine.learn.triplets.learner import Recipe
from searchengine.learn.triplets.run import check_out
from tests.learn.triplets import tiny
from tests.learn.triplets.conftest import Setting

# Keras 3.15 saves with an array protocol that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_one_class_only(tmp_path: Path) -> None:
    tiny.draw_photos(tmp_path / "photos")
    with pytest.raises(LearningError, match=r"All images have the same label, 'red'.*at least two classes"):
        check_labels([tmp_path / "photos"], exclude=["green", "blue"])


def test_no_labels(tmp_path: Path) -> None:
    shutil.copytree(tiny.draw_photos(tmp_path / "photos") / "red", tmp_path / "flat")
    with pytest.raises(LearningError, match=r"No image in .*flat has a label.*--labels FILE.csv"):
        check_labels([tmp_path / "flat"])
    with pytest.raises(IndexingError, match="does not exist"):
        check_labels([tmp_path / "gone"])


@pytest.mark.slow
def test_empty_labels(setting: Setting, tmp_path: Path) -> None:
    """An image with an empty label is left out and counted."""
    photos = tiny.draw_photos(tmp_path / "photos", each=6)
    table = tmp_path / "labels.csv"
    rows = [f"{label}/{number:02}.png,{label}" for label in ("red", "blue") for number in range(5)]
    table.write_text("\n".join(["path,label", *rows, "red/05.png, ", "blue/05.png,", ""]))
    result = setting.train(tmp_path / "m.keras", photos=photos, labels=str(table), epochs=1)
    assert (result.classes, result.training + result.validation, result.unlabelled) == (2, 10, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blend": 0.0}, "--blend must be"),
        ({"dropout": 1.0}, "--dropout must be"),
        ({"margin": 0.0}, "--margin and --learning-rate"),
        ({"learning_rate": float("nan")}, "--margin and --learning-rate"),
        ({"validation": 1.0}, "--validation must be"),
        ({"weight_decay": 2000.0}, "times --learning-rate at most 1"),
        ({"triplets": "easy"}, "--triplets must be one of random, semihard, hard"),
        ({"images_a_class": 1}, "--images-a-class"),
        ({"views": -1}, "--views and --seed"),
        ({"epochs": 0}, "--epochs"),
    ],
)
def test_recipes_that_make_no_sense(changes: dict[str, float], message: str) -> None:
    with pytest.raises(LearningError, match=message):
        Recipe(**changes)  # type: ignore[arg-type]


def test_the_file_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "model.h5")]) == 1
    assert "must end in .keras" in capsys.readouterr().err
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(LearningError, match="is a folder"):
        check_out(tmp_path / "folder.keras")
    (tmp_path / "file").touch()
    with pytest.raises(LearningError, match="cannot be created"):
        check_out(tmp_path / "file" / "model.keras")


def test_unavailable_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server answers there
    photos = tiny.draw_photos(tmp_path / "photos")
    assert main(["train", str(photos), "--out", str(tmp_path / "m.keras"), "--runtime", "openvino"]) == 1
    message = capsys.readouterr().err
    assert "The ImageNet weights of ResNet50 are missing" in message
    assert "resnet50_weights_tf_dim_ordering_tf_kernels.h5" in message
    assert "--model efficientnet-lite0" in message  # train accepts it too


@pytest.mark.slow
def test_unreadable_images_and_a_class_of_one(setting: Setting, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(setting.photos, photos)
    (photos / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (photos / "red" / "cut.png").write_bytes((photos / "red" / "00.png").read_bytes()[:200])
    (photos / "alone").mkdir()
    Image.fromarray(tiny.picture("red", 900)).save(photos / "alone" / "red.png")
    shutil.copy(photos / "blue" / "00.png", photos / "green" / "copy.png")
    recorder = tiny.Recorder()
    result = setting.train(tmp_path / "m.keras", recorder, photos=photos, epochs=1)
    assert sorted(recorder.refused) == ["red/broken.jpg", "red/cut.png"]
    assert [path for path, _ in result.skipped] == ["red/broken.jpg", "red/cut.png"]
    assert all(reason for _, reason in result.skipped)
    assert result.classes == 4
    assert any("a single image serve as negatives only: alone" in sentence for sentence in recorder.sentences)


@pytest.mark.slow
def test_nothing_readable(setting: Setting, tmp_path: Path) -> None:
    for label in tiny.CLASSES:
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(LearningError, match="None of the 3 images can be used"):
        setting.train(tmp_path / "m.keras", photos=tmp_path / "photos")


@pytest.mark.slow
def test_a_loss_that_becomes_nan(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best state before that is written, and training can resume."""
    whole = Features.draw

    def poisoned(self: Features, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        features = whole(self, rows, random)
        return features * np.nan if len(epochs) == 3 else features

    epochs: list[int] = []
    monkeypatch.setattr(Features, "draw", poisoned)
    with pytest.raises(LearningError, match=r"The loss became NaN or infinite in epoch 4. .*of epoch \d.*--restart"):
        setting.train(tmp_path / "m.keras", tiny.Recorder(epochs.append))
    embeddings = np.asarray(custom.load(tmp_path / "m.keras")(np.zeros((1, tiny.SIZE, tiny.SIZE, 3), np.uint8)))
    assert np.isfinite(embeddings).all()
    monkeypatch.undo()
    result = setting.train(tmp_path / "m.keras", epochs=4)
    assert [epoch.number for epoch in result.epochs] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_start_that_is_nan(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Features.plain
    monkeypatch.setattr(Features, "plain", lambda self, rows: whole(self, rows) * np.float32(np.nan))
    with pytest.raises(LearningError, match=r"NaN or infinite before training.*Choose another --layer"):
        setting.train(tmp_path / "m.keras")
    assert not (tmp_path / "m.keras").exists()


@pytest.mark.slow
def test_a_learning_rate_that_blows_up(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(LearningError, match=r"--restart and a --learning-rate below 1e\+38"):
        setting.train(tmp_path / "m.keras", learning_rate=1e38, weight_decay=0.0)
    assert custom.load(tmp_path / "m.keras").output_shape == (None, 4)


@pytest.mark.slow
def test_a_full_disk_at_the_model(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old model is kept, and the same command writes the new one."""
    import keras

    (tmp_path / "m.keras").write_bytes(b"the old one")

    def full(model: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(LearningError, match=r"cannot be written: No space left.*the same command"):
        setting.train(tmp_path / "m.keras", epochs=1)
    monkeypatch.undo()
    assert (tmp_path / "m.keras").read_bytes() == b"the old one"
    assert not list(tmp_path.rglob("*part*"))
    recorder = tiny.Recorder()
    setting.train(tmp_path / "m.keras", recorder, epochs=1)
    assert not recorder.epochs
    assert custom.load(tmp_path / "m.keras").output_shape == (None, 4)
