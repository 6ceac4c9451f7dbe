"""A map of a collection: each image has a place in the plane, and what looks alike lies close together.

Principal components, then t-SNE. The map is kept with the index. Images that came or changed since, and in a large
collection all but a sample, are placed on it one by one: nothing that was placed before moves, and a place does not
depend on what else came.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.rows import (
    Reduction,
    Rows,
    check_seed,
    principal_components,
    remark,
    same_features,
    stamps_of,
    unchanged_images,
)
from searchengine.analyse.mapping.tsne import Places, bounded_perplexity, place_new, tsne
from searchengine.derived import Arrays, Derived, StoredData, timestamp
from searchengine.errors import IndexDamagedError, QueryError, import_extra
from searchengine.index.protocol import Index
from searchengine.progress import QUIET, Progress

MOST_FITTED = 100_000  # images that t-SNE lays out: some ten minutes' work of one processor


@dataclass(frozen=True, slots=True)
class Settings:
    """Of t-SNE; the same settings give the same map."""

    perplexity: float = 30.0
    iterations: int = 750
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MapSheet:
    """What is stored with a map; ``version`` is that of the file's format."""

    version: Literal[1]
    made: str
    fingerprint: str
    dimension: int
    perplexity: float
    iterations: int
    seed: int
    unit: bool | None = None


MAP = Derived(
    "map-places.npz",
    MapSheet,
    command="searchengine map",
    columns=("ids", "stamps", "places", "fitted"),
    arrays=("mean", "components"),
)


@dataclass(frozen=True, slots=True)
class MapOptions:
    """None: as in the stored map, or the default of ``Settings``. ``rebuild`` makes the whole map again."""

    perplexity: float | None = None
    iterations: int | None = None
    seed: int | None = None
    rebuild: bool = False


@dataclass(frozen=True, slots=True)
class MapSummary:
    """``placed``: images that were added to an existing map; ``of_those_fitted``: those that it was made from.

    ``whole``: it was made in this run, or rests on one computation. ``kept``: nothing had to be computed. ``remark``:
    see ``rows.remark``. ``perplexity`` is what the map was made with, which may be less than what was asked for.
    """

    file: str
    images: int
    placed: int
    of_those_fitted: int
    whole: bool
    perplexity: float
    kept: bool = False
    remark: str | None = None

    @property
    def outgrown(self) -> bool:
        """Whether most of the images came after it was made."""
        return self.of_those_fitted < min(self.images, MOST_FITTED) / 2


def make_map(index: Index, options: MapOptions | None = None, progress: Progress = QUIET) -> MapSummary:
    """Make the map of an index, or add to it what came or changed since; it is stored in the index folder.

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
    stamps = stamps_of(index, rows)  # before the computation: a change meanwhile makes the map stale
    try:
        old = MAP.load(index.folder)
    except IndexDamagedError:
        old = None  # it is replaced
    settings = _settings(options, old)
    extended = old is not None and not options.rebuild and _can_be_extended(old, settings, rows, stamps)
    if old is None or not extended:
        chosen = np.arange(len(rows))
        if len(rows) > MOST_FITTED:
            progress.say(
                f"{MOST_FITTED} of the {len(rows)} images are laid out, drawn at random. Each of the others is placed "
                "next to those of them that it looks like."
            )
            chosen = np.sort(np.random.default_rng(settings.seed).choice(chosen, MOST_FITTED, replace=False))
        reduction, fitted_places = whole_map(rows.some(chosen), settings, progress)
        places, fitted = _all_placed(rows, reduction, chosen, fitted_places, progress)
        placed = 0
    else:
        reduction = Reduction(old.arrays["mean"], old.arrays["components"])
        places, fitted, placed = _extend(old.arrays, rows, stamps, reduction, progress)
    file = MAP.save(
        index.folder,
        MapSheet(1, timestamp(), rows.fingerprint, rows.dimension, **asdict(settings), unit=rows.unit),
        {
            "ids": rows.ids,
            "stamps": stamps,
            "places": places,
            "fitted": fitted,
            "mean": reduction.mean,
            "components": reduction.components,
        },
    )
    return MapSummary(
        str(file),
        len(rows),
        placed,
        of_those_fitted=int(fitted.sum()),
        whole=not placed and (not extended or bool(fitted.all())),
        perplexity=bounded_perplexity(settings.perplexity, int(fitted.sum())),
        kept=extended and placed == 0,
        remark=remark(state),
    )


def whole_map(rows: Rows, settings: Settings | None = None, progress: Progress = QUIET) -> tuple[Reduction, Places]:
    """Principal components, then t-SNE."""
    settings = settings or Settings()
    import_extra("openTSNE", "openTSNE", "map")
    reduction = principal_components(rows, seed=settings.seed, progress=progress)
    return reduction, tsne(reduction.project(rows), **asdict(settings), progress=progress)


def _check(options: MapOptions) -> None:
    if options.perplexity is not None and not 1 <= options.perplexity <= 1000:
        raise QueryError("The perplexity must be from 1 to 1000; 30 suits most collections.")
    if options.iterations is not None and not 10 <= options.iterations <= 100_000:
        raise QueryError("The number of iterations must be from 10 to 100000; 750 suits most collections.")
    if options.seed is not None:
        check_seed(options.seed)


def _settings(options: MapOptions, old: StoredData[MapSheet] | None) -> Settings:
    before = Settings() if old is None else _settings_of(old.sheet)
    return Settings(
        before.perplexity if options.perplexity is None else options.perplexity,
        before.iterations if options.iterations is None else options.iterations,
        before.seed if options.seed is None else options.seed,
    )


def _settings_of(sheet: MapSheet) -> Settings:
    return Settings(sheet.perplexity, sheet.iterations, sheet.seed)


def _can_be_extended(old: StoredData[MapSheet], settings: Settings, rows: Rows, stamps: NDArray[np.uint64]) -> bool:
    """Whether it is the map that is asked for, and anything that it was made from is still as it was."""
    if settings != _settings_of(old.sheet) or not same_features(old.sheet, rows):
        return False
    before, _ = unchanged_images(old.arrays, rows, stamps)
    return bool(old.arrays["fitted"][before].any())


def _extend(
    old: Arrays, rows: Rows, stamps: NDArray[np.uint64], reduction: Reduction, progress: Progress
) -> tuple[Places, NDArray[np.bool_], int]:
    """The old places of images that are as they were, and new ones for all others."""
    before, now = unchanged_images(old, rows, stamps)
    places, fitted = _all_placed(rows, reduction, now, old["places"][before], progress, old["fitted"][before])
    return places, fitted, len(rows) - len(now)


def _all_placed(
    rows: Rows,
    reduction: Reduction,
    chosen: NDArray[np.int64],
    their_places: Places,
    progress: Progress,
    are_fitted: NDArray[np.bool_] | bool = True,
) -> tuple[Places, NDArray[np.bool_]]:
    """The places of all rows, some of which have theirs, and which were fitted; those give the others their places."""
    places = np.zeros((len(rows), 2), dtype=np.float32)
    fitted = np.zeros(len(rows), dtype=np.bool_)
    places[chosen], fitted[chosen] = their_places, are_fitted
    missing = np.setdiff1d(np.arange(len(rows)), chosen)
    if len(missing):
        known = np.flatnonzero(fitted)
        new, placed = (reduction.project(rows.some(each)) for each in (missing, known))
        places[missing] = place_new(new, placed, places[known], progress)
    return places, fitted
