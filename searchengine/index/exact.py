"""Exact nearest neighbours: rough distances of all rows from BLAS, then exact distances of the best candidates.

``|x|^2 - 2 q.x`` costs one pass over memory, but it is noisy near zero, and its last digits depend on how many queries
are answered together. So these values only select candidates, with a margin that covers their error. The distances of
the candidates are then computed in float64 and ordered by (distance, id). Among thousands of near-duplicates (frames of
a still camera) every row is a candidate of every other; then many queries share a second selection, by products in
float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.errors import QueryError
from searchengine.index.distances import MEASURES
from searchengine.index.filters import Cursor
from searchengine.index.metrics import EUCLIDEAN, check_metric

_BLOCK_BYTES = 256 * 2**20  # bytes of rough distances in memory at once
_GROUPS = 1024  # see _threshold
_CROWD = 2000  # number of candidates above which a second selection costs less than computing their distances
_TOGETHER = 64  # queries that share a second selection
_NARROW_VALUES = 2**21  # float64 values that a second selection reads at once
_FEW = 0.25  # share of the rows up to which those that pass a filter are copied, because a copy is quicker to read
_FEW_VALUES = 2**26  # maximum number of float32 values in such a copy
_INF = np.float32(np.inf)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The neighbours of one query, nearest first.

    ``positions`` is (k,) int64 into the searched rows, ``distances`` is (k,) float64.
    """

    positions: NDArray[np.int64]
    distances: NDArray[np.float64]


