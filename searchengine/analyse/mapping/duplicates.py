"""Near-duplicates: images that are connected by pairs closer than a threshold.

The threshold is a share of how long a feature typically is (the root mean square of the lengths). For features of
length 1 it is the Euclidean distance itself, and t means a cosine of at least 1 - t²/2.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.rows import Rows
from searchengine.errors import import_extra
from searchengine.index.metrics import NEAR_DUPLICATE
from searchengine.progress import QUIET, Progress

THRESHOLD = NEAR_DUPLICATE
_PRODUCTS = 2**22  # distances, or numbers of rows, that are held at a time
_WHOLE = 8192  # rows, up to which all are compared with all
_SAMPLE = 32  # rows for each centre, by which the centres are chosen

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

    A projection makes no distance longer. So the (n, c) ``reduced`` rows give all candidates, and only their distances
    are computed in full, in float64; pairs that are connected already are skipped.
    """
    scale, longest = _lengths(rows)
    limit = threshold * scale
    # What rounding may add in the products of float32, so that no pair is missed.
    slack = 128 * float(np.finfo(np.float32).eps) * (longest + 1e-30) ** 2
    groups = np.arange(len(rows))
    # One thread: the blocks are small, and on a busy machine several would mostly wait for each other.
    with import_extra("threadpoolctl", "scikit-learn", "map").threadpool_limits(1):
        for first, second in _candidates(reduced, limit, slack, progress):
            groups = _connect(rows, groups, first, second, limit)
    return Duplicates(largest_first(groups, smallest=2), float(limit))


def _candidates(reduced: NDArray[np.float32], limit: float, slack: float, progress: Progress) -> Iterator[Pairs]:
    """Pairs whose projections are within a distance, or hardly further apart; some at a time.

    Rows are sorted into the cells of k-means. Two rows of different cells that are near each other are both as near to
    the plane halfway between the centres, so most rows of a cell need not be compared with most other cells.
    """
    centres = _centres(reduced)
    own = np.empty(len(reduced), dtype=np.int64)
    step = max(1, _PRODUCTS // len(centres))
    for start in range(0, len(reduced), step):
        own[start : start + step] = _squares(reduced[start : start + step], centres).argmin(axis=1)
    cells = np.split(np.argsort(own, kind="stable"), np.cumsum(np.bincount(own, minlength=len(centres)))[:-1])
    pairs: list[Pairs] = []
    held = 0
    progress.start(len(reduced), what="Near-duplicates")
    for number, cell in enumerate(cells):
        gaps = np.sqrt(_squares(centres[[number]], centres)[0].clip(0.0))
        for start in range(0, len(cell), step):
            part = cell[start : start + step]
            beyond = _squares(reduced[part], centres)  # (m, c)
            beyond -= beyond[:, [number]]  # how much further the other centres are, squared
            near = beyond <= 2.0 * gaps * limit + 4.0 * slack
            for other in np.flatnonzero(near[:, number:].any(axis=0)) + number:
                for first, second in _near(reduced, part[near[:, other]], cells[other], limit**2 + slack):
                    ahead = np.ones(len(first), dtype=np.bool_) if other > number else first < second
                    pairs.append((first[ahead], second[ahead]))
                    held += len(first)
                    if held > _PRODUCTS // 16:
                        yield _together(pairs)
                        pairs, held = [], 0
            progress.advance(len(part))
    yield _together(pairs)


def _near(
    reduced: NDArray[np.float32], some: NDArray[np.int64], others: NDArray[np.int64], most: float
) -> Iterator[Pairs]:
    """Pairs of one of some rows and one of others, within a squared distance."""
    right = reduced[others]
    norms = np.einsum("ij,ij->i", right, right) - np.float32(most)
    step = max(1, _PRODUCTS // len(others))
    for start in range(0, len(some), step):
        left = reduced[some[start : start + step]]
        excess = np.einsum("ij,ij->i", left, left)[:, None] + norms - 2.0 * (left @ right.T)  # (b, o)
        first, second = np.nonzero(excess <= 0)
        if len(first):
            yield some[start : start + step][first], others[second]


def _together(pairs: list[Pairs]) -> Pairs:
    none = np.empty(0, dtype=np.int64)
    first, second = (np.concatenate([none, *ends]) for ends in zip(*pairs, strict=True)) if pairs else (none, none)
    return np.minimum(first, second), np.maximum(first, second)


def _squares(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m, c) rows and (k, c) centres -> (m, k) squared distances, but for rounding."""
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", centres, centres)
    squares -= 2.0 * (rows @ centres.T)
    return squares


def _centres(reduced: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k, c) centres of cells, about as many as each has rows; a single one where there are few rows."""
    if len(reduced) <= _WHOLE:
        return reduced[:1]
    library = import_extra("sklearn.cluster", "scikit-learn", "map")
    count = math.isqrt(len(reduced))
    sample = np.random.default_rng(0).choice(len(reduced), min(len(reduced), _SAMPLE * count), replace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal rows have fewer centres
        model = library.KMeans(count, n_init=1, max_iter=5, random_state=0).fit(reduced[sample])
    return np.asarray(np.unique(model.cluster_centers_, axis=0), dtype=np.float32)


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


def largest_first(groups: NDArray[np.integer], smallest: int = 1) -> NDArray[np.int32]:
    """(n,) groups, numbered anyhow -> from 0 by size, equal ones by their first member; -1 for smaller ones."""
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(sizes >= smallest)
    order = kept[np.lexsort((first[kept], -sizes[kept]))]
    rank = np.full(len(sizes), -1, dtype=np.int32)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[group], dtype=np.int32)


def _lengths(rows: Rows) -> tuple[float, float]:
    """The root mean square of the lengths of all rows, and the greatest."""
    squares = np.concatenate([np.einsum("ij,ij->i", block, block, dtype=np.float64) for _, block in rows.blocks()])
    return float(np.sqrt(squares.mean())), float(np.sqrt(squares.max()))
