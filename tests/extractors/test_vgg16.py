"""The real VGG16: features equal those of plain Keras, on each runtime and from each weights format."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import Extractor, load_extractor, make_spec
from searchengine.extractors.frameworks import import_keras, import_openvino
from searchengine.extractors.loading import source_of
from searchengine.extractors.published import read_head
from tests.conftest import export_in_process
from tests.extractors import networks_by_keras
from tests.extractors.networks_by_keras import relative_error

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("described_in_process"),
    # Keras 3.15 saves with an array protocol that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@dataclass(frozen=True)
class Vgg16:
    """A folder of weights files, images, and the features that plain Keras computes from them, by layer.

    The weights are random. ``vgg16.weights.h5`` is as Keras 3 saves it, and ``vgg16_notop.h5`` like the published file.
    """

    folder: Path
    images: list[Path]
    expected: dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def vgg16() -> Iterator[Vgg16]:
    """Create the files once for all tests, and delete them afterwards, because they take two gigabytes."""
    with tempfile.TemporaryDirectory(prefix="vgg16-") as name:
        folder = Path(name)
        images = [folder / name for name in ("0.jpg", "1.png", "2.webp")]
        rng = np.random.default_rng(0)
        for path, (height, width) in zip(images, [(300, 400), (97, 55), (640, 480)], strict=True):
            coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(path, lossless=True)
        pictures = [Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for path in images]
        keras = import_keras()
        network = networks_by_keras.published("VGG16")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.save_weights(folder / "vgg16.weights.h5")
            bare = keras.Model(network.inputs, network.get_layer("block5_pool").output)
            networks_by_keras.save_as_published(bare, folder / "vgg16_notop.h5")
        for weights in folder.glob("*.h5"):
            os.utime(weights, (1_000_000_000, 1_000_000_000))  # written long ago, so that hashes are remembered
        fc2, maps = (
            networks_by_keras.features(network, "VGG16", layer, np.stack(pictures)) for layer in ("fc2", "block5_pool")
        )
        keras.utils.clear_session()
        yield Vgg16(folder, images, {"fc2": fc2, "block5_pool": maps.mean(axis=(1, 2))})


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


def test_the_images_are_told_apart(vgg16: Vgg16) -> None:
    rows = l2(vgg16.expected["fc2"])
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)[~np.eye(len(rows), dtype=bool)]
    assert apart.min() > 0.01  # a hundred times the tolerance of the next tests, so that rows cannot be confused


def test_openvino_float32(vgg16: Vgg16, openvino: Extractor) -> None:
    assert (openvino.dimension, openvino.precision, openvino.runtime) == (4096, "float32", "openvino")
    features = openvino.embed(vgg16.images)
    assert relative_error(features, l2(vgg16.expected["fc2"])) <= 1e-4
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)

    one_by_one = np.concatenate([openvino.embed([path]) for path in vgg16.images])
    assert relative_error(one_by_one, features) <= 1e-6


def test_openvino_bfloat16(vgg16: Vgg16, openvino: Extractor) -> None:
    file = vgg16.folder / "vgg16.weights.h5"
    if "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        extractor = load_extractor(weights=file, runtime="openvino", precision="bfloat16")
        features = extractor.embed(vgg16.images)
        assert np.sum(features * l2(vgg16.expected["fc2"]), axis=1).min() >= 0.999
    else:
        with pytest.raises(ExtractorError, match="--precision float32"):
            load_extractor(weights=file, runtime="openvino", precision="bfloat16")


def test_keras_bfloat16(vgg16: Vgg16) -> None:
    file = vgg16.folder / "vgg16_notop.h5"
    extractor = load_extractor(layer="block5_pool", pooling="avg", weights=file, runtime="keras", precision="bfloat16")
    features = extractor.embed(vgg16.images)
    assert extractor.precision == "bfloat16"
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)  # normalised in float32
    assert np.sum(features * l2(vgg16.expected["block5_pool"]), axis=1).min() >= 0.999


def test_the_file_without_head_suffices_for_earlier_layers(vgg16: Vgg16) -> None:
    extractor = load_extractor(
        layer="block5_pool", pooling="avg", normalize="none", weights=vgg16.folder / "vgg16_notop.h5", runtime="keras"
    )
    assert extractor.dimension == 512
    assert relative_error(extractor.embed(vgg16.images), vgg16.expected["block5_pool"]) <= 1e-4


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
