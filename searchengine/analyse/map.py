"""The map of a collection: each image has a place in the plane, and similar images lie close together.

The map is laid out by principal components and t-SNE, and kept with the index. Images that are new or have changed
since, and in a large collection all but a sample, are placed on it one by one. Nothing that was placed before moves,
and no place depends on which other images are added.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.rows import (
    Reduction,
    Rows,
    check_seed,
    principal_components,
    remark,
    same_features,
    stamps_of,
    unchanged_images,
)
from searchengine.analyse.sheets import tiles
from searchengine.analyse.tsne import Places, bounded_perplexity, place_new, tsne
from searchengine.derived import Derived, StoredData, timestamp
from searchengine.errors import IndexDamagedError, IndexingError, QueryError, import_extra, with_index_dir
from searchengine.files import output_file
from searchengine.index.protocol import Index
from searchengine.progress import QUIET, Progress

MOST_FITTED = 100_000  # images that t-SNE lays out at most, in about ten minutes on one processor


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of t-SNE. The same settings give the same map."""

    perplexity: float = 30.0
    iterations: int = 750
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MapSheet:
    """The sheet stored with a map; ``version`` is the version of the file format."""

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
    """Settings to change; None keeps that of the stored map, or the default. ``rebuild`` makes the whole map again."""

    perplexity: float | None = None
    iterations: int | None = None
    seed: int | None = None
    rebuild: bool = False


