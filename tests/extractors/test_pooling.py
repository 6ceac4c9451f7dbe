"""Layers are pooled, flattened and concatenated; the size on the disk is reported."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors import extractor, make_spec
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.networks import pooled
from searchengine.indexing.model import size_remark

pytestmark = pytest.mark.usefixtures("described_in_process")


def by_loops(maps: NDArray[np.float32], pooling: str) -> NDArray[np.float64]:
    n, height, width, channels = maps.shape
    result = np.zeros((n, channels))
    for i in range(n):
        for c in range(channels):
            values = [float(maps[i, y, x, c]) for y in range(height) for x in range(width)]
            if pooling == "avg":
                result[i, c] = sum(values) / len(values)
            elif pooling == "max":
                result[i, c] = max(values)
            else:
                result[i, c] = (sum(max(value, 1e-6) ** 3 for value in values) / len(values)) ** (1 / 3)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max", "gem"])
def test_pooling_equals_a_loop(pooling: str) -> None:
    import_keras()
    maps = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32) * 10
    maps[1] = -1  # no activations: GeM returns its lower bound
    maps[2, :, :, 0] = 7.5  # equal everywhere, like every mean
    result = np.asarray(pooled(maps, pooling))
    np.testing.assert_allclose(result, by_loops(maps, pooling), rtol=1e-5, atol=1e-6)
    assert result[2, 0] == pytest.approx(7.5, rel=1e-6)


@pytest.mark.slow
def test_without_pooling_maps_are_flattened() -> None:
    import_keras()
    maps = np.random.default_rng(0).uniform(0, 9, (2, 7, 7, 8)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(pooled(maps, "none")), maps.reshape(2, -1))
    np.testing.assert_array_equal(np.asarray(pooled(maps[:, 0, 0], "gem")), maps[:, 0, 0])


def test_layers_have_equal_weight() -> None:
    rows = np.array([[3, 4, 0.0, 1e-3], [0, 0, 5, 12]], np.float32)
    result = extractor.normalized(rows, "l2", (2, 2))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(result, [[0.6 * half, 0.8 * half, 0, half], [0, 0, 5 / 13, 12 / 13]], rtol=1e-6)
    np.testing.assert_array_equal(extractor.normalized(rows, "none", (2, 2)), rows)
    np.testing.assert_allclose(extractor.normalized(rows, "l2", (4,)), extractor.normalized(rows, "l2"))


@pytest.mark.slow
def test_several_layers() -> None:
    both = make_spec(layer=["block5_pool", "fc1"], pooling="avg")
    assert both.layer == "block5_pool+fc1"
    assert both.layers == ("block5_pool", "fc1")
    assert both.title == "VGG16 block5_pool+fc1 (avg pooling), ImageNet weights, L2-normalised"
    assert both.fingerprint != make_spec(layer=["fc1", "block5_pool"], pooling="avg").fingerprint


@pytest.mark.slow
def test_conflicting_options() -> None:
    with pytest.raises(ExtractorError, match="nothing to pool: fc1 and fc2 of VGG16 have no spatial"):
        make_spec(layer=["fc1", "fc2"], pooling="gem")
    with pytest.raises(ExtractorError, match="fc1 is given twice"):
        make_spec(layer=["fc1", "fc1"])
    with pytest.raises(ExtractorError, match=r"VGG16 has its own preprocessing and input size.*\.keras files"):
        make_spec(preprocessing="tf")
    with pytest.raises(ExtractorError, match="its own preprocessing"):
        make_spec("efficientnet-lite0", preprocessing="tf")
    with pytest.raises(ExtractorError, match=r"--input-size 16 is too small: .* at least 32 pixels"):
        make_spec("efficientnet-lite0", input_size=16)


def test_the_size_is_reported_before_it_fills_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20e9))
    assert size_remark(3_211_264, 5000, tmp_path) == (
        "A feature has 3211264 numbers: 5000 images take 64 GB, BUT ONLY 20 GB are free there. Convolutional layers "
        "give fewer numbers with --pooling avg or gem."
    )
    assert "100 images take 10 MB, 20 GB are free" in str(size_remark(25_088, 100, tmp_path))
    assert size_remark(4096, 1_000_000, tmp_path) is None
    assert "BUT ONLY" in str(size_remark(4096, 2_000_000, tmp_path))
