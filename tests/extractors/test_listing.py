"""``searchengine models`` lists the models and the weights on this machine without building anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from searchengine.cli.main import main
from searchengine.errors import UnknownNameError
from searchengine.extractors import cache, loading, make_spec, model_names, published
from searchengine.extractors.models import backbones
from tests.extractors.tiny import write_tiny_model


def test_weights_on_this_machine(cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    availability = {model.name: weights for model, weights in loading.list_models()}
    assert list(availability) == model_names()
    assert availability["efficientnet-lite0"] == "packaged"
    assert {weights for name, weights in availability.items() if "lite" not in name} == {"to download"}

    published.keras_folder().mkdir(parents=True)
    for name in ("vgg19", "resnet50", "mobilenet"):
        (published.keras_folder() / backbones()[name].with_head.file_name).write_bytes(b"numbers")
    whole = cache.file_hashes
    digest = backbones()["vgg19"].with_head.digest or ""
    monkeypatch.setattr(cache, "file_hashes", lambda path: {"md5": digest} if "vgg19" in path.name else whole(path))
    monkeypatch.setattr(cache, "remembered_hashes", lambda path: cache.file_hashes(path))
    with cache.new_entry(make_spec("xception", normalize="none")) as folder:
        write_tiny_model(folder)
    availability = {model.name: weights for model, weights in loading.list_models()}
    assert (availability["vgg19"], availability["mobilenet"], availability["xception"]) == (
        "downloaded",
        "downloaded",
        "prepared",
    )
    assert availability["resnet50"] == "to download"  # another file with that name


@pytest.mark.slow
@pytest.mark.usefixtures("described_in_process")
def test_layers_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "VGG19"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("VGG19: input 224 x 224, 143.7 M parameters, preprocessing caffe")
    assert [line.split() for line in lines if "block5_pool" in line or "fc2" in line] == [
        ["block5_pool", "MaxPooling2D", "7", "x", "7", "x", "512", "25088", "512"],
        ["*", "fc2", "Dense", "4096", "4096"],
    ]
    with pytest.raises(UnknownNameError, match="Choose one of: resnet50, "):
        loading.layers_of("resnet5")


@pytest.mark.slow
@pytest.mark.usefixtures("described_in_process")
def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert list(models) == model_names()
    assert models["vgg16"] == {
        "name": "vgg16",
        "title": "VGG16",
        "layer": "fc2",
        "dimension": 4096,
        "input_size": [224, 224],
        "parameters": 138_357_544,
        "megabytes": 553,
        "weights": "to download",
    }
    assert main(["models", "VGG19", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert layers[0] == {"name": "block1_conv1", "kind": "Conv2D", "shape": [224, 224, 64]}
    assert main(["models", "nothing"]) == 1
    assert "There is no model 'nothing'" in capsys.readouterr().err


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys; from searchengine.extractors import loading; loading.list_models();"
        "print({'tensorflow', 'keras', 'openvino'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
