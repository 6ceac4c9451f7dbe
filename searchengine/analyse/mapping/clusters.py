"""Groups of images that look alike: k-means (Lloyd 1982; Sculley 2010 for mini-batches), by scikit-learn.

How many there are is chosen, where it is not given, by the silhouette (Rousseeuw 1987) of a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.rows import needed
from searchengine.errors import QueryError
from searchengine.progress import QUIET, Progress

_WHOLE = 20_000  # rows; beyond, k-means sees batches
_SAMPLE = 2000
_TRIED = (2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 36, 42, 50, 60)


@dataclass(frozen=True, slots=True)
class Clusters:
    """``numbers`` is (n,) int32 from 0, the largest cluster first; ``distances`` (n,) float32 to its middle.

    ``silhouette`` is from -1 to 1, of a sample; None for a single cluster.
    """

    numbers: NDArray[np.int32]
    distances: NDArray[np.float32]
    silhouette: float | None

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return int(self.numbers.max(initial=-1)) + 1


def clusters_of(
    reduced: NDArray[np.float32], k: int | None = None, *, seed: int = 0, progress: Progress = QUIET
) -> Clusters:
    """(n, c) float32 -> k clusters, or as many as the silhouette of a sample of 2000 speaks for (2 to 60).

    Raises:
        QueryError: k is below 1 or larger than the number of different rows.
        IndexingError: scikit-learn is missing.
    """
    needed("sklearn.cluster", "scikit-learn")
    different = len(np.unique(reduced, axis=0))
    if k is not None and not 1 <= k <= different:
        raise QueryError(
            f"There can be from 1 to {different} clusters, as there are so many different images; not {k}."
        )
    sample = _sample(len(reduced), seed)
    if k is None:
        k = _chosen(reduced[sample], seed, progress)
    progress.start(1, what="Clusters", unit="steps")
    numbers, middles = _k_means(reduced, k, seed)
    distances = np.linalg.norm(reduced - middles[numbers], axis=1).astype(np.float32)
    sizes = np.bincount(numbers, minlength=k)
    order = np.lexsort((_first(numbers, k), -sizes))  # the largest first; of equal ones that of the lower id
    rank = np.empty(k, dtype=np.int32)
    rank[order] = np.arange(k)
    progress.advance()
    return Clusters(rank[numbers], distances, _silhouette(reduced[sample], numbers[sample]))


def _chosen(sample: NDArray[np.float32], seed: int, progress: Progress) -> int:
    different = len(np.unique(sample, axis=0))
    # With nearly as many clusters as images each is one of its own, which is no grouping.
    tried = [k for k in _TRIED if k < different and k <= max(2, math.isqrt(2 * len(sample)))]
    best, best_value = 1, -1.0
    progress.start(len(tried), what="How many clusters", unit="numbers")
    for k in tried:
        value = _silhouette(sample, _k_means(sample, k, seed, starts=2)[0])
        if value is not None and value > best_value:
            best, best_value = k, value
        progress.advance()
    return best


def _k_means(
    reduced: NDArray[np.float32], k: int, seed: int, starts: int = 4
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(n, c) -> (n,) int32 numbers and (k, c) middles; the best of so many starts."""
    library = needed("sklearn.cluster", "scikit-learn")
    if k == 1:
        return np.zeros(len(reduced), dtype=np.int32), reduced.mean(axis=0, keepdims=True)
    model: Any
    if len(reduced) <= _WHOLE:
        model = library.KMeans(k, n_init=starts, random_state=seed)
    else:
        model = library.MiniBatchKMeans(k, n_init=starts, batch_size=4096, random_state=seed)
    # One thread: the rows are short, and on a busy machine several would mostly wait for each other.
    with needed("threadpoolctl", "scikit-learn").threadpool_limits(1):
        numbers = model.fit_predict(reduced)
    return np.asarray(numbers, dtype=np.int32), np.asarray(model.cluster_centers_, dtype=np.float32)


def _silhouette(sample: NDArray[np.float32], numbers: NDArray[np.int32]) -> float | None:
    count = len(np.unique(numbers))
    if not 2 <= count < len(sample):
        return None
    return float(needed("sklearn.metrics", "scikit-learn").silhouette_score(sample, numbers))


def _sample(count: int, seed: int) -> NDArray[np.int64]:
    """Some of so many rows, by number, ascending."""
    if count <= _SAMPLE:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _SAMPLE, replace=False))


def _first(numbers: NDArray[np.int32], k: int) -> NDArray[np.int64]:
    first = np.full(k, len(numbers), dtype=np.int64)
    np.minimum.at(first, numbers, np.arange(len(numbers)))
    return first
