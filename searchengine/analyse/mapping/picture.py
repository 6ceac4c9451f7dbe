"""The map as one picture, in which the pictures themselves stand at their places without covering each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.map import MAP
from searchengine.analyse.sheets import tiles
from searchengine.errors import IndexDamagedError, IndexingError, QueryError, with_index_dir
from searchengine.files import output_file
from searchengine.index.protocol import Index
from searchengine.progress import QUIET, Progress

_LONGEST = 6000  # px, of the picture
_LARGEST, _SMALLEST = 128, 16  # px, of a cell
_MARGIN = 32
_GAP = 0.06  # of a cell
_PAPER = "#ffffff"
_ROOM = 1.8  # cells for each picture: with fewer, the shape of the map is lost; with more, pictures are small
_CHOICES = 12  # free cells that a picture considers in each round


@dataclass(frozen=True, slots=True)
class MapPicture:
    """``width`` and ``height`` of the picture and ``side`` of a picture's square in pixels."""

    file: str
    width: int
    height: int
    side: int


def write_png(index: Index, file: Path, progress: Progress = QUIET) -> MapPicture:
    """Draw the stored map of an index, on white.

    Raises:
        QueryError: there is no map yet.
        IndexingError: not a .png, or it cannot be written.
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
            "None of the images on the map is in the index any more. Make the map again: "
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
    """``cells`` is (n, 2) int64: column and row of each picture, no two alike, 0 <= column < ``columns``."""

    cells: NDArray[np.int64]
    columns: int
    rows: int


def on_grid(places: NDArray[np.float32]) -> Grid:
    """(n, 2) places -> cells of a grid that has the map's proportions; y grows upwards on a map, rows downwards.

    Each picture chooses the nearest free cell. Of several that choose the same cell, the nearest picture gets it, and
    the others choose again. The result depends on the places alone.
    """
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    count = len(places)
    if count == 0:
        return Grid(np.empty((0, 2), dtype=np.int64), 0, 0)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = np.maximum(high - low, 1e-9).astype(np.float64)
    ratio = float(np.clip(extent[0] / extent[1], 0.25, 4.0))
    columns = max(1, math.ceil(math.sqrt(count * _ROOM * ratio)))
    rows = max(1, math.ceil(count * _ROOM / columns))
    # The pictures' middles, in units of cells: (n, 2)
    targets = (places - low) / extent * (columns - 1, rows - 1)
    targets[:, 1] = rows - 1 - targets[:, 1]
    free = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cells = np.empty((count, 2), dtype=np.int64)
    remaining = np.arange(count)
    while len(remaining):
        k = min(_CHOICES, len(free))
        distances, choices = cKDTree(free).query(targets[remaining], k)
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
