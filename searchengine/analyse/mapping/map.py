"""A map of a collection: each image has a place in the plane, and what looks alike lies close together.

t-SNE (van der Maaten and Hinton 2008) by openTSNE (Policar, Strazar and Zupan 2024) after principal components. Images
that came later are placed by openTSNE's partial embedding (Policar, Strazar and Zupan 2021): each starts at the median
of its nearest neighbours on the map and is moved by them alone, so nothing that was placed before moves, and a place
does not depend on what else came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping import stored
from searchengine.analyse.mapping.extras import needed
from searchengine.analyse.mapping.nearest import nearest
from searchengine.analyse.mapping.reduction import Reduction, Rows, principal_components, remark
from searchengine.analyse.mapping.seeds import check_seed
from searchengine.analyse.mapping.stored import Stored
from searchengine.errors import IndexDamagedError, QueryError
from searchengine.index.local import LocalIndex
from searchengine.progress import QUIET, Progress

PERPLEXITY = 30.0
ITERATIONS = 750
SEED = 0
_EXAGGERATED = 1 / 3  # of the iterations, in which clusters form
_TOO_FEW = 5  # images for which there is no t-SNE
_PLACING_NEIGHBOURS = 25
_PLACING_PERPLEXITY = 5.0
_PLACING_ITERATIONS = 100
_PLACING_RATE = 0.1

Places = NDArray[np.float32]
"""(n, 2), around (0, 0)."""


@dataclass(frozen=True, slots=True)
class MapOptions:
    """None: as the stored map was made, or 30 and 750 and 0; ``anew`` makes the whole map again."""

    perplexity: float | None = None
    iterations: int | None = None
    seed: int | None = None
    anew: bool = False


@dataclass(frozen=True, slots=True)
class MapSummary:
    """``placed``: images that were put on a map that was there; ``of_those_fitted``: those that it was made from.

    ``whole``: all of it rests on one computation. ``kept``: nothing had to be computed. ``remark``: see
    ``reduction.remark``. ``perplexity`` is what the map was made with, which may be less than what was asked for.
    """

    file: str
    images: int
    placed: int
    of_those_fitted: int
    whole: bool
    perplexity: float
    kept: bool = False
    remark: str | None = None


def make_map(index: LocalIndex, options: MapOptions | None = None, progress: Progress = QUIET) -> MapSummary:
    """Make the map of an index, or put on it what came or changed since; it is stored in the index folder.

    A map is made as a whole where there is none, where it belongs to another extractor or metric, or where ``options``
    ask for another one.

    Raises:
        QueryError: the index is empty, or an option is out of bounds.
        IndexingError: openTSNE is missing, or the folder cannot be written to.
    """
    options = options or MapOptions()
    _check(options)
    state = index.state()
    rows = Rows.of(state)
    if not len(rows):
        raise QueryError("The index holds no images, so there is nothing to map.")
    stamps = stored.stamps_of(index, rows)
    try:
        old = stored.load(index.folder, stored.MAP)
    except IndexDamagedError:
        old = None  # it is made anew
    anew = old is None or not (
        _goes_on(old, options) and stored.same_basis(old, state.fingerprint, rows) and _stands(old, rows, stamps)
    )
    if old is None or anew:
        settings = _settings(options, old)
        reduction, places = whole_map(rows, progress=progress, **settings)
        fitted = np.ones(len(rows), dtype=np.bool_)
        placed = 0
    else:
        settings = {name: old.about[name] for name in ("perplexity", "iterations", "seed")}
        reduction = Reduction(old.arrays["mean"], old.arrays["components"])
        places, fitted, placed = _extended(old, rows, stamps, reduction, progress)
    about = {**stored.basis(state.fingerprint, rows), "dimension": rows.dimension, **settings}
    arrays: dict[str, NDArray[Any]] = {
        "ids": rows.ids,
        "stamps": stamps,
        "places": places,
        "fitted": fitted,
        "mean": reduction.mean,
        "components": reduction.components,
    }
    file = stored.save(index.folder, stored.MAP, about, arrays)
    whole = bool(fitted.all()) and not placed
    kept = not anew and placed == 0
    perplexity = bounded_perplexity(settings["perplexity"], int(fitted.sum()))
    return MapSummary(str(file), len(rows), placed, int(fitted.sum()), whole, perplexity, kept, remark(state))


def whole_map(
    rows: Rows,
    *,
    perplexity: float = PERPLEXITY,
    iterations: int = ITERATIONS,
    seed: int = SEED,
    progress: Progress = QUIET,
) -> tuple[Reduction, Places]:
    """Principal components, then t-SNE; the same rows and seed give the same places."""
    needed("openTSNE", "openTSNE")
    reduction = principal_components(rows, seed=seed, progress=progress)
    reduced = reduction.project_all(rows)
    return reduction, tsne(reduced, perplexity=perplexity, iterations=iterations, seed=seed, progress=progress)


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
    library = needed("openTSNE", "openTSNE")
    perplexity = bounded_perplexity(perplexity, count)
    k = min(count - 1, int(3 * perplexity))
    places, distances = nearest(reduced, reduced, k, same=True, progress=progress)
    affinities = library.affinity.PerplexityBasedNN(
        perplexity=min(perplexity, k / 3),
        knn_index=library.nearest_neighbors.PrecomputedNeighbors(places, distances),
    )
    spread = start[:, 0].std() or 1.0
    # A trace of noise tells identical images apart, which would stand on each other for ever.
    start = start / spread * 1e-4 + np.random.default_rng(seed).normal(0, 1e-6, start.shape)
    # One thread: sums are then made in one order on every machine, and on a busy one threads would wait for each other.
    embedding = library.TSNEEmbedding(start, affinities, random_state=seed, n_jobs=1)
    early = int(iterations * _EXAGGERATED)
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
        found, _ = nearest(new, fitted, 1)
        return np.asarray(places[found[:, 0]], dtype=np.float32)
    library = needed("openTSNE", "openTSNE")

    class Known(library.affinity.Affinities):  # type: ignore[name-defined, misc]
        """Affinities to the fitted rows, by exact neighbours."""

        def __init__(self) -> None:
            super().__init__()
            self.P = np.empty((len(fitted), 0))  # nobody looks at more than its length

        def to_new(self, data: NDArray[np.float32], return_distances: bool = False) -> Any:
            k = min(_PLACING_NEIGHBOURS, len(fitted))
            neighbours, distances = nearest(data, fitted, k, progress=progress)
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

    reference = library.TSNEEmbedding(places.astype(np.float64), Known(), negative_gradient_method="bh")
    partial = reference.prepare_partial(new, initialization="median", k=_PLACING_NEIGHBOURS)
    callback = _OpenTSNEProgress(progress, _PLACING_ITERATIONS)
    partial = partial.optimize(
        _PLACING_ITERATIONS,
        learning_rate=_PLACING_RATE,
        exaggeration=1.5,
        momentum=0.8,
        max_grad_norm=0.25,
        negative_gradient_method="bh",  # the other method lays a grid over all of the new ones
        callbacks=callback,
        callbacks_every_iters=10,
    )
    return np.asarray(partial, dtype=np.float32)


def _extended(
    old: Stored, rows: Rows, stamps: NDArray[np.uint64], reduction: Reduction, progress: Progress
) -> tuple[Places, NDArray[np.bool_], int]:
    """The places there were for what is as it was, and new ones for all else."""
    there, here = stored.standing(old, rows.ids, stamps)
    places = np.zeros((len(rows), 2), dtype=np.float32)
    fitted = np.zeros(len(rows), dtype=np.bool_)
    places[here], fitted[here] = old.arrays["places"][there], old.arrays["fitted"][there]
    missing = np.setdiff1d(np.arange(len(rows)), here)
    if len(missing):
        known = np.flatnonzero(fitted)
        reduced = _projected(rows, known, reduction)
        places[missing] = place_new(_projected(rows, missing, reduction), reduced, places[known], progress)
    return places, fitted, len(missing)


def _projected(rows: Rows, chosen: NDArray[np.int64], reduction: Reduction) -> NDArray[np.float32]:
    step = 4096
    parts = [reduction.project(rows.take(chosen[i : i + step])) for i in range(0, len(chosen), step)]
    return np.concatenate(parts)


def _goes_on(old: Stored, options: MapOptions) -> bool:
    """Whether the stored map is the one that is asked for."""
    asked = {"perplexity": options.perplexity, "iterations": options.iterations, "seed": options.seed}
    same = all(value is None or value == old.about.get(name) for name, value in asked.items())
    return same and not options.anew


def _stands(old: Stored, rows: Rows, stamps: NDArray[np.uint64]) -> bool:
    """Whether anything that the map was made from is still there as it was."""
    there, _ = stored.standing(old, rows.ids, stamps)
    return bool(old.arrays["fitted"][there].any())


def _settings(options: MapOptions, old: Stored | None) -> dict[str, Any]:
    asked = {"perplexity": options.perplexity, "iterations": options.iterations, "seed": options.seed}
    usual = {"perplexity": PERPLEXITY, "iterations": ITERATIONS, "seed": SEED}
    before = old.about if old is not None else {}
    return {name: before.get(name, usual[name]) if asked[name] is None else asked[name] for name in usual}


def _check(options: MapOptions) -> None:
    if options.perplexity is not None and not 1 <= options.perplexity <= 1000:
        raise QueryError("The perplexity must be from 1 to 1000; 30 suits most collections.")
    if options.iterations is not None and not 10 <= options.iterations <= 100_000:
        raise QueryError("The number of iterations must be from 10 to 100000; 750 suits most collections.")
    if options.seed is not None:
        check_seed(options.seed)


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
