"""Exact nearest neighbours: rough distances of all rows by BLAS, then exact ones of the best.

``|x|^2 - 2 q.x`` costs one pass over memory but is noisy near zero, and differs in the last digits between one query
and many. So such values only choose candidates, with a margin that covers their error; the candidates' distances are
then computed in float64, and ordered by (distance, id). Among thousands of near-duplicates (frames of a still camera)
all are candidates of all; many queries then share a second choice, by products in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.errors import QueryError
from searchengine.index.distances import MEASURES, Measure
from searchengine.index.filters import Cursor
from searchengine.index.metrics import EUCLIDEAN, check_metric

_BLOCK_BYTES = 256 * 2**20  # of float32 values held at once
_GROUPS = 1024  # see _threshold
_CROWD = 2000  # candidates, from which a second choice costs less than their distances
_TOGETHER = 64  # queries that share a second choice
_NARROW_VALUES = 2**21  # float64 values of rows that it takes at once
_FEW = 0.25  # of the rows, up to which those that pass a filter are copied: to read them is quicker then
_FEW_VALUES = 2**26  # float32 values of such a copy, at most
_INF = np.float32(np.inf)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Of one query, nearest first: ``positions`` (k,) int64 into the searched rows, ``distances`` (k,) float64."""

    positions: NDArray[np.int64]
    distances: NDArray[np.float64]


class Searcher:
    """One metric over one matrix, prepared once for many searches. Never changes; safe to share between threads."""

    def __init__(
        self,
        metric: str,
        rows: NDArray[np.float32],
        squared_norms: NDArray[np.float64],
        ids: NDArray[np.int64],
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Keep what is searched; none of it may change.

        Args:
            metric: one of ``metrics.METRICS``; UnknownNameError.
            rows: (n, d) float32; may be a memory map.
            squared_norms: (n,) float64, ``|x|^2`` of each row; infinite where a row does not count.
            ids: (n,) int64, distinct where a row counts.
            positions: (n,) int64, what the rows are called in answers; None for 0, 1, ...
        """
        self._measure: Measure = MEASURES[check_metric(metric)](np.asarray(rows), squared_norms)
        self._rows = rows.shape[0]
        self._matrix, self._metric = rows, metric
        self._squared_norms, self._ids, self._positions = squared_norms, ids, positions
        self._counted = np.flatnonzero(np.isfinite(squared_norms))

    @classmethod
    def of_rows(cls, rows: NDArray[np.float32], metric: str = EUCLIDEAN) -> Searcher:
        """Over all rows of an (n, d) float32 matrix, which are numbered in their order."""
        squared_norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return cls(metric, rows, squared_norms, np.arange(len(rows), dtype=np.int64))

    def among(self, passing: NDArray[np.bool_]) -> Searcher:
        """Over those of the same rows that pass, by an (n,) mask; where they are few, over a copy of them."""
        rows, squared_norms = self._matrix, np.where(passing, self._squared_norms, np.inf)
        few = np.flatnonzero(np.isfinite(squared_norms))
        if len(few) > _FEW * len(rows) or len(few) * rows.shape[1] > _FEW_VALUES:
            return Searcher(self._metric, rows, squared_norms, self._ids, self._positions)
        positions = few if self._positions is None else self._positions[few]
        return Searcher(self._metric, rows[few], squared_norms[few], self._ids[few], positions)

    def reading(self, rows: NDArray[np.float32]) -> Searcher:
        """The same, reading its rows from an equal matrix, which may be mapped in another way."""
        searcher = copy(self)
        searcher._matrix, searcher._measure = rows, copy(self._measure)
        searcher._measure.rows = np.asarray(rows)
        return searcher

    def nearest(self, queries: NDArray[np.float32], k: int, after: Cursor | None = None) -> list[Neighbours]:
        """(m, d) float32 -> m results of min(k, rows that count) neighbours, ordered by (distance, id); k >= 1.

        With a cursor, there must be a single query, and only neighbours that come after it are returned.
        """
        assert after is None or len(queries) == 1
        k = min(k, len(self._counted))
        if k == 0:
            none = Neighbours(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
            return [none for _ in range(len(queries))]
        # Equal queries are answered once: otherwise n equal rows would each measure all others exactly.
        first: dict[bytes, int] = {}
        answers = [first.setdefault(query.tobytes(), len(first)) for query in queries + np.float32(0.0)]  # -0.0 is 0.0
        if len(first) < len(queries):
            queries = queries[np.unique(answers, return_index=True)[1]]
        results = []
        for block in _blocks(queries, self._rows):
            results += self._nearest_of_block(block, k, after)
        return [results[answer] for answer in answers]

    def ranked(self, query: NDArray[np.float32], candidates: NDArray[np.int64]) -> Neighbours:
        """All of (c,) candidates, rows that count, for one (d,) query; ordered by (distance, id)."""
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
        """The positions of all rows that may be among the k nearest, or the k nearest that come after the cursor."""
        if after is not None:
            return self._candidates_after(after, query, rough, k)
        limit = np.inf if k >= self._rows else self._measure.limit(_threshold(rough, k), query)
        if not np.isfinite(limit):
            return self._counted
        # float32 values against a float32 limit, itself rounded up; else NumPy would convert them all
        return np.flatnonzero(rough <= np.nextafter(np.float32(limit), np.float32(np.inf)))

    def _candidates_after(
        self, after: Cursor, query: NDArray[np.float64], rough: NDArray[np.float32], k: int
    ) -> NDArray[np.int64]:
        value = self._measure.rough_of(after.distance, query)
        error = self._measure.limit(value, query) - value
        if not np.isfinite(error):
            return self._counted
        with np.errstate(over="ignore"):
            # Between both, a row may come before the cursor or after it.
            first, last = np.nextafter(np.float32(value - error), -_INF), np.nextafter(np.float32(value + error), _INF)
            later = rough[rough > last]
            limit = self._measure.limit(_threshold(later, k), query) if k <= len(later) else np.inf
            candidates = np.flatnonzero((rough >= first) & (rough <= np.nextafter(np.float32(limit), _INF)))
        return candidates[np.isfinite(self._squared_norms[candidates])]

    def _narrowed(
        self, queries: NDArray[np.float64], candidates_of: list[NDArray[np.int64]], k: int
    ) -> Iterator[NDArray[np.int64]]:
        """For each of the (b, d) queries, those of all their candidates that may be among its k nearest."""
        is_candidate = np.zeros(self._rows, dtype=np.bool_)
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
        for of_query in values:
            yield candidates[of_query <= np.partition(of_query, k - 1)[k - 1] + 2.0 * slack]

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
    """A value that at least k of the rough ones do not exceed; the k-th smallest, or a little more.

    Of many values, the least of each group is taken first: k groups with a least value of at most t hold k values of
    at most t. That is one quick pass, and t is hardly larger than the k-th smallest of all.
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
    """(m, d) or (d,) -> (m, d) float32; QueryError for what cannot be answered: see ``Index.search``."""
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused below
        block = np.atleast_2d(np.asarray(queries, dtype=np.float32))  # (d,) -> (1, d)
    if block.ndim != 2 or block.shape[1] != dimension:
        raise QueryError(f"A query has the shape {block.shape}; this index wants (m, {dimension}).")
    if not np.isfinite(block).all():
        raise QueryError("A query holds NaN or infinity, so nothing can be near it.")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k must be a whole number of at least 1, not {k!r}.")
    if after is not None and len(block) != 1:
        raise QueryError(f"A cursor continues the answer to one query, not to {len(block)}.")
    return block
