"""t-SNE (van der Maaten and Hinton 2008) by openTSNE (Policar, Strazar and Zupan 2024): rows -> places in the plane.

New rows are placed by partial embedding (Policar, Strazar and Zupan 2021): each starts at the median of its nearest
neighbours on the map, and only these neighbours move it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import MissingPackageError, import_extra
from searchengine.index.approximate import load_faiss
from searchengine.processors import processors
from searchengine.progress import QUIET, Progress

_EARLY = 1 / 3  # of the iterations, with exaggeration, in which clusters form
_MIN_IMAGES = 5  # for t-SNE
_QUERIES_PER_THREAD = 2048
_EXACT = 30_000  # up to so many rows, each is compared with all others
_LISTS = 32  # searched for each row
_SAMPLE_PER_LIST = 64  # rows from which k-means learns the lists
_PLACING_NEIGHBOURS = 25
_PLACING_PERPLEXITY = 5.0
_PLACING_ITERATIONS = 100
_MANY_NEW, _ITERATIONS_OF_MANY = 20_000, 10  # an iteration takes 40 us per row, and moves rows little
_PLACING_RATE = 0.1

Places = NDArray[np.float32]
"""(n, 2) float32, centred at (0, 0)."""


def bounded_perplexity(perplexity: float, images: int) -> float:
    """Limit the perplexity to a third of the number of other images, but to no less than 1."""
    return min(perplexity, max(1.0, (images - 1) / 3))


def tsne(
    reduced: NDArray[np.float32], *, perplexity: float, iterations: int, seed: int, progress: Progress = QUIET
) -> Places:
    """Lay out (n, c) float32 rows, whose first column has the greatest variance -> (n, 2) float32.

    The perplexity is limited by ``bounded_perplexity``. Fewer than five images are placed at their first two principal
    components.
    """
    count = len(reduced)
    start = np.zeros((count, 2))
    start[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    if count < _MIN_IMAGES:
        return _centred(start)
    library = import_extra("openTSNE", "openTSNE", "map")
    perplexity = bounded_perplexity(perplexity, count)
    k = min(count - 1, int(3 * perplexity))
    neighbours, distances = _neighbours(reduced, k, progress)
    affinities = library.affinity.PerplexityBasedNN(
        perplexity=min(perplexity, k / 3),
        knn_index=library.nearest_neighbors.PrecomputedNeighbors(neighbours, distances),
    )
    spread = start[:, 0].std() or 1.0
    # A little noise separates identical images, which would otherwise stay on top of each other.
    start = start / spread * 1e-4 + np.random.default_rng(seed).normal(0, 1e-6, start.shape)
    # With one thread, sums have the same order on every machine; on a busy one, threads would wait for each other.
    embedding = library.TSNEEmbedding(start, affinities, random_state=seed, n_jobs=1)
    early = int(iterations * _EARLY)
    callback = _OpenTSNEProgress(progress, iterations)
    embedding = embedding.optimize(early, exaggeration=12, momentum=0.5, callbacks=callback, callbacks_every_iters=10)
    callback.before = early
    embedding = embedding.optimize(iterations - early, momentum=0.8, callbacks=callback, callbacks_every_iters=10)
    return _centred(np.asarray(embedding))


def place_new(
    new: NDArray[np.float32], fitted: NDArray[np.float32], places: Places, progress: Progress = QUIET
) -> Places:
    """Place (m, c) new rows on the map of (n, c) fitted rows at (n, 2) places -> (m, 2)."""
    if len(fitted) < _MIN_IMAGES:
        neighbours, _ = _neighbours(fitted, 1, progress, of=new)
        return np.asarray(places[neighbours[:, 0]], dtype=np.float32)
    library = import_extra("openTSNE", "openTSNE", "map")
    k = min(_PLACING_NEIGHBOURS, len(fitted))
    neighbours, distances = _neighbours(fitted, k, progress, of=new)
    used = min(k, int(3 * _PLACING_PERPLEXITY))
    weights = library.affinity.joint_probabilities_nn(
        neighbours[:, :used],
        distances[:, :used],
        [min(_PLACING_PERPLEXITY, used / 3)],
        symmetrize=False,
        normalization="point-wise",
        n_reference_samples=len(fitted),
    )
    known = places.astype(np.float64)
    none = np.empty(
        (len(fitted), 0)
    )  # the affinities of fitted rows: openTSNE checks their number, but does not use them
    reference = library.TSNEEmbedding(known, library.affinity.PrecomputedAffinities(none, normalize=False))
    partial = library.PartialTSNEEmbedding(np.median(known[neighbours], axis=1), reference, weights)
    iterations = _PLACING_ITERATIONS if len(new) <= _MANY_NEW else _ITERATIONS_OF_MANY
    partial = partial.optimize(
        iterations,
        learning_rate=_PLACING_RATE,
        exaggeration=1.5,
        momentum=0.8,
        max_grad_norm=0.25,
        negative_gradient_method="bh",  # the other method lays a grid over all new rows
        # Here, unlike above, threads do not change the result: a place depends only on those of fitted rows.
        n_jobs=max(1, min(processors(), len(new) // _QUERIES_PER_THREAD)),
        callbacks=_OpenTSNEProgress(progress, iterations),
        callbacks_every_iters=10,
    )
    return np.asarray(partial, dtype=np.float32)


def _neighbours(
    rows: NDArray[np.float32], k: int, progress: Progress, *, of: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the k nearest of (n, c) rows for each other row, or for each of the (m, c) rows ``of``.

    Returns (m, k) positions and (m, k) distances.
    """
    progress.start(1, what="Neighbours", unit="steps")
    nearest = _approximate_neighbours(rows, k, of) if len(rows) > _EXACT else None
    if nearest is None:
        library = import_extra("sklearn.neighbors", "scikit-learn", "map")
        # With fewer queries per thread, scikit-learn splits the rows instead, which changes how it breaks ties.
        threads = max(1, min(processors(), len(rows if of is None else of) // _QUERIES_PER_THREAD))
        with import_extra("threadpoolctl", "scikit-learn", "map").threadpool_limits(threads):
            distances, positions = library.NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors(of)
        nearest = positions, distances
    progress.advance()
    return nearest


def _approximate_neighbours(
    rows: NDArray[np.float32], k: int, of: NDArray[np.float32] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Find 99 % of the neighbours, in nearly linear time, by FAISS; None if FAISS is missing.

    A neighbour that is missed is hardly nearer than the one in its place, and openTSNE itself uses approximate
    neighbours (by Annoy) for fewer rows than these.
    """
    try:
        faiss = load_faiss()
    except MissingPackageError:
        return None
    count = 2 ** round(math.log2(2 * math.sqrt(len(rows))))
    lists = faiss.index_factory(rows.shape[1], f"IVF{count},Flat")
    sample = np.random.default_rng(0).choice(len(rows), min(len(rows), _SAMPLE_PER_LIST * count), replace=False)
    lists.train(rows[np.sort(sample)])  # with one thread, so that sums have the same order on every machine
    lists.add(rows)
    lists.nprobe = _LISTS
    faiss.omp_set_num_threads(processors())
    try:
        squares, positions = lists.search(rows if of is None else of, k if of is not None else k + 1)
    finally:
        faiss.omp_set_num_threads(1)
    if of is None:  # drop each row from its own neighbours, or the last neighbour if the row is not among them
        itself = positions == np.arange(len(rows))[:, None]
        itself[~itself.any(axis=1), -1] = True
        squares, positions = (array[~itself].reshape(len(rows), k) for array in (squares, positions))
    return None if positions.min() < 0 else (positions, np.sqrt(squares.astype(np.float64).clip(0.0)))


def _centred(places: NDArray[np.float64]) -> Places:
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    return np.asarray(places - middle, dtype=np.float32)


class _OpenTSNEProgress:
    """A callback for openTSNE that reports the iterations of several optimisations as one step."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._reported = 0
        self.before = 0  # iterations of earlier optimisations
        progress.start(total, what="Map", unit="iterations")

    def __call__(self, iteration: int, error: float, embedding: Any) -> bool:
        """Report the progress; False tells openTSNE to continue."""
        self._progress.advance(self.before + iteration - self._reported)
        self._reported = self.before + iteration
        return False
