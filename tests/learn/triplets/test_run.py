"""A whole run with a small backbone: what it learns, what it writes, and that it is repeatable."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import LearningError, UnknownNameError
from searchengine.extractors import custom
from searchengine.extractors.frameworks import import_keras
from searchengine.learn.triplets import Trained
from searchengine.learn.triplets.learner import TRIPLETS
from tests.learn.triplets import tiny
from tests.learn.triplets.conftest import Setting

pytestmark = [
    pytest.mark.slow,
    # Keras 3.15 saves with an array protocol that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def trained(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, tiny.Recorder]:
    recorder = tiny.Recorder()
    return setting.train(tmp_path_factory.mktemp("trained") / "metric.keras", recorder), recorder


def new_pictures() -> NDArray[np.uint8]:
    return np.stack([tiny.picture(label, 100 + number) for label in tiny.CLASSES for number in range(4)])


def weights(model: Any) -> list[NDArray[np.float32]]:
    return [np.asarray(one) for one in model.get_layer("embedding").get_weights()]


def test_it_learns(trained: tuple[Trained, tiny.Recorder]) -> None:
    result, recorder = trained
    assert result.after.mean_average_precision > result.before.mean_average_precision + 0.02
    assert result.best > 0
    assert result.after.precision >= result.before.precision
    assert result.after.triplet_accuracy > result.before.triplet_accuracy
    assert result.after.mean_average_precision == max(epoch.mean_average_precision for epoch in result.epochs)
    assert (result.classes, result.training, result.validation) == (3, 21, 15)
    assert recorder.units["images"] == [0]
    assert recorder.units["batches"] == [0] or len(recorder.epochs) < 8
    assert [epoch.number for epoch in result.epochs] == list(range(len(result.epochs)))


def test_what_is_written(trained: tuple[Trained, tiny.Recorder]) -> None:
    result, _ = trained
    folder = result.model.parent
    assert {path.name for path in folder.iterdir()} == {
        "metric.keras",
        "metric.curves.csv",
        "metric.training",
    }
    rows = list(csv.DictReader((folder / "metric.curves.csv").read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "loss", "triplet_accuracy", "P@1", "mAP", "seconds"]
    assert [int(row["epoch"]) for row in rows] == [epoch.number for epoch in result.epochs]
    assert rows[0]["loss"] == ""
    for row, epoch in zip(rows[1:], result.epochs[1:], strict=True):
        assert float(row["loss"]) == pytest.approx(epoch.loss, abs=1e-6)
        assert float(row["mAP"]) == pytest.approx(epoch.mean_average_precision, abs=1e-6)


def test_the_model_stands_alone(trained: tuple[Trained, tiny.Recorder]) -> None:
    """The model loads without our code, gives embeddings of length one, and separates new pictures."""
    result, _ = trained
    model = custom.load(result.model)
    embeddings = np.asarray(model(new_pictures()))
    assert embeddings.shape == (12, 4)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    likeness = embeddings @ embeddings.T - 2 * np.eye(12)
    assert (likeness.argmax(axis=1) // 4 == np.arange(12) // 4).mean() > 0.8
    last = custom.load(result.model.parent / "metric.training" / "last.keras")
    assert all(one.shape == other.shape for one, other in zip(weights(last), weights(model), strict=True))


def test_a_learnt_model_can_be_the_backbone(trained: tuple[Trained, tiny.Recorder], described_in_process: None) -> None:
    from searchengine.learn.triplets.learner import layer_before_last_dense

    result, _ = trained
    layers = list(custom.CustomSource().describe(result.model).layers.values())
    assert [layer.name for layer in layers[-2:]] == ["embedding", "unit"]
    assert layer_before_last_dense(str(result.model)) == layers[-3].name  # "embedding" is replaced
    assert layers[-3].shape == (8,)
    assert layer_before_last_dense("resnet50") is None


def test_last_layer_of_a_classifier(setting: Setting, described_in_process: None) -> None:
    from searchengine.learn.triplets.learner import layer_before_last_dense

    assert layer_before_last_dense(str(setting.backbone)) == "mean"


@pytest.mark.parametrize(
    "triplets",
    [name if name == "semihard" else pytest.param(name, marks=pytest.mark.torture) for name in TRIPLETS],
)
def test_a_seed_makes_it_repeatable(setting: Setting, tmp_path: Path, triplets: str) -> None:
    runs = [
        setting.train(tmp_path / f"{name}.keras", triplets=triplets, epochs=3, views=2, dropout=0.2, seed=seed)
        for name, seed in (("one", 4), ("two", 4), ("three", 5))
    ]
    one, two, three = (weights(custom.load(run.model)) for run in runs)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(one[0] - three[0]).max() > 1e-3
    losses = [[epoch.loss for epoch in run.epochs[1:]] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] != pytest.approx(losses[2], abs=1e-6)


def test_thawed_from_a_layer_on(setting: Setting, tmp_path: Path) -> None:
    before = custom.load(setting.backbone)
    result = setting.train(tmp_path / "thawed.keras", thaw="second", epochs=3, views=1, learning_rate=0.003, batch=6)
    after = custom.load(result.model)
    cut = next(layer for layer in after.layers if hasattr(layer, "get_layer"))  # the backbone, as one layer

    def kernel(model: Any, name: str) -> NDArray[np.float32]:
        return np.asarray(model.get_layer(name).kernel)

    np.testing.assert_array_equal(kernel(cut, "first"), kernel(before, "first"))
    if result.best:
        assert np.abs(kernel(cut, "second") - kernel(before, "second")).max() > 1e-4
    last = custom.load(tmp_path / "thawed.training" / "last.keras")
    inner = next(layer for layer in last.layers if hasattr(layer, "get_layer"))
    assert np.abs(kernel(inner, "second") - kernel(before, "second")).max() > 1e-4
    with pytest.raises(UnknownNameError, match=r"no layer of the backbone 'secnd'\. Choose one of: second"):
        setting.train(tmp_path / "other.keras", thaw="secnd")
    with pytest.raises(LearningError, match="No layer from mean on has weights"):
        setting.train(tmp_path / "other.keras", thaw="mean")


def test_resuming(setting: Setting, tmp_path: Path) -> None:
    """The same command adds epochs; a finished run only writes the model; other settings are refused or start again."""
    out = tmp_path / "metric.keras"
    first = setting.train(out, epochs=2)
    recorder = tiny.Recorder()
    second = setting.train(out, recorder, epochs=4)
    assert second.epochs[:3] == first.epochs
    assert recorder.epochs == [3, 4]
    assert "Resuming after epoch 2." in recorder.sentences
    whole = setting.train(tmp_path / "whole.keras", epochs=4)
    for a, b in zip(weights(custom.load(second.model)), weights(custom.load(whole.model)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    out.unlink()
    done = setting.train(out, recorder, epochs=4)
    assert done.epochs == second.epochs
    assert out.exists()
    with pytest.raises(LearningError, match=r"other settings: margin was 0.2 and is now 0.3"):
        setting.train(out, epochs=4, margin=0.3)
    assert len(setting.train(out, epochs=1, margin=0.3, restart=True).epochs) == 2


def test_a_finished_run_writes_the_same_file(setting: Setting, tmp_path: Path) -> None:
    """The file must be identical, because an index identifies its model by the file's hash."""
    out = tmp_path / "metric.keras"
    hashes = []
    for _ in range(2):
        import_keras().utils.clear_session()  # as in a new process
        setting.train(out, epochs=1)
        hashes.append(hashlib.sha256(out.read_bytes()).hexdigest())
        with zipfile.ZipFile(out) as saved:
            assert {info.date_time[0] for info in saved.infolist()} == {1980}
            assert json.loads(saved.read("metadata.json"))["date_saved"] == ""
    assert hashes[0] == hashes[1]


def test_early_stopping(setting: Setting, tmp_path: Path) -> None:
    result = setting.train(tmp_path / "metric.keras", epochs=200, patience=2)
    assert result.epochs[-1].number == result.best + 2 < 200


def test_two_at_once(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "metric.training").mkdir()
    with (tmp_path / "metric.training" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LearningError, match="Another run is training"):
            setting.train(tmp_path / "metric.keras")
