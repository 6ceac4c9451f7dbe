"""t-SNE (van der Maaten and Hinton 2008) by openTSNE (Policar, Strazar and Zupan 2024): rows -> places in the plane.

New rows are placed by its partial embedding (Policar, Strazar and Zupan 2021): each starts at the median of its nearest
neighbours on the map and is moved by them alone.
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
_TOO_FEW = 5  # images for which there is no t-SNE
_QUERIES_A_THREAD = 2048
_EXACT = 30_000  # rows, up to which each is compared with all others
_LISTS, _ROWS_A_LIST = 32, 64  # that are searched, and that k-means sees for each list
_PLACING_NEIGHBOURS = 25
_PLACING_PERPLEXITY = 5.0
_PLACING_ITERATIONS = 100
_MANY_NEW, _ITERATIONS_OF_MANY = 20_000, 10  # each takes 40 us a row, and moves it little from where it starts
_PLACING_RATE = 0.1

Places = NDArray[np.float32]
"""(n, 2), around (0, 0)."""


def bounded_perplexity(perplexity: float, images: int) -> float:
    """The perplexity, or the largest that so many images allow: a third of the others, and at least 1."""
    return min(perplexity, max(1.0, (images - 1) / 3))


def tsne(
    reduced: NDArray[np.float32], *, perplexity: float, iterations: int, seed: int, progress: Progress = QUIET
) -> Places:
    """(n, c) float32, the direction of greatest variance first -> (n, 2) float32.

    The perplexity is bounded by the number of images (``bounded_perplexity``). Fewer than five images stand at their
    first two principal components.
    """
    count = len(reduced)
    start = np.zeros((count, 2))
    start[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    if count < _TOO_FEW:
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
    # A trace of noise separates identical images, which would otherwise stay on top of each other.
    start = start / spread * 1e-4 + np.random.default_rng(seed).normal(0, 1e-6, start.shape)
    # One thread: sums are then made in one order on every machine, and on a busy one threads would wait for each other.
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
    """Places for (m, c) new rows on the map that (n, c) fitted rows and their (n, 2) places make up -> (m, 2)."""
    if len(fitted) < _TOO_FEW:
        neighbours, _ = _neighbours(fitted, 1, progress, of=new)
        return np.asarray(places[neighbours[:, 0]], dtype=np.float32)
    library = import_extra("openTSNE", "openTSNE", "map")

    class Affinities(library.affinity.Affinities):  # type: ignore[name-defined, misc]
        """Affinities of new rows to the fitted ones, by exact neighbours."""

        def __init__(self) -> None:
            super().__init__()
            self.P = np.empty((len(fitted), 0))  # only its length is used

        def to_new(self, data: NDArray[np.float32], return_distances: bool = False) -> Any:
            k = min(_PLACING_NEIGHBOURS, len(fitted))
            neighbours, distances = _neighbours(fitted, k, progress, of=data)
            used = min(k, int(3 * _PLACING_PERPLEXITY))
            weights = library.affinity.joint_probabilities_nn(
                neighbours[:, :used],
                distances[:, :used],
                [min(_PLACING_PERPLEXITY, used / 3)],
                symmetrize=False,
                normalization="point-wise",
                n_reference_samples=len(fitted),
            )
            return (weights, neighbours, distances) if return_distances else weights

    reference = library.TSNEEmbedding(places.astype(np.float64), Affinities(), negative_gradient_method="bh")
    partial = reference.prepare_partial(new, initialization="median", k=_PLACING_NEIGHBOURS)
    iterations = _PLACING_ITERATIONS if len(new) <= _MANY_NEW else _ITERATIONS_OF_MANY
    partial = partial.optimize(
        iterations,
        learning_rate=_PLACING_RATE,
        exaggeration=1.5,
        momentum=0.8,
        max_grad_norm=0.25,
        negative_gradient_method="bh",  # the other method lays a grid over all of the new ones
        # Unlike above, threads change nothing: a place depends on those of fitted rows alone.
        n_jobs=max(1, min(processors(), len(new) // _QUERIES_A_THREAD)),
        callbacks=_OpenTSNEProgress(progress, iterations),
        callbacks_every_iters=10,
    )
    return np.asarray(partial, dtype=np.float32)


def _neighbours(
    rows: NDArray[np.float32], k: int, progress: Progress, *, of: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest (n, c) rows of each other row, or of each of the (m, c) ``of``: positions and distances, (m, k)."""
    progress.start(1, what="Neighbours", unit="steps")
    nearest = _nearly_all_neighbours(rows, k, of) if len(rows) > _EXACT else None
    if nearest is None:
        library = import_extra("sklearn.neighbors", "scikit-learn", "map")
        # With less for each thread, scikit-learn shares out the rows; which of equal ones it takes depends on that.
        threads = max(1, min(processors(), len(rows if of is None else of) // _QUERIES_A_THREAD))
        with import_extra("threadpoolctl", "scikit-learn", "map").threadpool_limits(threads):
            distances, positions = library.NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors(of)
        nearest = positions, distances
    progress.advance()
    return nearest


def _nearly_all_neighbours(
    rows: NDArray[np.float32], k: int, of: NDArray[np.float32] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """The same of many rows, in a time that grows nearly as they do: 99 % of them, by FAISS; None without FAISS.

    A missing neighbour is hardly nearer than the one that takes its place, and openTSNE itself chooses approximate
    ones (by Annoy) for fewer rows than these.
    """
    try:
        faiss = load_faiss()
    except MissingPackageError:
        return None
    count = 2 ** round(math.log2(2 * math.sqrt(len(rows))))
    lists = faiss.index_factory(rows.shape[1], f"IVF{count},Flat")
    sample = np.random.default_rng(0).choice(len(rows), min(len(rows), _ROWS_A_LIST * count), replace=False)
    lists.train(rows[np.sort(sample)])  # by one thread, so that sums are made in one order on every machine
    lists.add(rows)
    lists.nprobe = _LISTS
    faiss.omp_set_num_threads(processors())
    try:
        squares, positions = lists.search(rows if of is None else of, k if of is not None else k + 1)
    finally:
        faiss.omp_set_num_threads(1)
    if of is None:  # a row is no neighbour of itself; where it is not among its neighbours, the last of them goes
        itself = positions == np.arange(len(rows))[:, None]
        itself[~itself.any(axis=1), -1] = True
        squares, positions = (array[~itself].reshape(len(rows), k) for array in (squares, positions))
    return None if positions.min() < 0 else (positions, np.sqrt(squares.astype(np.float64).clip(0.0)))


def _centred(places: NDArray[np.float64]) -> Places:
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    return np.asarray(places - middle, dtype=np.float32)


class _OpenTSNEProgress:
    """openTSNE's callback: reports the iterations of one or more optimisations as one step."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._reported = 0
        self.before = 0  # iterations of earlier optimisations
        progress.start(total, what="Map", unit="iterations")

    def __call__(self, iteration: int, error: float, embedding: Any) -> bool:
        """Return False: continue."""
        self._progress.advance(self.before + iteration - self._reported)
        self._reported = self.before + iteration
        return False
