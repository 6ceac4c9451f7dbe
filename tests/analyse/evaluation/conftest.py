"""Indexes to evaluate, of synthetic features and of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from searchengine.index.local import LocalIndex
from searchengine.indexing import IndexingOptions, update_index
from tests.analyse.filled import fill
from tests.fakes import FakeExtractor, picture

Make = Callable[..., LocalIndex]


@pytest.fixture
def indexed(tmp_path: Path) -> Make:
    """(name, features, labels) -> an index of these features, without pictures."""

    def make(name: str, features: Sequence[Sequence[float]], labels: Sequence[str]) -> LocalIndex:
        names = [f"{i}.png" for i in range(len(labels))]
        return fill(tmp_path / name, np.array(features, dtype=np.float32), names=names, labels=labels)

    return make


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """An index of plain pictures: red ones, blue ones, and blue ones among the red."""
    photos = tmp_path / "photos"
    for label, reds in {"red": (250, 240, 230, 20), "blue": (10, 0, 5, 15)}.items():
        (photos / label).mkdir(parents=True)
        for i, red in enumerate(reds):
            (photos / label / f"{i}.png").write_bytes(picture((red, 0, 255 - red)))
    update_index([photos], tmp_path / "colours", extractor=FakeExtractor(), options=IndexingOptions())
    return tmp_path / "colours"
