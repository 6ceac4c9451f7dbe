"""Labelled points that serve as features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.engine import open_index
from searchengine.exchange import import_features
from searchengine.index.local import LocalIndex

Indexed = Callable[..., LocalIndex]


def clouds(sizes: Sequence[int], dimension: int = 4, seed: int = 0) -> tuple[NDArray[np.float32], list[str]]:
    """Return overlapping clouds of points, labelled a, b, c, ..."""
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for i, size in enumerate(sizes):
        centre = 1.2 * random.standard_normal(dimension)
        rows.append(random.standard_normal((size, dimension)) + centre)
        labels += ["abcdefgh"[i]] * size
    return np.concatenate(rows).astype(np.float32), labels


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[Indexed]:
    """Return a function that makes an index of features and labels, with ids from 1 in their order."""
    opened: list[LocalIndex] = []

    def make(features: NDArray[np.float32], labels: Sequence[str] | None = None, name: str = "index") -> LocalIndex:
        more = {} if labels is None else {"labels": np.array(labels)}
        np.savez(tmp_path / "a.npz", features=features, **more)  # type: ignore[arg-type]
        import_features(tmp_path / "a.npz", tmp_path / name)
        opened.append(open_index(tmp_path / name))
        return opened[-1]

    yield make
    for index in opened:
        index.close()
