"""The distances of each metric: rough ones for all rows, from BLAS where possible, and exact ones for a few rows.

The rough values of a query, (n,) float32, order the rows as the distance does, up to an error with a proven bound.
``limit`` turns that bound into a limit: only rows below it may be among the nearest, and only they are measured
exactly, in float64. The error of a float32 sum of d products is less than d * eps * |q||x| (Higham 2002, section 3.1).
In practice it grows like the square root of d, but the bound is what makes the result exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from searchengine.index import metrics
from searchengine.processors import processors

_EPS = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)  # a product below it may be flushed to zero
_EPS64 = float(np.finfo(np.float64).eps)
_TOO_LARGE = 1e37  # a float32 sum of this size may overflow
_CHUNK_BYTES = 2**20  # bytes of rows subtracted at once, so that they stay in the cache
_SHARED_BYTES = 2**27  # size of a matrix up to which idle threads share its reading; beyond that, BLAS's threads do
_SLICE_BYTES = 2**22  # bytes of rows per slice: half a millisecond of work, so that handing it over costs little
_SLICE_ROWS = 1024  # minimum rows per slice, because NumPy keeps the GIL for 500 or fewer
_MOST_THREADS = 8  # fewer threads than that fill any memory bus
_FEW_SLICES = 4  # number of slices up to which one thread is quicker than several

Rows = NDArray[np.float32]
Norms = NDArray[np.float64]
Rough = NDArray[np.float32]


class Measure(ABC):
    """One metric over one matrix of rows; a row whose squared norm is infinite is excluded."""

    def __init__(self, rows: Rows, squared_norms: Norms) -> None:
        self.rows = rows
        self.dimension = int(rows.shape[1])
        # (n,) float32, added to rough values to put excluded rows last
        self.penalty = np.where(np.isfinite(squared_norms), 0.0, np.inf).astype(np.float32)

    @abstractmethod
    def rough(self, queries: Rows) -> Iterator[Rough]:
        """Yield the rough values of each of (m, d) float32 queries: (n,) float32, infinite for excluded rows."""

    @abstractmethod
    def limit(self, kth: float, query: NDArray[np.float64]) -> float:
        """Return an upper bound of the rough values of the k nearest rows, if k rows have one of at most ``kth``.

        The bound is infinite or NaN if the rough values are of no use.
        """

    def rough_of(self, distance: float, query: NDArray[np.float64]) -> float:
        """Return the rough value of a row at a distance, up to rounding: by default, the distance."""
        return distance

    @abstractmethod
    def close(self, positions: NDArray[np.int64], queries: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Return (b, c) float64 values that order the rows at (c,) positions as the distances from (b, d) queries do.

        The second result is a bound of their error, which is small if queries and rows are close together.
        """

    @abstractmethod
    def distances(self, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (c,) float64 distances of the rows at (c,) positions, computed in float64."""


class _Products(Measure):
    """The part common to metrics that are computed from inner products."""

    def __init__(self, rows: Rows, squared_norms: Norms) -> None:
        super().__init__(rows, squared_norms)
        self.norms = np.sqrt(np.where(np.isfinite(squared_norms), squared_norms, 0.0))  # (n,) float64
        self.largest = float(self.norms.max(initial=0.0))

    def products(self, queries: Rows) -> Iterator[Rough]:
        """Yield the inner products of each query with all rows, (n,) float32, in memory that the caller may change."""
        with np.errstate(over="ignore", invalid="ignore"):
            if len(queries) > 1:
                yield from queries @ self.rows.T  # (m, d) @ (d, n) -> (m, n)
            elif self.rows.nbytes <= _SHARED_BYTES:
                # On busy processors (another query decodes its picture) BLAS would wait for its other threads several
                # times as long as the work takes. In longer work that does not matter.
                yield self._products_with(queries[0])
            else:
                yield self.rows @ queries[0]  # reads the matrix just once

    def _products_with(self, query: Rows) -> Rough:
        """Return the inner products of one (d,) query with all rows, (n,) float32, reading the matrix only once."""
        products = np.empty(len(self.rows), dtype=np.float32)

        def take(part: slice) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # each thread has its own
                np.vecdot(self.rows[part], query, out=products[part])

        share(take, len(self.rows), max(_SLICE_ROWS, _rows_of(_SLICE_BYTES, self.dimension)))
        return products

    def rounding(self, query_norm: float) -> float:
        """Return the maximum error of a float32 inner product."""
        if query_norm * self.largest > _TOO_LARGE:
            return np.inf
        return self.dimension * (_EPS * query_norm * self.largest + _TINY)


class Euclidean(_Products):
    """|q - x|; roughly |x|^2 - 2 q.x."""

    def __init__(self, rows: Rows, squared_norms: Norms) -> None:
        super().__init__(rows, squared_norms)
        with np.errstate(over="ignore"):
            self.squares = squared_norms.astype(np.float32)

    def rough(self, queries: Rows) -> Iterator[Rough]:
        for product in self.products(queries):
            with np.errstate(over="ignore", invalid="ignore"):
                product *= -2.0
                product += self.squares
            yield product

    def limit(self, kth: float, query: NDArray[np.float64]) -> float:
        length, largest = float(np.linalg.norm(query)), self.largest
        if largest * largest > _TOO_LARGE:
            return np.inf
        error = 2.0 * self.rounding(length) + 2.0 * _EPS * (largest * largest + 2.0 * length * largest)
        error += self.dimension * _EPS64 * 4.0 * (largest * largest + length * length)  # that of the exact distances
        return kth + 2.0 * error

    def rough_of(self, distance: float, query: NDArray[np.float64]) -> float:
        length = float(np.linalg.norm(query))
        distance = min(max(distance, 0.0), 2.0 * (length + self.largest) + 1.0)  # no row is farther away
        return distance * distance - length * length

    def close(self, positions: NDArray[np.int64], queries: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        return _squares(self.rows[positions].astype(np.float64), queries)

    def distances(self, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.empty(len(positions), dtype=np.float64)
        for part, rows in _chunks(self.rows, positions):
            rows -= query
            distances[part] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        return distances


class InnerProduct(_Products):
    """-(q.x), so that smaller is nearer here too."""

    def rough(self, queries: Rows) -> Iterator[Rough]:
        for product in self.products(queries):
            np.subtract(self.penalty, product, out=product)
            yield product

    def limit(self, kth: float, query: NDArray[np.float64]) -> float:
        length = float(np.linalg.norm(query))
        return kth + 2.0 * self.rounding(length) + 4.0 * _EPS64 * self.dimension * length * self.largest

    def close(self, positions: NDArray[np.int64], queries: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        longest = float(np.linalg.norm(queries, axis=1).max())
        values = -(queries @ self.rows[positions].astype(np.float64).T)  # (b, d) @ (d, c)
        return values, 4.0 * _EPS64 * self.dimension * longest * self.largest

    def distances(self, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.empty(len(positions), dtype=np.float64)
        for part, rows in _chunks(self.rows, positions):
            distances[part] = np.einsum("ij,j->i", rows, query)
        return 0.0 - distances


class Cosine(_Products):
    """1 - cos(q, x), which is half the squared distance between the two directions; roughly -(q.x) / |x|."""

    def __init__(self, rows: Rows, squared_norms: Norms) -> None:
        super().__init__(rows, squared_norms)
        has_direction = self.norms > 0
        self.smallest = float(self.norms.min(initial=np.inf, where=has_direction))
        inverse = np.divide(1.0, self.norms, out=np.zeros_like(self.norms), where=has_direction)
        with np.errstate(over="ignore"):
            self.inverse = -inverse.astype(np.float32)

    def rough(self, queries: Rows) -> Iterator[Rough]:
        for product in self.products(queries):
            with np.errstate(over="ignore", invalid="ignore"):
                product *= self.inverse
                product += self.penalty
            yield product

    def limit(self, kth: float, query: NDArray[np.float64]) -> float:
        length = float(np.linalg.norm(query))
        if not np.isfinite(self.rounding(length)) or self.smallest < _TINY:
            return np.inf
        flushed = 0.0 if self.smallest == np.inf else self.dimension * _TINY / self.smallest
        return kth + 2.0 * ((self.dimension + 4) * _EPS * length + flushed)

    def rough_of(self, distance: float, query: NDArray[np.float64]) -> float:
        return (min(max(distance, 0.0), 3.0) - 1.0) * float(np.linalg.norm(query))

    def close(self, positions: NDArray[np.int64], queries: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        lengths, norms = np.linalg.norm(queries, axis=1, keepdims=True), self.norms[positions, None]
        directions = np.divide(
            self.rows[positions], norms, out=np.zeros((len(positions), self.dimension)), where=norms > 0
        )
        values, error = _squares(directions, np.divide(queries, lengths, out=np.zeros_like(queries), where=lengths > 0))
        values[(lengths == 0) | (norms.T == 0)] = 2.0  # a zero vector has no direction: cosine 0
        return values, error

    def distances(self, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.ones(len(positions), dtype=np.float64)  # a zero vector has no direction: cosine 0
        length = float(np.linalg.norm(query))
        if length == 0.0:
            return distances
        direction = query / length
        for part, rows in _chunks(self.rows, positions):
            norms = self.norms[positions[part]]
            has_direction = norms > 0
            rows = rows[has_direction] / norms[has_direction, None]
            rows -= direction
            distances[part][has_direction] = np.einsum("ij,ij->i", rows, rows) / 2.0
        return distances


class Manhattan(Measure):
    """The sum of |q_i - x_i|, from differences of a chunk of rows at a time; only the sums are left to BLAS."""

    def rough(self, queries: Rows) -> Iterator[Rough]:
        values = np.empty((len(queries), len(self.rows)), dtype=np.float32)
        step = _rows_of(_CHUNK_BYTES, self.dimension)
        differences = np.empty((step, self.dimension), dtype=np.float32)
        ones = np.ones(self.dimension, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(self.rows), step):
                chunk = self.rows[start : start + step]  # (c, d), in the cache for all queries
                difference = differences[: len(chunk)]
                for i, query in enumerate(queries):
                    np.subtract(chunk, query, out=difference)
                    np.abs(difference, out=difference)
                    np.matmul(difference, ones, out=values[i, start : start + step])  # (c, d) @ (d,) -> (c,)
            values += self.penalty
        yield from values

    def limit(self, kth: float, query: NDArray[np.float64]) -> float:
        # All terms are positive, so the error is proportional to the sum.
        relative = (self.dimension + 4) * _EPS
        if kth > _TOO_LARGE or relative >= 0.5:
            return np.inf
        return (kth + self.dimension * _TINY) * (1.0 + relative) / (1.0 - relative) + self.dimension * _TINY

    def close(self, positions: NDArray[np.int64], queries: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        return np.stack([self.distances(positions, query) for query in queries]), 0.0

    def distances(self, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.empty(len(positions), dtype=np.float64)
        for part, rows in _chunks(self.rows, positions):
            rows -= query
            distances[part] = np.abs(rows, out=rows).sum(axis=1)
        return distances


MEASURES: dict[str, type[Measure]] = {
    metrics.EUCLIDEAN: Euclidean,
    metrics.COSINE: Cosine,
    metrics.MANHATTAN: Manhattan,
    metrics.INNER_PRODUCT: InnerProduct,
}


def _squares(rows: NDArray[np.float64], queries: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the (b, c) squared distances of (c, d) rows from (b, d) queries, and a bound of their error.

    They are computed from products, with the first query as the origin. The error is proportional to the squared
    distances from that query, so it is next to nothing among near-duplicates.
    """
    rows, queries = rows - queries[0], queries - queries[0]
    norms, lengths = np.einsum("ij,ij->i", rows, rows), np.einsum("ij,ij->i", queries, queries)
    values = norms - 2.0 * (queries @ rows.T) + lengths[:, None]  # (b, d) @ (d, c)
    return values, 4.0 * (rows.shape[1] + 4) * _EPS64 * float(norms.max() + lengths.max())


def _chunks(rows: Rows, positions: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the rows at some positions, a chunk at a time: its slice, and a fresh (c, d) float64 array."""
    step = _rows_of(8 * _CHUNK_BYTES, rows.shape[1])
    for start in range(0, len(positions), step):
        yield slice(start, start + step), rows[positions[start : start + step]].astype(np.float64)


def _rows_of(size: int, dimension: int) -> int:
    """Return how many float32 rows fit into ``size`` bytes, at least one."""
    return max(1, size // (4 * max(dimension, 1)))


# -- sharing one pass between idle threads ----------------------------------------------------------------------------


def share(work: Callable[[slice], None], count: int, step: int) -> None:
    """Call ``work`` for every slice of ``step`` out of ``count``, in this thread and in others that are idle.

    Each thread takes the next slice when it has finished one. Threads that have not begun when all slices are taken are
    not waited for, so on a busy machine this takes no longer than the work itself. (BLAS gives each of its threads a
    fixed part, and waits until the last of them has had a processor.) ``work`` must release the GIL, as NumPy does.
    """
    starts = iter(range(0, count, step))  # next() is a single step of the interpreter, so no slice is taken twice

    def take() -> None:
        for start in starts:
            work(slice(start, min(start + step, count)))

    slices = -(-count // step)
    helpers = [_pool().submit(take) for _ in range(min(_threads(), slices) - 1 if slices > _FEW_SLICES else 0)]
    try:
        take()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _threads() -> int:
    return min(processors(), _MOST_THREADS)


@cache
def _pool() -> ThreadPoolExecutor:
    # After a fork the pool has no threads: a submitted task never begins, so it is not waited for.
    return ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="rows")