@dataclass(frozen=True, slots=True)
class MapSummary:
    """The result of making a map.

    Attributes:
        file: the file of the map.
        images: the number of images on the map.
        placed: how many of them were added to an existing map.
        of_those_fitted: how many of them t-SNE laid out.
        whole: whether the map was made in this run, or rests on a single computation.
        perplexity: the perplexity used, which may be less than the one requested.
        kept: whether there was nothing to compute.
        remark: see ``rows.remark``.
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
        """Whether most of the images were added after the map was made."""
        return self.of_those_fitted < min(self.images, MOST_FITTED) / 2


def make_map(index: Index, options: MapOptions | None = None, progress: Progress = QUIET) -> MapSummary:
    """Make the map of an index, or add new and changed images to it, and store it in the index folder.

    The whole map is made if there is none, if it belongs to another extractor or metric, or if ``options`` ask for
    other settings.

    Raises:
        QueryError: the index is empty, or an option is out of bounds.
        IndexingError: openTSNE is missing, or the folder is not writable.
    """
    options = options or MapOptions()
    _check(options)
    state = index.state()
    rows = Rows.of(state)
    if not len(rows):
        raise QueryError("The index holds no images, so there is nothing to map.")
    stamps = stamps_of(index, rows)  # before the computation, so that a change meanwhile makes the map stale
    try:
        old = MAP.load(index.folder)
    except IndexDamagedError:
        old = None  # to be replaced
    settings = _settings(options, old)
    kept = None if old is None or options.rebuild else _kept_places(old, settings, rows, stamps)
    placed = kept or _lay_out(rows, settings, progress)
    places, fitted = _place_others(rows, placed, progress)
    added = len(rows) - len(placed.positions) if kept else 0
    file = MAP.save(
        index.folder,
        MapSheet(1, timestamp(), rows.fingerprint, rows.dimension, **asdict(settings), unit=rows.unit),
        {
            "ids": rows.ids,
            "stamps": stamps,
            "places": places,
            "fitted": fitted,
            "mean": placed.reduction.mean,
            "components": placed.reduction.components,
        },
    )
    return MapSummary(
        str(file),
        len(rows),
        placed=added,
        of_those_fitted=int(fitted.sum()),
        whole=not added and (kept is None or bool(fitted.all())),
        perplexity=bounded_perplexity(settings.perplexity, int(fitted.sum())),
        kept=kept is not None and not added,
        remark=remark(state),
    )


def whole_map(rows: Rows, settings: Settings, progress: Progress = QUIET) -> tuple[Reduction, Places]:
    """Lay out all rows: principal components, then t-SNE."""
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
    given: dict[str, Any] = {"perplexity": options.perplexity, "iterations": options.iterations, "seed": options.seed}
    before = Settings() if old is None else _settings_of(old.sheet)
    return replace(before, **{name: value for name, value in given.items() if value is not None})


def _settings_of(sheet: MapSheet) -> Settings:
    return Settings(sheet.perplexity, sheet.iterations, sheet.seed)


@dataclass(frozen=True, slots=True)
class _Placed:
    """The images that have a place already.

    Attributes:
        positions: (m,) int64, their positions among the rows.
        places: (m, 2) float32.
        fitted: (m,) bool, whether t-SNE laid them out.
        reduction: projects rows to the components that t-SNE compares.
    """

    positions: NDArray[np.int64]
    places: Places
    fitted: NDArray[np.bool_]
    reduction: Reduction


def _kept_places(
    old: StoredData[MapSheet], settings: Settings, rows: Rows, stamps: NDArray[np.uint64]
) -> _Placed | None:
    """Return the places of unchanged images on a stored map, or None if a new map is needed."""
    if settings != _settings_of(old.sheet) or not same_features(old.sheet, rows):
        return None
    before, now = unchanged_images(old.arrays, rows, stamps)
    fitted = old.arrays["fitted"][before]
    if not fitted.any():
        return None
    reduction = Reduction(old.arrays["mean"], old.arrays["components"])
    return _Placed(now, old.arrays["places"][before], fitted, reduction)


def _lay_out(rows: Rows, settings: Settings, progress: Progress) -> _Placed:
    """Lay out all images, or a sample of a large collection."""
    chosen = np.arange(len(rows))
    if len(rows) > MOST_FITTED:
        progress.say(
            f"The layout is computed for {MOST_FITTED} of the {len(rows)} images, drawn at random. Each of the others "
            "is placed next to similar ones."
        )
        chosen = np.sort(np.random.default_rng(settings.seed).choice(chosen, MOST_FITTED, replace=False))
    reduction, places = whole_map(rows.subset(chosen), settings, progress)
    return _Placed(chosen, places, np.ones(len(chosen), dtype=np.bool_), reduction)


def _place_others(rows: Rows, placed: _Placed, progress: Progress) -> tuple[Places, NDArray[np.bool_]]:
    """Place all other rows next to the fitted ones; return all places, and which rows are fitted."""
    places = np.zeros((len(rows), 2), dtype=np.float32)
    fitted = np.zeros(len(rows), dtype=np.bool_)
    places[placed.positions], fitted[placed.positions] = placed.places, placed.fitted
    missing = np.setdiff1d(np.arange(len(rows)), placed.positions)
    if len(missing):
        known = np.flatnonzero(fitted)
        new, old = (placed.reduction.project(rows.subset(positions)) for positions in (missing, known))
        places[missing] = place_new(new, old, places[known], progress)
    return places, fitted


# -- the map as one picture -------------------------------------------------------------------------------------------

_LONGEST = 6000  # px, longer side of the picture
_LARGEST, _SMALLEST = 128, 16  # px, side of a cell
_MARGIN = 32  # px
_GAP = 0.06  # fraction of a cell
_PAPER = "#ffffff"
_CELLS_PER_IMAGE = 1.8  # with fewer, the shape of the map is lost; with more, the images are small
_CHOICES = 12  # free cells that an image considers in each round


@dataclass(frozen=True, slots=True)
class MapPicture:
    """A drawn map: its size, and the ``side`` of the square for each image, in pixels."""

    file: str
    width: int
    height: int
    side: int


def write_png(index: Index, file: Path, progress: Progress = QUIET) -> MapPicture:
    """Draw the stored map of an index, with the images at their places, and none covering another.

    Raises:
        QueryError: there is no map yet.
        IndexingError: the file does not end in .png, or cannot be written.
    """
    from PIL import Image

    if file.suffix.lower() != ".png":
        raise IndexingError(f"{file} must end in .png.")
    kept = MAP.load(index.folder)
    if kept is None:
        raise QueryError(f"There is no map of {index.address} yet: {with_index_dir(MAP.command, index.address)}")
    ids = kept.arrays["ids"].tolist()
    records = index.known(ids)
    known = {record.id for record in records}
    places = kept.arrays["places"][[id_ in known for id_ in ids]]
    if not len(places):
        raise IndexDamagedError(
            "None of the images on the map is in the index any longer. Make the map again: "
            f"{with_index_dir(MAP.command, index.address)}"
        )
    grid = on_grid(places)
    step = int(np.clip((_LONGEST - 2 * _MARGIN) // max(grid.columns, grid.rows), _SMALLEST, _LARGEST))
    side = step - max(1, round(step * _GAP))
    picture = Image.new("RGB", (2 * _MARGIN + grid.columns * step, 2 * _MARGIN + grid.rows * step), _PAPER)
    progress.start(len(records), what="Picture")
    for tile, (column, row) in zip(tiles(records, side), grid.cells.tolist(), strict=True):
        left = _MARGIN + column * step + (step - tile.width) // 2
        top = _MARGIN + row * step + (step - tile.height) // 2
        picture.paste(tile, (left, top))
        progress.advance()
    with output_file(file) as part:
        picture.save(part, "PNG", compress_level=4)
    return MapPicture(str(file), picture.width, picture.height, side)


@dataclass(frozen=True, slots=True)
class Grid:
    """``cells`` is (n, 2) int64: the column and row of each image, all different; 0 <= column < ``columns``."""

    cells: NDArray[np.int64]
    columns: int
    rows: int


def on_grid(places: NDArray[np.float32]) -> Grid:
    """Move (n, 2) places, n > 0, to cells of a grid with the map's proportions. y grows upwards, rows grow downwards.

    Each image chooses the nearest free cell. If several choose the same cell, the nearest image gets it, and the others
    choose again. The result depends only on the places.
    """
    from scipy.spatial import KDTree  # type: ignore[import-untyped]

    count = len(places)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = np.maximum(high - low, 1e-9).astype(np.float64)
    ratio = float(np.clip(extent[0] / extent[1], 0.25, 4.0))
    columns = max(1, math.ceil(math.sqrt(count * _CELLS_PER_IMAGE * ratio)))
    rows = max(1, math.ceil(count * _CELLS_PER_IMAGE / columns))
    # Where each image belongs, in units of cells: (n, 2)
    targets = (places - low) / extent * (columns - 1, rows - 1)
    targets[:, 1] = rows - 1 - targets[:, 1]
    free = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cells = np.empty((count, 2), dtype=np.int64)
    remaining = np.arange(count)
    while len(remaining):
        k = min(_CHOICES, len(free))
        distances, choices = KDTree(free).query(targets[remaining], k)
        distances, choices = distances.reshape(-1, k), choices.reshape(-1, k)  # (n,) -> (n, 1) where k is 1
        taken = np.zeros(len(free), dtype=np.bool_)
        settled = np.zeros(len(remaining), dtype=np.bool_)
        for rank in range(k):
            choosing = np.flatnonzero(~settled & ~taken[choices[:, rank]])
            order = choosing[np.lexsort((remaining[choosing], distances[choosing, rank]))]
            _, first = np.unique(choices[order, rank], return_index=True)
            winners = order[first]
            cells[remaining[winners]] = free[choices[winners, rank]]
            settled[winners] = True
            taken[choices[winners, rank]] = True
        remaining, free = remaining[~settled], free[~taken]
    return Grid(cells, columns, rows)