class Searcher:
    """Exact search over one matrix in one metric. It never changes, and is safe to share between threads."""

    def __init__(
        self,
        metric: str,
        rows: NDArray[np.float32],
        squared_norms: NDArray[np.float64],
        ids: NDArray[np.int64],
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Prepare searches over arrays, which must not change.

        Args:
            metric: one of ``metrics.METRICS``; UnknownNameError.
            rows: (n, d) float32; may be a memory map.
            squared_norms: (n,) float64, ``|x|^2`` of each row, or infinity to exclude it.
            ids: (n,) int64, distinct among the rows that are not excluded.
            positions: (n,) int64, the positions to report for the rows; None for 0, 1, ...
        """
        self._measure = MEASURES[check_metric(metric)](np.asarray(rows), squared_norms)
        self._count = rows.shape[0]
        self._matrix, self._metric = rows, metric
        self._squared_norms, self._ids, self._positions = squared_norms, ids, positions
        self._included = np.flatnonzero(np.isfinite(squared_norms))

    @classmethod
    def of_rows(cls, rows: NDArray[np.float32], metric: str = EUCLIDEAN) -> Searcher:
        """Return a searcher over all rows of an (n, d) float32 matrix, whose ids are 0, 1, ..."""
        squared_norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return cls(metric, rows, squared_norms, np.arange(len(rows), dtype=np.int64))

    def among(self, passing: NDArray[np.bool_]) -> Searcher:
        """Return a searcher over the rows selected by an (n,) mask; a few rows are copied."""
        rows, squared_norms = self._matrix, np.where(passing, self._squared_norms, np.inf)
        few = np.flatnonzero(np.isfinite(squared_norms))
        if len(few) > _FEW * len(rows) or len(few) * rows.shape[1] > _FEW_VALUES:
            return Searcher(self._metric, rows, squared_norms, self._ids, self._positions)
        positions = few if self._positions is None else self._positions[few]
        return Searcher(self._metric, rows[few], squared_norms[few], self._ids[few], positions)

    def nearest(self, queries: NDArray[np.float32], k: int, after: Cursor | None = None) -> list[Neighbours]:
        """Return the k nearest rows of each of (m, d) float32 queries, ordered by (distance, id); k >= 1.

        With a cursor there must be a single query, and only neighbours that come after the cursor are returned.
        """
        assert after is None or len(queries) == 1
        k = min(k, len(self._included))
        if k == 0:
            none = Neighbours(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
            return [none for _ in range(len(queries))]
        # Equal queries are answered once: otherwise each of n equal rows would be measured exactly against all others.
        distinct: dict[bytes, int] = {}
        comparable = (query + np.float32(0.0) for query in queries)  # turns -0.0 into 0.0
        numbers = [distinct.setdefault(query.tobytes(), len(distinct)) for query in comparable]
        if len(distinct) < len(queries):
            queries = queries[np.unique(numbers, return_index=True)[1]]
        results = []
        for block in _blocks(queries, self._count):
            results += self._nearest_of_block(block, k, after)
        return [results[number] for number in numbers]

    def ranked(self, query: NDArray[np.float32], candidates: NDArray[np.int64]) -> Neighbours:
        """Return all of (c,) candidates, none of them excluded, ordered by (distance, id) from one (d,) query."""
        return self._ordered(query.astype(np.float64), candidates, len(candidates))

    def _nearest_of_block(self, block: NDArray[np.float32], k: int, after: Cursor | None) -> list[Neighbours]:
        queries = block.astype(np.float64)
        results: dict[int, Neighbours] = {}
        crowded: dict[int, NDArray[np.int64]] = {}
        # (b, d) float32 -> b of (n,) float32
        for i, rough in enumerate(self._measure.rough(block)):
            candidates = self._candidates(queries[i], rough, k, after)
            if len(candidates) > max(_CROWD, 8 * k) and len(block) > 1:
                crowded[i] = candidates
            else:
                results[i] = self._ordered(queries[i], candidates, k, after)
            if len(crowded) == _TOGETHER or (crowded and i == len(block) - 1):
                narrowed = self._narrowed(queries[list(crowded)], [*crowded.values()], k)
                results |= {j: self._ordered(queries[j], rows, k) for j, rows in zip(crowded, narrowed, strict=True)}
                crowded = {}
        return [results[i] for i in range(len(block))]

    def _candidates(
        self, query: NDArray[np.float64], rough: NDArray[np.float32], k: int, after: Cursor | None
    ) -> NDArray[np.int64]:
        """Return the positions of all rows that may be among the k nearest, counted from the cursor if there is one."""
        if after is not None:
            return self._candidates_after(after, query, rough, k)
        limit = np.inf if k >= self._count else self._measure.limit(_threshold(rough, k), query)
        if not np.isfinite(limit):
            return self._included
        # a float32 limit, rounded up, so that NumPy need not convert all the values
        return np.flatnonzero(rough <= np.nextafter(np.float32(limit), _INF))

    def _candidates_after(
        self, after: Cursor, query: NDArray[np.float64], rough: NDArray[np.float32], k: int
    ) -> NDArray[np.int64]:
        value = self._measure.rough_of(after.distance, query)
        # The limit exceeds the value by the margin of error, which applies to both sides.
        error = self._measure.limit(value, query) - value
        if not np.isfinite(error):
            return self._included
        with np.errstate(over="ignore"):
            # A row with a value from first to last may be on either side of the cursor.
            first, last = np.nextafter(np.float32(value - error), -_INF), np.nextafter(np.float32(value + error), _INF)
            later = rough[rough > last]
            limit = self._measure.limit(_threshold(later, k), query) if k <= len(later) else np.inf
            candidates = np.flatnonzero((rough >= first) & (rough <= np.nextafter(np.float32(limit), _INF)))
        return candidates[np.isfinite(self._squared_norms[candidates])]

    def _narrowed(
        self, queries: NDArray[np.float64], candidates_of: list[NDArray[np.int64]], k: int
    ) -> Iterator[NDArray[np.int64]]:
        """Yield for each of (b, d) queries, out of all their candidates together, those that may be its k nearest."""
        is_candidate = np.zeros(self._count, dtype=np.bool_)
        for positions in candidates_of:
            is_candidate[positions] = True
        candidates = np.flatnonzero(is_candidate)
        values = np.empty((len(queries), len(candidates)))
        slack = 0.0
        step = max(1, _NARROW_VALUES // queries.shape[1])
        for start in range(0, len(candidates), step):
            part = slice(start, start + step)
            values[:, part], error = self._measure.close(candidates[part], queries)
            slack = max(slack, error)
        for query_values in values:
            yield candidates[query_values <= np.partition(query_values, k - 1)[k - 1] + 2.0 * slack]

    def _ordered(
        self, query: NDArray[np.float64], candidates: NDArray[np.int64], k: int, after: Cursor | None = None
    ) -> Neighbours:
        distances, ids = self._measure.distances(candidates, query), self._ids[candidates]
        if after is not None:
            later = (distances > after.distance) | ((distances == after.distance) & (ids > after.id))
            candidates, distances, ids = candidates[later], distances[later], ids[later]
        order = np.lexsort((ids, distances))[:k]
        positions = candidates[order]
        return Neighbours(positions if self._positions is None else self._positions[positions], distances[order])


def _threshold(rough: NDArray[np.float32], k: int) -> float:
    """Return a value that at least k of the rough values do not exceed: the k-th smallest, or a little more.

    Many values are first reduced to the minimum of each group: if k groups have a minimum of at most t, then at least k
    values are at most t. That takes one quick pass, and t is hardly larger than the k-th smallest value.
    """
    groups = max(_GROUPS, 16 * k)
    size = len(rough) // groups
    if size >= 4:
        rough = rough[: groups * size].reshape(size, groups).min(axis=0)  # (n,) -> (groups,)
    return float(np.partition(rough, k - 1)[k - 1])  # NaN is sorted to the end


def _blocks(queries: NDArray[np.float32], rows: int) -> Iterator[NDArray[np.float32]]:
    size = max(1, _BLOCK_BYTES // (4 * max(rows, 1)))
    for start in range(0, len(queries), size):
        yield queries[start : start + size]


def checked_queries(queries: ArrayLike, dimension: int, k: int, after: Cursor | None) -> NDArray[np.float32]:
    """Return queries, (m, d) or (d,), as (m, d) float32; QueryError if ``Index.search`` cannot answer them."""
    with np.errstate(over="ignore"):  # values too large for float32 become infinite, and are refused below
        block = np.atleast_2d(np.asarray(queries, dtype=np.float32))  # (d,) -> (1, d)
    if block.ndim != 2 or block.shape[1] != dimension:
        raise QueryError(f"A query has the shape {block.shape}, but this index needs (m, {dimension}).")
    if not np.isfinite(block).all():
        raise QueryError("A query contains NaN or infinity, so nothing can be near it.")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k must be a whole number of at least 1, not {k!r}.")
    if after is not None and len(block) != 1:
        raise QueryError(f"A cursor continues the results of one query, not of {len(block)}.")
    return block
