from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine import update_index
from searchengine.extractors import make_spec
from searchengine.extractors.loading import source_of
from searchengine.extractors.source import Head
from tests.fakes import FakeExtractor, write_pictures

LITE = make_spec("efficientnet-lite0")


def ideal(head: Head, number: int) -> NDArray[np.float32]:
    """Return a feature that shows one class, and nothing else that the network knows."""
    positive = np.maximum(head.weights[number] - head.weights.mean(axis=0), 0)
    return np.asarray(positive / np.linalg.norm(positive), dtype=np.float32)


class IdealExtractor(FakeExtractor):
    """A fake EfficientNet-Lite0: a grey picture shows the class whose number is four times its grey level."""

    dimension = 1280

    def __init__(self) -> None:
        super().__init__(LITE)
        self.head = source_of(LITE.model).head(LITE, None, None)

    def embed(self, images: Sequence[Any] | NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = [ideal(self.head, 4 * int(np.asarray(image)[0, 0, 0])) for image in images]
        return np.stack(rows) if rows else np.empty((0, 1280), dtype=np.float32)


@pytest.fixture(scope="session")
def head() -> Head:
    return source_of(LITE.model).head(LITE, None, None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of pictures of the classes 948 (Granny Smith apple), 620 (laptop), 0 (tench) and 980 (volcano)."""
    place = tmp_path_factory.mktemp("words")
    write_pictures(place / "images", apple=237, computer=155, things__fish=0, things__strawberry=245)
    update_index(place / "images", place / "index", extractor=IdealExtractor())
    return place / "index"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the index and its pictures that a test may change."""
    shutil.copytree(folder.parent, tmp_path / "all")
    return tmp_path / "all"
