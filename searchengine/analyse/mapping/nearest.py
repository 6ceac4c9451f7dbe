"""Exact nearest neighbours among reduced rows: products of blocks, never all against all in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from searchengine.progress import QUIET, Progress

_PRODUCTS = 2**23  # distances that are held at a time, by each thread


def nearest(
    queries: NDArray[np.float32],
    references: NDArray[np.float32],
    k: int,
    *,
    same: bool = False,
    progress: Progress = QUIET,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest references of each query by Euclidean distance, nearest first.

    Args:
        queries: (m, c) float32.
        references: (n, c) float32.
        k: at most n, or n - 1 where ``same``.
        same: the queries are the references, and none is a neighbour of itself.

    Returns:
        (m, k) int64 places among the references, and (m, k) float64 distances.
    """
    norms = np.einsum("ij,ij->i", references, references, dtype=np.float32)  # (n,)
    step = max(16, min(512, _PRODUCTS // max(len(references), 1)))
    places = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))

    def one(start: int) -> None:
        block = queries[start : start + step]
        order = norms - 2 * (block @ references.T)  # (b, n): the squared distance, less what is the same in a row
        if same:
            order[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        found = np.argpartition(order, k - 1, axis=1)[:, :k] if k < order.shape[1] else np.argsort(order, axis=1)
        gaps = references[found].astype(np.float64) - block[:, None, :]  # (b, k, c)
        exact = np.sqrt(np.einsum("ijk,ijk->ij", gaps, gaps))
        by_distance = np.lexsort((found, exact), axis=1)
        places[start : start + len(block)] = np.take_along_axis(found, by_distance, axis=1)
        distances[start : start + len(block)] = np.take_along_axis(exact, by_distance, axis=1)

    starts = range(0, len(queries), step)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="nearest") as pool:
        progress.start(len(queries), what="Neighbours")
        for start, _ in zip(starts, pool.map(one, starts), strict=True):
            progress.advance(min(step, len(queries) - start))
    return places, distances
