"""Exact nearest neighbours: every distance, by BLAS over the mapped matrix, the best of them exactly.

``|x|^2 - 2 q.x + |q|^2`` costs one pass over memory but is noisy near zero, and differs in the last digits between one
query and many. So it only chooses candidates, with a margin that covers its rounding error; their distances are then
computed as differences in float64, and ordered by (distance, id).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 256 * 2**20  # of float32 products held at once
_CHUNK_ROWS = 4096  # rows of a difference taken in float64 at once


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Of one query, nearest first: ``positions`` (k,) int64 into the searched rows, ``distances`` (k,) float64."""

    positions: NDArray[np.int64]
    distances: NDArray[np.float64]


def euclidean(
    rows: NDArray[np.float32],
    squared_norms: NDArray[np.float64],
    ids: NDArray[np.int64],
    queries: NDArray[np.float32],
    k: int,
) -> list[Neighbours]:
    """The k nearest rows of each query by Euclidean distance, exactly, ties in the order of ids.

    Args:
        rows: (n, d) float32; may be a memory map.
        squared_norms: (n,) float64, ``|x|^2`` of each row; infinite where a row does not count.
        ids: (n,) int64, distinct where a row counts.
        queries: (m, d) float32.
        k: at least 1; what is beyond the rows that count is not returned.

    Returns:
        m results of min(k, rows that count) neighbours.
    """
    counted = int(np.isfinite(squared_norms).sum())
    k = min(k, counted)
    if k == 0:
        none = Neighbours(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
        return [none for _ in range(len(queries))]
    results = []
    largest = float(np.max(squared_norms, initial=0.0, where=np.isfinite(squared_norms)))
    for block in _blocks(queries, rows.shape[0]):
        # (b, d) @ (d, n) -> (b, n); a single query is a matrix-vector product, which reads the matrix just once
        products = (rows @ block[0])[None, :] if len(block) == 1 else block @ rows.T
        for query, product in zip(block, products, strict=True):
            results.append(_nearest(rows, squared_norms, largest, ids, query, product, k))
    return results


def _nearest(
    rows: NDArray[np.float32],
    squared_norms: NDArray[np.float64],
    largest: float,
    ids: NDArray[np.int64],
    query: NDArray[np.float32],
    product: NDArray[np.float32],
    k: int,
) -> Neighbours:
    exact_query = query.astype(np.float64)
    rough = squared_norms - 2.0 * product  # |x|^2 - 2 q.x: orders as the distance does, up to rounding
    # Rounding of a float32 sum of d products is below d * eps * |q||x| (Higham 2002, section 3.1); in practice it grows
    # like the square root, but the bound is what makes the result exact.
    error = 2.0 * rows.shape[1] * float(np.finfo(np.float32).eps) * float(np.linalg.norm(exact_query)) * largest**0.5
    candidates = _candidates(rough, k, 2.0 * error)
    distances = _distances(rows, candidates, exact_query)
    order = np.lexsort((ids[candidates], distances))[:k]
    return Neighbours(candidates[order], distances[order])


def _candidates(rough: NDArray[np.float64], k: int, margin: float) -> NDArray[np.int64]:
    """Positions of all rows that may be among the k nearest, given the error of the rough distances."""
    if k >= rough.shape[0]:
        return np.flatnonzero(np.isfinite(rough))
    kth = np.partition(rough, k - 1)[k - 1]
    return np.flatnonzero(rough <= kth + margin)


def _distances(
    rows: NDArray[np.float32], positions: NDArray[np.int64], query: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(c,) float64 distances of the rows at those positions, by differences, a chunk at a time."""
    distances = np.empty(len(positions), dtype=np.float64)
    for start in range(0, len(positions), _CHUNK_ROWS):
        chunk = positions[start : start + _CHUNK_ROWS]
        difference = rows[chunk].astype(np.float64)  # (c, d)
        difference -= query
        distances[start : start + len(chunk)] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances


def _blocks(queries: NDArray[np.float32], rows: int) -> Iterator[NDArray[np.float32]]:
    size = max(1, _BLOCK_BYTES // (4 * max(rows, 1)))
    for start in range(0, len(queries), size):
        yield queries[start : start + size]
