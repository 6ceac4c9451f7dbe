"""The real VGG16: features equal those of plain Keras, on each runtime and from each weights format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import Extractor, load_extractor, make_spec
from searchengine.extractors.frameworks import import_openvino
from searchengine.extractors.loading import source_of
from searchengine.extractors.published import read_head
from tests.conftest import export_in_process
from tests.extractors.conftest import Vgg16

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("described_in_process")]


@pytest.fixture(scope="module")
def exported(vgg16: Vgg16) -> Path:
    """Return a cache to which VGG16 fc2 was exported from the Keras 3 file."""
    cache = vgg16.folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEARCHENGINE_CACHE_DIR", str(cache))
        export_in_process(patch)
        messages: list[str] = []
        load_extractor(weights=vgg16.folder / "vgg16.weights.h5", runtime="openvino", progress=messages.append)
    assert any("first time only" in line for line in messages)
    assert any("537 MB" in line for line in messages)
    return cache


@pytest.fixture
def openvino(vgg16: Vgg16, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Extractor:
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(exported))
    return load_extractor(weights=vgg16.folder / "vgg16.weights.h5", runtime="openvino", precision="float32")


def l2(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(features, axis=1, keepdims=True)
    return features / lengths


def relative_errors(features: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    assert features.shape == expected.shape
    assert features.dtype == np.float32
    errors: NDArray[np.float32] = np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return errors


def test_the_images_are_told_apart(vgg16: Vgg16) -> None:
    rows = l2(vgg16.expected("fc2"))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)[~np.eye(len(rows), dtype=bool)]
    assert apart.min() > 0.01  # a hundred times the tolerance of the next tests, so that rows cannot be confused


def test_openvino_float32(vgg16: Vgg16, openvino: Extractor) -> None:
    assert (openvino.dimension, openvino.precision, openvino.runtime) == (4096, "float32", "openvino")
    features = openvino.embed(vgg16.images)
    assert relative_errors(features, l2(vgg16.expected("fc2"))).max() <= 1e-4
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)

    one_by_one = np.concatenate([openvino.embed([path]) for path in vgg16.images])
    assert relative_errors(one_by_one, features).max() <= 1e-6


def test_openvino_raw_shares_the_export(vgg16: Vgg16, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(exported))
    file = vgg16.folder / "vgg16.weights.h5"
    messages: list[str] = []
    raw = load_extractor(
        normalize="none", weights=file, precision="float32", runtime="openvino", progress=messages.append
    )
    assert relative_errors(raw.embed(vgg16.images[:2]), vgg16.expected("fc2")[:2]).max() <= 1e-4
    assert messages == []


def test_openvino_bfloat16(vgg16: Vgg16, openvino: Extractor) -> None:
    file = vgg16.folder / "vgg16.weights.h5"
    if "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        extractor = load_extractor(weights=file, runtime="openvino", precision="bfloat16")
        features = extractor.embed(vgg16.images)
        assert np.sum(features * l2(vgg16.expected("fc2")), axis=1).min() >= 0.999
    else:
        with pytest.raises(ExtractorError, match="--precision float32"):
            load_extractor(weights=file, runtime="openvino", precision="bfloat16")


def test_keras_bfloat16(vgg16: Vgg16) -> None:
    file = vgg16.folder / "vgg16_notop.h5"
    extractor = load_extractor(layer="block5_pool", pooling="avg", weights=file, runtime="keras", precision="bfloat16")
    features = extractor.embed(vgg16.images[:3])
    assert extractor.precision == "bfloat16"
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)  # normalised in float32
    assert np.sum(features * l2(vgg16.expected("block5_pool")[:3]), axis=1).min() >= 0.999


def test_the_file_without_head_suffices_for_earlier_layers(vgg16: Vgg16) -> None:
    extractor = load_extractor(
        layer="block5_pool", pooling="avg", normalize="none", weights=vgg16.folder / "vgg16_notop.h5", runtime="keras"
    )
    assert extractor.dimension == 512
    assert relative_errors(extractor.embed(vgg16.images), vgg16.expected("block5_pool")).max() <= 1e-4


def test_a_file_without_head_for_a_layer_of_the_head(vgg16: Vgg16) -> None:
    with pytest.raises(ExtractorError, match="without the classification head"):
        load_extractor(weights=vgg16.folder / "vgg16_notop.h5", runtime="keras")


def test_the_head_is_read(vgg16: Vgg16) -> None:
    file = vgg16.folder / "vgg16.weights.h5"
    head = source_of("vgg16").head(make_spec(weights=file), file, None)
    assert (head.weights.shape, head.bias.shape) == ((1000, 4096), (1000,))
    with pytest.raises(ExtractorError, match="does not contain the classification head"):
        read_head(vgg16.folder / "vgg16_notop.h5", 4096)
    with pytest.raises(WeightsNotFoundError, match=r"weights file with the classification head \(553 MB\)"):
        source_of("vgg16").head(make_spec(), None, None)


def test_weights_of_another_model(vgg16: Vgg16) -> None:
    with pytest.raises(
        ExtractorError, match="does not fit VGG19 without its head: it holds 26 arrays, and the model has 32"
    ):
        load_extractor(
            "vgg19", layer="block5_pool", pooling="avg", weights=vgg16.folder / "vgg16_notop.h5", runtime="keras"
        )
