"""Indexes with a structure for approximate search."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.index import building
from searchengine.index.approximate import StructureSheet
from searchengine.index.local import LocalIndex
from searchengine.index.types import Batch, Hit
from searchengine.index.writer import IndexWriter
from tests.index.contract.test_contract import MANIFEST, row

DIMENSION = 96


def features(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return (n, d) vectors of length 1, scattered around forty points."""
    centres = np.random.default_rng(7).standard_normal((40, DIMENSION))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(40, size=count)] + 0.7 * random.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(folder: Path, vectors: NDArray[np.float32], **manifest: str) -> Path:
    """Create an index with an image for each vector; every second one is labelled even, and every hundredth rare."""
    with IndexWriter.create(folder, {**MANIFEST, "normalized": "1", **manifest}, dimension=vectors.shape[1]) as writer:
        writer.set_roots([(1, b"/photos", "photos")])
    return added(folder, vectors)


def added(folder: Path, vectors: NDArray[np.float32], removed: list[int] | None = None) -> Path:
    with IndexWriter.open(folder) as writer:
        first = writer.catalog.last_id() + 1
        images = [
            row(f"{n}.jpg", *("even",) * (n % 2 == 0), *("rare",) * (n % 100 == 0))
            for n in range(first, first + len(vectors))
        ]
        writer.commit(Batch(stored=images, features=list(vectors), removed=removed or []))
    return folder


def built(folder: Path) -> StructureSheet:
    with closing(LocalIndex.open(folder, exact=True)) as index:
        return building.build(folder, index.state())


def both(folder: Path) -> tuple[LocalIndex, LocalIndex]:
    """Open an index for approximate search, and again for exact search."""
    return LocalIndex.open(folder), LocalIndex.open(folder, exact=True)


def places(hits: list[Hit]) -> list[tuple[float, int]]:
    return [(hit.distance, hit.id) for hit in hits]
