"""Top k for every row of a set, by products of blocks: memory grows with the rows, never with their square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.index.state import State

_QUERIES = 256  # a block of so many against all rows: large enough for BLAS, small enough to show progress


@dataclass(frozen=True, slots=True)
class Block:
    """Some queries, in the order of their ids, and the nearest others of each, nearest first.

    ``ids`` is (b,) int64, ``neighbours`` (b, k) int64 ids, ``distances`` (b, k) float64.
    """

    ids: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    distances: NDArray[np.float64]


def whole_set(state: State, k: int, metric: str | None = None) -> Iterator[Block]:
    """The k nearest others of every image, exactly, ties in the order of ids; an image is no neighbour of itself.

    Args:
        state: the rows, as ``LocalIndex.state`` gives them.
        k: at least 1; at most as many neighbours as there are other images.
        metric: None for the one of the index.

    Raises:
        UnknownNameError: no such metric.
    """
    searcher = state.searcher(metric)
    live = state.live
    live = live[np.argsort(state.ids[live], kind="stable")]
    k = min(k, len(live) - 1)
    for start in range(0, len(live), _QUERIES):
        rows = live[start : start + _QUERIES]
        ids = state.ids[rows]
        # (b, d) against (n, d) -> b of k + 1, among which the query itself most often is
        found = searcher.nearest(np.asarray(state.rows[rows]), k + 1)
        neighbours = np.empty((len(rows), k), dtype=np.int64)
        distances = np.empty((len(rows), k), dtype=np.float64)
        for i, (row, nearest) in enumerate(zip(rows, found, strict=True)):
            others = np.flatnonzero(nearest.positions != row)[:k]
            neighbours[i] = state.ids[nearest.positions[others]]
            distances[i] = nearest.distances[others]
        yield Block(ids, neighbours, distances)
