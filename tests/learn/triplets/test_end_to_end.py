"""From folders through ``searchengine train`` to a model, an index, and a result on the page."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import app as application
from searchengine.cli import offline_index
from searchengine.cli.main import main
from searchengine.engine import open_index
from searchengine.extractors.frameworks import import_keras
from tests.learn.triplets import tiny
from tests.learn.triplets.conftest import Setting

# Keras 3.15 saves with an array protocol that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


FLAGS = ["--dim", "16", "--epochs", "6", "--validation", "0.4", "--learning-rate", "0.01", "--precision", "float32"]


@pytest.mark.slow
@pytest.mark.usefixtures("exported_in_process")
def test_command_output(setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.keras"
    assert main(["train", str(setting.photos), "--out", str(out), "--backbone", str(setting.backbone), *FLAGS]) == 0
    output = capsys.readouterr()
    assert "before, the backbone alone" in output.out
    assert "mAP" in output.out
    assert f"searchengine index {setting.photos} --model {out} --index-dir mine-index" in output.err
    assert "--split class measures this, and a smaller --blend keeps more" in output.err
    assert "epoch   1: loss" in output.err


@pytest.mark.slow
@pytest.mark.usefixtures("exported_in_process")
def test_packaged_backbone_to_the_page(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out, index = setting.photos, tmp_path / "mine.keras", tmp_path / "index"
    assert main(["train", str(photos), "--out", str(out), "--backbone", "efficientnet-lite0", "--json", *FLAGS]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["after"]["mean_average_precision"] > result["before"]["mean_average_precision"]

    assert offline_index([str(photos), "--model", str(out), "--index-dir", str(index)]) == 0
    opened = open_index(index)
    assert opened.features.shape == (36, 16)
    np.testing.assert_allclose(np.linalg.norm(opened.features, axis=1), 1.0, atol=1e-3)
    opened.close()

    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", str(index))
    client = application.create_app().test_client()
    right = 0
    for label in tiny.CLASSES:
        new = io.BytesIO()
        Image.fromarray(tiny.picture(label, 500)).save(new, "PNG")  # not one of the training images
        new.seek(0)
        answer = client.post(
            "/search",
            data={"image": (new, "new.png"), "k": "5"},
            content_type="multipart/form-data",
            headers={"Accept": "application/json"},
        )
        assert answer.status_code == 200, answer.text
        hits = answer.get_json()["hits"]
        assert len(hits) == 5
        right += sum(hit["path"].startswith(f"{label}/") for hit in hits)
    assert right >= 12  # of 15; by chance it would be 5


@pytest.mark.torture
def test_resnet50_with_weights_of_its_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real backbone, with weights in a file written by Keras; frozen, then thawed from its last block on."""
    keras = import_keras()
    keras.utils.set_random_seed(0)
    network = keras.applications.ResNet50(weights=None, include_top=True, input_shape=(224, 224, 3))
    network.save_weights(tmp_path / "resnet50.weights.h5")
    photos = tiny.draw_photos(tmp_path / "photos", each=6)
    common = ["--weights", str(tmp_path / "resnet50.weights.h5"), "--runtime", "keras", "--validation", "0.4"]
    for name, more in (
        ("frozen", ["--epochs", "3", "--learning-rate", "0.01"]),
        (
            "thawed",
            ["--epochs=1", "--thaw=conv5_block3_1_conv", "--learning-rate=1e-4", "--triplets=random", "--batch=6"],
        ),
    ):
        out = tmp_path / f"{name}.keras"
        assert main(["train", str(photos), "--out", str(out), "--json", *common, *more]) == 0
        assert json.loads(capsys.readouterr().out)["training"] == 12
    files = (tmp_path / "frozen.keras", tmp_path / "thawed.training" / "last.keras")
    frozen, thawed = (keras.saving.load_model(file) for file in files)
    assert frozen.input_shape == (None, 224, 224, 3)
    assert frozen.output_shape == (None, 384)
    features = np.asarray(frozen(np.zeros((1, 224, 224, 3), np.uint8)))
    assert np.linalg.norm(features) == pytest.approx(1.0, abs=1e-4)
    inner = next(layer for layer in thawed.layers if hasattr(layer, "get_layer"))
    for layer, same in (("conv1_conv", True), ("conv5_block2_1_conv", True), ("conv5_block3_1_conv", False)):
        kernels = [np.asarray(one.get_layer(layer).kernel) for one in (inner, network)]
        assert np.array_equal(*kernels) == same
