"""A contact sheet for each group of images."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.tiles import Tiles
from searchengine.analyse.neighbours.sheets import comment_of
from searchengine.files import output_errors, output_file
from searchengine.index.local import LocalIndex
from searchengine.index.types import ImageRecord
from searchengine.progress import QUIET, Progress

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE, _GAP = 160, 12  # px
_HEAD = 36
_COLUMNS = 8
_AT_MOST = 80  # pictures on a sheet; the head says how many there are in all
_PAPER, _INK = "#ffffff", "#1c1c1c"
_NAME = re.compile(r"(cluster|duplicates)-[0-9]+\.jpg")
_MARK = "searchengine groups"

Group = tuple[str, int, NDArray[np.int64]]
"""What kind of group, its number from 0, and the ids of its images, the most typical first."""


def write_sheets(index: LocalIndex, out: Path, groups: Sequence[Group], progress: Progress = QUIET) -> int:
    """Write ``out/cluster-0001.jpg``, ``out/duplicates-0001.jpg``, ...; returns how many. IndexingError.

    A sheet shows the first 80 images of its group. Sheets of an earlier run that are none of these are deleted; they
    are known by their names and by a comment in the file.
    """
    written = set()
    with Tiles(_SIDE) as tiles:
        progress.start(len(groups), what="Contact sheets", unit="sheets")
        for kind, number, ids in groups:
            records = index.known(ids[:_AT_MOST].tolist())
            sheet = draw_group(f"{kind} {number + 1}: {len(ids)} images", records, tiles)
            name = f"{kind}-{number + 1:04}.jpg"
            with output_file(out / name) as part:
                partial(sheet.save, quality=88, comment=_MARK)(part, "JPEG")
            written.add(name)
            progress.advance()
    _remove_others(out, written)
    return len(groups)


def _remove_others(out: Path, written: Container[str]) -> None:
    with output_errors(out):
        for file in sorted(out.iterdir()):
            ours = _NAME.fullmatch(file.name) and not file.is_symlink() and comment_of(file) == _MARK
            if ours and file.name not in written:
                file.unlink()


def draw_group(title: str, records: Sequence[ImageRecord], tiles: Tiles) -> Image:
    """The sheet itself, RGB: a title, then the pictures row by row; one that cannot be read has a tinted place."""
    from PIL import Image, ImageDraw
    from PIL.ImageFont import load_default

    columns = min(max(len(records), 2), _COLUMNS)
    lines = -(-len(records) // columns)
    step = _SIDE + _GAP
    sheet = Image.new("RGB", (_GAP + columns * step, _HEAD + lines * step), _PAPER)
    ImageDraw.Draw(sheet).text((_GAP, 10), title.capitalize(), fill=_INK, font=load_default(15))
    for at, tile in enumerate(tiles.of(records)):
        left, top = _GAP + at % columns * step, _HEAD + at // columns * step
        sheet.paste(tile, (left + (_SIDE - tile.width) // 2, top + (_SIDE - tile.height) // 2))
    return sheet
