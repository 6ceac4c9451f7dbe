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

from searchengine.extractors.frameworks import import_keras


@pytest.fixture(autouse=True)
def cache_dir(isolated: None, cache_dir_of_the_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start every test with a cache without models and without published weights.

    Only the layers of networks are shared, because listing those of one network takes seconds.
    """
    layers = cache_dir_of_the_run / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "layers").symlink_to(layers)
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(cache))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return cache


@dataclass(frozen=True)
class Vgg16:
    """Weights files, images and the features that plain Keras computes from them; see vgg16_by_keras.py."""

    folder: Path
    images: list[Path]

    def expected(self, layer: str) -> NDArray[np.float32]:
        features: NDArray[np.float32] = np.load(self.folder / f"{layer}.npy")
        return features


@pytest.fixture(scope="session")
def vgg16() -> Iterator[Vgg16]:
    """Create the files once for all tests, and delete them afterwards, because they take two gigabytes."""
    with tempfile.TemporaryDirectory(prefix="vgg16-") as name:
        folder = Path(name)
        images = [folder / f"{number}.{kind}" for number, kind in enumerate(["jpg", "png", "jpg", "webp", "png"])]
        rng = np.random.default_rng(0)
        for path, (height, width) in zip(
            images, [(300, 400), (224, 224), (97, 55), (640, 480), (500, 500)], strict=True
        ):
            coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(path, lossless=True)
        keras = import_keras()
        from tests.extractors import vgg16_by_keras

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras 3.15 saves with an array protocol that NumPy 2 deprecates
            vgg16_by_keras.write(folder, images)
        keras.utils.clear_session()
        for weights in folder.glob("*.h5"):
            os.utime(weights, (1_000_000_000, 1_000_000_000))  # written long ago, so that hashes are remembered
        yield Vgg16(folder, images)
