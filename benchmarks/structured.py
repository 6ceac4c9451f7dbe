"""Any number of features with the structure of real ones: points between photos and their neighbours.

A row is a + u (b - a), with b among the 20 nearest of a and u in [0, 1], plus noise with the covariance of the real
photos' deviation from such segments; clipped at 0, and scaled to length 1. Held-out photos are the queries. For other
dimensions than that of the photos, a fixed random projection of them is clipped at 0, which is synthetic. Without an
index of real photos, the photos are synthetic too: 5000 points on a surface of 24 dimensions, bent by two random
layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_HELD_OUT = 500
_NEAREST = 20
_BLOCK = 8192


@dataclass(frozen=True)
class Source:
    """Photos, the 20 nearest of each, a root of the covariance of the noise, and a projection or None."""

    photos: Rows
    nearest: NDArray[np.int64]
    noise: Rows
    projection: Rows | None
    queries: Rows

    @classmethod
    def of(cls, index: Path | None, dimension: int) -> Source:
        """Make a source from the features of an index, or from synthetic ones without an index."""
        from searchengine.index.exact import Searcher
        from searchengine.index.local import LocalIndex

        features = _made_up() if index is None else np.array(LocalIndex.open(index).features)
        order = np.random.default_rng(0).permutation(len(features))
        held_out, photos = features[order[:_HELD_OUT]], features[order[_HELD_OUT:]]
        neighbours = Searcher.of_rows(photos).nearest(photos, _NEAREST + 1)
        nearest = np.stack([each.positions[each.positions != i][:_NEAREST] for i, each in enumerate(neighbours)])
        weights, axes = np.linalg.eigh(np.cov(_missed(photos, nearest).T))
        noise = (axes * np.sqrt(weights.clip(0))).T.astype(np.float32)
        projection = None
        if dimension != features.shape[1]:
            shape = (features.shape[1], dimension)
            projection = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        return cls(photos, nearest, noise, projection, _finished(held_out, projection))

    def blocks(self, rows: int) -> Iterator[Rows]:
        """Yield this number of rows, in blocks."""
        random = np.random.default_rng(2)
        for start in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - start)
            first = random.integers(len(self.photos), size=count)
            second = self.nearest[first, random.integers(_NEAREST, size=count)]
            share = random.random((count, 1), dtype=np.float32)
            points = self.photos[first] + share * (self.photos[second] - self.photos[first])
            points += random.standard_normal(points.shape, dtype=np.float32) @ self.noise
            yield _finished(points, self.projection)


def _missed(photos: Rows, nearest: NDArray[np.int64]) -> Rows:
    """Return how each photo differs from the nearest point between its neighbour and a neighbour of that one."""
    missed = np.empty_like(photos)
    for i, photo in enumerate(photos):
        begin = nearest[i, 0]
        ends = nearest[begin][nearest[begin] != i]
        along = photos[ends] - photos[begin]
        share = ((photo - photos[begin]) @ along.T) / np.einsum("ij,ij->i", along, along).clip(1e-12)
        differences = photo - photos[begin] - share.clip(0, 1)[:, None] * along
        missed[i] = differences[np.argmin(np.einsum("ij,ij->i", differences, differences))]
    return missed


def _finished(points: Rows, projection: Rows | None) -> Rows:
    points = np.maximum(points, 0)
    if projection is not None:
        points = np.maximum(points @ projection, 0)
    return points / np.linalg.norm(points, axis=1, keepdims=True).clip(1e-12)


def _made_up() -> Rows:
    random = np.random.default_rng(3)
    values = random.standard_normal((5000, 24), dtype=np.float32)
    for inside, outside in ((24, 256), (256, 1280)):
        values = np.maximum(values @ random.standard_normal((inside, outside), dtype=np.float32), 0)
    return values / np.linalg.norm(values, axis=1, keepdims=True)
