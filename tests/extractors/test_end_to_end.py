"""Index a folder of pictures with a command: the features, by random weights, are those of plain Keras."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.cli.main import main
from searchengine.engine import SearchEngine
from tests.conftest import draw
from tests.extractors import networks_by_keras
from tests.extractors.networks_by_keras import relative_error

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]


def gem(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.maximum(maps.astype(np.float64), 1e-6) ** 3
    means: NDArray[np.float64] = powers.mean(axis=(1, 2)) ** (1 / 3)
    return means.astype(np.float32)


@pytest.mark.parametrize(
    ("title", "head", "layer", "pooling", "dimension"),
    [
        ("ResNet50", True, "avg_pool", "none", 2048),
        pytest.param("VGG16", False, "block5_pool", "gem", 512, marks=pytest.mark.torture),
        pytest.param("VGG19", True, "fc2", "none", 4096, marks=pytest.mark.torture),  # half a gigabyte, twice
    ],
)
@pytest.mark.usefixtures("exported_in_process")
def test_from_a_folder(
    title: str,
    head: bool,
    layer: str,
    pooling: str,
    dimension: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = networks_by_keras.published(title, head=head)
    weights = tmp_path / "random.weights.h5"
    network.save_weights(weights)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(5):
        draw(i, (300, 200)).save(photos / f"{i}.png")

    index = ["--index-dir", str(tmp_path / "index")]
    flags = ["--model", title, "--layer", layer, "--weights", str(weights)]
    pool = ["--pooling", pooling] if pooling != "none" else []
    arguments = ["index", str(photos), *index, *flags, *pool, "--precision", "float32", "--runtime", "openvino"]
    assert main(arguments) == 0
    assert "5 images (5 added)" in capsys.readouterr().out

    pixels = np.stack(
        [np.asarray(Image.open(photos / f"{i}.png").resize((224, 224), Image.Resampling.BICUBIC)) for i in range(5)]
    )
    expected = networks_by_keras.features(network, title, layer, pixels)
    expected = gem(expected) if pooling == "gem" else expected
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    features = np.load(tmp_path / "index" / "features.npy")[:5]
    assert features.shape == (5, dimension)
    assert relative_error(features, expected) <= 1e-4

    with contextlib.closing(SearchEngine.open(tmp_path / "index", precision="float32", runtime="openvino")) as engine:
        assert engine.search(photos / "3.png", k=2)[0].path.endswith("3.png")
        extractor = engine.index.status().extractor
        assert extractor.startswith(f"{title} {layer}{' (GeM pooling)' if pooling == 'gem' else ''}, own")

    assert main(["index", str(photos), *index]) == 0  # without flags, as the index was made
    assert "5 images" in capsys.readouterr().out
    assert main(["index", str(photos), *index, *flags[:2], "--weights", str(weights), "--layer", "nothing"]) == 1
    assert "There is no layer of" in capsys.readouterr().err
