"""The map as one picture, in which the pictures themselves stand at their places without covering each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from searchengine.analyse.mapping import stored
from searchengine.analyse.mapping.placement import on_grid
from searchengine.analyse.mapping.tiles import Tiles
from searchengine.errors import IndexDamagedError, IndexingError, QueryError
from searchengine.files import output_file
from searchengine.index.local import LocalIndex
from searchengine.progress import QUIET, Progress

_LONGEST = 6000  # px, of the picture
_LARGEST, _SMALLEST = 128, 16  # px, of a cell
_MARGIN = 32
_GAP = 0.06  # of a cell
_PAPER = "#ffffff"


@dataclass(frozen=True, slots=True)
class Drawn:
    """``width`` and ``height`` of the picture and ``side`` of a picture's square in pixels."""

    file: str
    width: int
    height: int
    side: int


def write_png(index: LocalIndex, file: Path, progress: Progress = QUIET) -> Drawn:
    """Draw the stored map of an index, on white.

    Raises:
        QueryError: there is no map yet.
        IndexingError: not a .png, or it cannot be written.
    """
    from PIL import Image

    if file.suffix.lower() != ".png":
        raise IndexingError(f"{file} must end in .png.")
    found = stored.load(index.folder, stored.MAP)
    if found is None:
        raise QueryError(f"There is no map of {index.folder} yet: searchengine map --index-dir {index.folder}")
    records = index.known(found.ids.tolist())
    there = {record.id for record in records}
    places = found.arrays["places"][[id_ in there for id_ in found.ids.tolist()]]
    if not len(places):
        raise IndexDamagedError("None of the images on the map is in the index any more: make the map anew.")
    grid = on_grid(places)
    step = int(np.clip((_LONGEST - 2 * _MARGIN) // max(grid.columns, grid.rows), _SMALLEST, _LARGEST))
    side = step - max(1, round(step * _GAP))
    picture = Image.new("RGB", (2 * _MARGIN + grid.columns * step, 2 * _MARGIN + grid.rows * step), _PAPER)
    with Tiles(side) as tiles:
        progress.start(len(records), what="Picture")
        for tile, (column, row) in zip(tiles.of(records), grid.cells.tolist(), strict=True):
            left = _MARGIN + column * step + (step - tile.width) // 2
            top = _MARGIN + row * step + (step - tile.height) // 2
            picture.paste(tile, (left, top))
            progress.advance()
    with output_file(file) as part:
        partial(picture.save, compress_level=4)(part, "PNG")
    return Drawn(str(file), picture.width, picture.height, side)
