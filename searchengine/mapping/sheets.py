"""A contact sheet for each group of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchengine.exchange.exporting import replacing
from searchengine.index.local import LocalIndex
from searchengine.index.types import ImageRecord
from searchengine.mapping.progress import Progress, quiet
from searchengine.mapping.tiles import Tiles

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE, _GAP = 160, 12  # px
_HEAD = 36
_COLUMNS = 8
_AT_MOST = 80  # pictures on a sheet; the head says how many there are in all
_PAPER, _INK = "#ffffff", "#1c1c1c"

Group = tuple[str, int, NDArray[np.int64]]
"""What kind of group, its number from 0, and the ids of its images, the most typical first."""


def write_sheets(index: LocalIndex, out: Path, groups: Sequence[Group], progress: Progress = quiet) -> int:
    """Write ``out/cluster-01.jpg``, ``out/duplicates-01.jpg``, ...; returns how many. IndexingError.

    A sheet shows the first 80 images of its group. Sheets of groups that there are no more are left as they are.
    """
    with Tiles(_SIDE) as tiles:
        digits = len(str(len(groups)))
        for done, (kind, number, ids) in enumerate(groups):
            progress("Contact sheets", done, len(groups))
            records = index.known(ids[:_AT_MOST].tolist())
            sheet = draw_group(f"{kind} {number + 1}: {len(ids)} images", records, tiles)
            with replacing(out / f"{kind}-{number + 1:0{digits}}.jpg") as part:
                partial(sheet.save, quality=88)(part, "JPEG")
    progress("Contact sheets", len(groups), len(groups))
    return len(groups)


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
