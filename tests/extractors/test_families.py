"""Each family gives the same features as plain Keras, and the table of models agrees with Keras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors import export, make_spec, networks
from searchengine.extractors.frameworks import export_openvino, import_keras
from searchengine.extractors.models import Backbone, PublishedWeights, backbones
from searchengine.extractors.networks import PREPROCESSINGS, BuiltModel, layers_of, preprocessed
from searchengine.extractors.published import PublishedSource, read_head
from tests.extractors import networks_by_keras
from tests.extractors.networks_by_keras import relative_error, smooth

# Keras 3.15 reads weights with an array protocol that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.usefixtures("described_in_process"),
]

# The torture run tests them all. VGG, ResNet and EfficientNet are tested separately: in test_vgg16.py,
# test_end_to_end.py, and below.
QUICKEST = {"MobileNet", "MobileNetV3Small"}


def smallest_of_each_family() -> list[str]:
    """Return the smallest network of each module of keras.applications; the others repeat its layers or are wider."""
    smallest: dict[str, Backbone] = {}
    for line in backbones().values():
        if line.module not in smallest or line.parameters < smallest[line.module].parameters:
            smallest[line.module] = line
    return [line.title for line in smallest.values()]


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(line.title, marks=() if line.title in QUICKEST else pytest.mark.torture)
        for line in backbones().values()
    ],
)
def test_every_one(title: str, tmp_path: Path) -> None:
    check(title, tmp_path, by_file=True)
    import_keras().utils.clear_session()


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(line.title, marks=pytest.mark.torture if one_a_family else pytest.mark.longest)
        for line in backbones().values()
        for one_a_family in [line.title in smallest_of_each_family()]
    ],
)
def test_every_one_on_openvino_and_in_the_table(title: str, tmp_path: Path) -> None:
    """Test all networks; the exports take half an hour."""
    built = check(title, tmp_path, by_file=False)
    export_openvino(built.model, tmp_path / "model.xml")
    export.compare(built, tmp_path / "model.xml")
    backbone = backbones()[title.lower()]
    files: list[PublishedWeights] = []
    bare = networks_by_keras.published(title, files, head=False)
    (file,) = files
    assert (file.url, file.file_name, file.digest) == (
        backbone.without_head.url,
        backbone.without_head.file_name,
        backbone.without_head.digest,
    )
    assert backbone.without_head.megabytes == round(bare.count_params() * 4 / 1e6)
    assert {layer.name for layer in layers_of(built.network)} - {
        layer.name for layer in layers_of(bare)
    } == backbone.head
    import_keras().utils.clear_session()


def check_head(network: Any, title: str, file: Path, pixels: NDArray[np.uint8], features: NDArray[np.float32]) -> None:
    """Check that the head in a weights file turns features into the whole network's output, except for MobileNetV3."""
    if title.startswith("MobileNetV3"):
        with pytest.raises(ExtractorError, match="does not contain the classification head"):
            read_head(file, features.shape[1])
        return
    head = read_head(file, features.shape[1])
    logits = features @ head.weights.T + head.bias
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = networks_by_keras.features(network, title, network.layers[-1].name, pixels)
    assert exponentials / exponentials.sum(axis=1, keepdims=True) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def check(title: str, folder: Path, *, by_file: bool) -> BuiltModel:
    """Compare plain Keras with our extractor on the same file, and with the table of models."""
    spec = make_spec(title)
    line = backbones()[title.lower()]
    assert spec.layer == line.default_layer
    files: list[PublishedWeights] = []
    network = networks_by_keras.published(title, files)
    (file,) = files
    assert (file.url, file.file_name, file.digest) == (
        line.with_head.url,
        line.with_head.file_name,
        line.with_head.digest,
    )
    known = {layer.name: layer for layer in layers_of(network)}
    assert not known[line.default_layer].is_spatial
    assert line.head < known.keys()
    assert network.count_params() == line.parameters
    assert line.with_head.megabytes == round(line.parameters * 4 / 1e6)

    pixels = smooth(spec.input_size)
    expected = networks_by_keras.features(network, title, line.default_layer, pixels)
    expected = expected.reshape(len(pixels), -1)
    if by_file:
        path = folder / line.with_head.file_name
        networks_by_keras.save_as_published(network, path)
        check_head(network, title, path, pixels, expected)
        del network
        built = PublishedSource().build(spec, path, "float32")
    else:
        built = networks.cut(network, spec, line.preprocessing, title)
    assert sum(built.parts) == known[line.default_layer].feature_size("none") == line.dimension == expected.shape[1]
    features = np.asarray(built.model(pixels, training=False))
    assert np.linalg.norm(expected[0] - expected[1]) > 1e-3 * np.linalg.norm(expected[0])
    assert relative_error(features, expected) <= 1e-4
    return built


@pytest.mark.parametrize("title", smallest_of_each_family())
def test_preprocessing_is_that_of_the_family(title: str) -> None:
    line = backbones()[title.lower()]
    sample = smooth((4, 4)).astype(np.float32)
    expected = getattr(import_keras().applications, line.module).preprocess_input(sample.copy())
    modes = [mode for mode in PREPROCESSINGS if np.allclose(preprocessed(sample.copy(), mode), expected, atol=1e-4)]
    assert modes == [line.preprocessing]


def test_no_network_is_missing() -> None:
    applications = import_keras().applications
    titles = [name for name, value in vars(applications).items() if name[0].isupper() and callable(value)]
    assert sorted(backbones()) == sorted(title.lower() for title in titles)


def test_without_the_head(tmp_path: Path) -> None:
    """A layer before the head only needs the smaller file, and EfficientNet's own rescaling is applied to it."""
    network = networks_by_keras.published("EfficientNetB0", head=False)
    line = backbones()["efficientnetb0"]
    path = tmp_path / line.without_head.file_name
    networks_by_keras.save_as_published(network, path)
    pixels = smooth(line.input_size)
    expected = networks_by_keras.features(network, "EfficientNetB0", "top_activation", pixels).max(axis=(1, 2))
    spec = replace(make_spec("efficientnetb0"), layer="top_activation", pooling="max")
    built = PublishedSource().build(spec, path, "float32")
    assert relative_error(np.asarray(built.model(pixels, training=False)), expected) <= 1e-4
