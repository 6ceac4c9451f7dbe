"""Near-duplicates: images that are connected by pairs closer than a threshold.

The threshold is a share of how long a feature typically is (the root mean square of the lengths). For features of
length 1 it is the Euclidean distance itself, and t means a cosine of at least 1 - t²/2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.rows import Rows
from searchengine.index.metrics import NEAR_DUPLICATE
from searchengine.progress import QUIET, Progress

THRESHOLD = NEAR_DUPLICATE
_PRODUCTS = 2**22  # distances, or numbers of rows, that are held at a time

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(p,) first and (p,) second rows."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """``numbers`` is (n,) int32: from 0, the largest group first, and -1 for an image without a near-duplicate.

    ``limit`` is the threshold as a Euclidean distance.
    """

    numbers: NDArray[np.int32]
    limit: float

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.numbers.max(initial=-1)) + 1


def duplicates_of(
    rows: Rows, reduced: NDArray[np.float32], threshold: float = THRESHOLD, *, progress: Progress = QUIET
) -> Duplicates:
    """Groups of rows that are connected by distances of at most the threshold, exactly.

    A projection makes no distance longer. So products of blocks of the (n, c) ``reduced`` rows give all candidates, and
    only their distances are computed in full, in float64; pairs that are connected already are skipped.
    """
    scale, longest = _lengths(rows)
    limit = threshold * scale
    # What rounding may add in the products of float32, so that no pair is missed.
    slack = 64 * float(np.finfo(np.float32).eps) * (longest + 1e-30) ** 2
    groups = np.arange(len(rows))
    for first, second in _candidates(reduced, limit**2 + slack, progress):
        groups = _connect(rows, groups, first, second, limit)
    return Duplicates(_numbered(groups), float(limit))


def _candidates(reduced: NDArray[np.float32], limit: float, progress: Progress) -> Iterator[Pairs]:
    """Pairs whose projections are within a squared distance, a block of first rows at a time."""
    count = len(reduced)
    norms = np.einsum("ij,ij->i", reduced, reduced, dtype=np.float64)
    step = max(16, min(512, _PRODUCTS // max(count, 1)))
    progress.start(count, what="Near-duplicates")
    for start in range(0, count, step):
        stop = min(start + step, count)
        products = reduced[start:stop] @ reduced[start:].T  # (b, n - start)
        squares = norms[start:stop, None] + norms[None, start:] - 2.0 * products
        first, second = np.nonzero(squares <= limit)
        ahead = second > first
        yield first[ahead] + start, second[ahead] + start
        progress.advance(stop - start)


def _connect(
    rows: Rows, groups: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], limit: float
) -> NDArray[np.int64]:
    """The (n,) number of each row's group after joining those of all candidates that are near enough."""
    from scipy.sparse import coo_array, csgraph  # type: ignore[import-untyped]

    step = max(1, _PRODUCTS // rows.dimension)
    # One candidate of each second row comes first: in a group of equal rows these connect everything.
    later = np.ones(len(second), dtype=np.bool_)
    later[np.unique(second, return_index=True)[1]] = False
    order = np.argsort(later, kind="stable")
    first, second = first[order], second[order]
    while True:
        apart = groups[first] != groups[second]
        first, second = first[apart], second[apart]
        if not len(first):
            return groups
        gaps = rows.take(first[:step]).astype(np.float64) - rows.take(second[:step])  # (p, d)
        near = np.sqrt(np.einsum("ij,ij->i", gaps, gaps)) <= limit
        ends = groups[first[:step][near]], groups[second[:step][near]]
        edges = coo_array((np.ones(near.sum(), dtype=np.bool_), ends), shape=(len(groups), len(groups)))
        groups = csgraph.connected_components(edges, directed=False)[1][groups].astype(np.int64)
        first, second = first[step:], second[step:]


def _numbered(groups: NDArray[np.int64]) -> NDArray[np.int32]:
    """Groups of two and more, the largest first, equal ones by their first member; all others -1."""
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(sizes > 1)
    order = several[np.lexsort((first[several], -sizes[several]))]
    rank = np.full(len(sizes), -1, dtype=np.int32)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[group], dtype=np.int32)


def _lengths(rows: Rows) -> tuple[float, float]:
    """The root mean square of the lengths of all rows, and the greatest."""
    squares = np.concatenate([np.einsum("ij,ij->i", block, block, dtype=np.float64) for _, block in rows.blocks()])
    return float(np.sqrt(squares.mean())), float(np.sqrt(squares.max()))
