"""Near-duplicates: images connected by pairs that are closer than a threshold.

The threshold is a fraction of the typical length of a feature (the root mean square). For features of length 1 it is
the Euclidean distance itself, and a threshold of t means a cosine of at least 1 - t²/2.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.rows import Rows
from searchengine.errors import import_extra
from searchengine.index.metrics import NEAR_DUPLICATE
from searchengine.progress import QUIET, Progress

THRESHOLD = NEAR_DUPLICATE
_PRODUCTS = 2**22  # distances, or numbers of rows, in memory at once
_WHOLE = 8192  # up to so many rows, all are compared with all
_SAMPLE = 32  # rows per centre from which the centres are learnt

Pairs = NDArray[np.int64]
"""(2, p) positions of first and second rows."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of near-duplicates.

    ``numbers`` is (n,) int32: the group of each image, 0 for the largest; -1 for an image without near-duplicates.
    ``limit`` is the threshold as a Euclidean distance.
    """

    numbers: NDArray[np.int32]
    limit: float

    @property
    def count(self) -> int:
        """The number of groups."""
        return int(self.numbers.max(initial=-1)) + 1


def duplicates_of(
    rows: Rows, reduced: NDArray[np.float32], threshold: float = THRESHOLD, *, progress: Progress = QUIET
) -> Duplicates:
    """Find the groups of rows that are connected by distances of at most the threshold, exactly.

    A projection makes no distance longer, so the (n, c) ``reduced`` rows give all candidate pairs. Only the distances
    of candidates are computed in full, in float64, and pairs that are already connected are skipped.
    """
    scale, longest = _lengths(rows)
    limit = threshold * scale
    # Allow for rounding in the float32 products, so that no pair is missed.
    slack = 128 * float(np.finfo(np.float32).eps) * (longest + 1e-30) ** 2
    groups = np.arange(len(rows))
    # The blocks are small, and on a busy machine several threads would mostly wait for each other.
    with import_extra("threadpoolctl", "scikit-learn", "map").threadpool_limits(1):
        for pairs in _candidates(reduced, limit, slack, progress):
            groups = _connect(rows, groups, pairs, limit)
    return Duplicates(largest_first(groups, smallest=2), float(limit))


def _candidates(reduced: NDArray[np.float32], limit: float, slack: float, progress: Progress) -> Iterator[Pairs]:
    """Yield batches of pairs whose projections are within a distance, or only slightly further apart.

    Rows are divided into k-means cells. If two rows of different cells are near each other, both are near the plane
    halfway between the centres, so most rows of a cell need not be compared with most other cells.
    """
    centres = _centres(reduced)
    own = np.empty(len(reduced), dtype=np.int64)
    step = max(1, _PRODUCTS // len(centres))
    for start in range(0, len(reduced), step):
        own[start : start + step] = _squares(reduced[start : start + step], centres).argmin(axis=1)
    used, own = np.unique(own, return_inverse=True)  # rows may have left a centre in the last step of k-means
    centres, cells = centres[used], np.split(np.argsort(own, kind="stable"), np.cumsum(np.bincount(own))[:-1])
    pairs: list[Pairs] = []
    held = 0
    progress.start(len(reduced), what="Near-duplicates")
    for number, cell in enumerate(cells):
        gaps = np.sqrt(_squares(centres[[number]], centres)[0].clip(0.0))
        for start in range(0, len(cell), step):
            part = cell[start : start + step]
            beyond = _squares(reduced[part], centres)  # (m, c)
            beyond -= beyond[:, [number]]  # how much further away the other centres are, squared
            near = beyond <= 2.0 * gaps * limit + 4.0 * slack
            for other in np.flatnonzero(near[:, number:].any(axis=0)) + number:
                for block in _near(reduced, part[near[:, other]], cells[other], limit**2 + slack):
                    pairs.append(block if other > number else block.compress(block[0] < block[1], axis=1))
                    held += block.shape[1]
                    if held > _PRODUCTS // 16:
                        yield np.concatenate(pairs, axis=1)
                        pairs, held = [], 0
            progress.advance(len(part))
    if pairs:
        yield np.concatenate(pairs, axis=1)


def _near(
    reduced: NDArray[np.float32], rows: NDArray[np.int64], others: NDArray[np.int64], limit: float
) -> Iterator[Pairs]:
    """Yield pairs of one of ``rows`` and one of ``others`` within a squared distance ``limit``."""
    step = max(1, _PRODUCTS // len(others))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        first, second = np.nonzero(_squares(reduced[part], reduced[others]) <= limit)  # (b, o)
        yield np.stack([part[first], others[second]])


def _squares(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute (m, k) squared distances between (m, c) rows and (k, c) centres, up to rounding."""
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", centres, centres)
    squares -= 2.0 * (rows @ centres.T)
    return squares


def _centres(reduced: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (k, c) centres of cells, about as many as rows per cell; a single one if there are few rows."""
    if len(reduced) <= _WHOLE:
        return reduced[:1]
    library = import_extra("sklearn.cluster", "scikit-learn", "map")
    count = math.isqrt(len(reduced))
    sample = np.random.default_rng(0).choice(len(reduced), min(len(reduced), _SAMPLE * count), replace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal rows leave fewer distinct centres
        model = library.KMeans(count, n_init=1, max_iter=5, random_state=0).fit(reduced[sample])
    return np.asarray(np.unique(model.cluster_centers_, axis=0), dtype=np.float32)


def _connect(rows: Rows, groups: NDArray[np.int64], pairs: Pairs, limit: float) -> NDArray[np.int64]:
    """Join the groups of all candidate pairs that are near enough, and return the new (n,) group numbers."""
    from scipy.sparse import coo_array, csgraph  # type: ignore[import-untyped]

    step = max(1, _PRODUCTS // rows.dimension)
    first, second = np.minimum(*pairs), np.maximum(*pairs)
    # Put one candidate for each second row first: in a group of equal rows, these connect everything.
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


def largest_first(groups: NDArray[np.integer], smallest: int = 1) -> NDArray[np.int32]:
    """Renumber (n,) groups from 0 by size, and by first member if equally large; -1 for those below ``smallest``."""
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(sizes >= smallest)
    order = kept[np.lexsort((first[kept], -sizes[kept]))]
    rank = np.full(len(sizes), -1, dtype=np.int32)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[group], dtype=np.int32)


def _lengths(rows: Rows) -> tuple[float, float]:
    """Return the root mean square of the lengths of all rows, and the greatest length."""
    squares = np.concatenate([np.einsum("ij,ij->i", block, block, dtype=np.float64) for _, block in rows.blocks()])
    return float(np.sqrt(squares.mean())), float(np.sqrt(squares.max()))
