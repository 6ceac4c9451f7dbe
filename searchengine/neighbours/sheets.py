"""A contact sheet: the query and its neighbours as pictures, each with its rank, distance and label."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import ImageError
from searchengine.images import decode
from searchengine.index.types import ImageRecord

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_SIDE = 160  # px, of the square that a picture stands in
_GAP = 12
_CAPTION = 36  # px below each picture: two lines
_FONT = 13
_COLUMNS = 6
_PAPER, _INK, _PALE, _ACCENT = "#ffffff", "#1c1c1c", "#8a8a8a", "#0b66c3"
_EMPTY = "#ececec"
_LAYOUT = 2  # raised when sheets look different, so that old ones are made anew
_KEPT = 2048  # small pictures, 75 kB each

Neighbour = tuple[ImageRecord, float]


def write_sheet(file: Path, query: ImageRecord, neighbours: Sequence[Neighbour]) -> bool:
    """Write a sheet as JPEG, unless the file is this very sheet already; returns whether it was written.

    A picture that is missing or cannot be read has an empty place. The file is replaced when the new one is whole.
    OSError if it cannot be.
    """
    key = _key(query, neighbours)
    if _key_of(file) == key:
        return False
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        draw_sheet(query, neighbours).save(part, "JPEG", quality=88, comment=key)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return True


def draw_sheet(query: ImageRecord, neighbours: Sequence[Neighbour]) -> Image:
    """The sheet itself, RGB: the query first, framed, then its neighbours row by row."""
    from PIL import Image, ImageDraw

    places = len(neighbours) + 1
    columns = min(places, _COLUMNS)
    width = _GAP + columns * (_SIDE + _GAP)
    height = _GAP + -(-places // columns) * (_SIDE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    captions = [("query", query)] + [(f"{i} · {_number(d)}", record) for i, (record, d) in enumerate(neighbours, 1)]
    for place, (caption, record) in enumerate(captions):
        left = _GAP + place % columns * (_SIDE + _GAP)
        top = _GAP + place // columns * (_SIDE + _CAPTION + _GAP)
        tile = _tile(record.file, record.content_hash)
        if tile is None:
            draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_EMPTY)
            _write(draw, left + 8, top + _SIDE // 2 - 8, "no picture", _PALE, _SIDE - 16)
        else:
            sheet.paste(tile, (left + (_SIDE - tile.width) // 2, top + (_SIDE - tile.height) // 2))
        if place == 0:
            draw.rectangle((left - 4, top - 4, left + _SIDE + 3, top + _SIDE + 3), outline=_ACCENT, width=2)
        named = ", ".join(record.labels) or record.path.rsplit("/", 1)[-1]
        _write(draw, left, top + _SIDE + 3, caption, _ACCENT if place == 0 else _INK, _SIDE)
        _write(draw, left, top + _SIDE + 19, named, _PALE, _SIDE)
    return sheet


def _number(distance: float) -> str:
    return f"{distance:.4f}" if abs(distance) < 1000 else f"{distance:.4g}"


def _write(draw: ImageDraw, left: int, top: int, text: str, colour: str, room: int) -> None:
    """One line, its end left out where it is too long."""
    font = _font()
    text = " ".join(text.split())
    shown = text[: room // 3]
    while shown and draw.textlength(shown if shown == text else shown + "...", font) > room:
        shown = shown[:-1]
    draw.text((left, top), shown if shown == text else shown + "...", fill=colour, font=font)


@lru_cache(maxsize=1)
def _font() -> FreeTypeFont | ImageFont:
    from PIL.ImageFont import load_default

    return load_default(_FONT)


@lru_cache(maxsize=_KEPT)
def _tile(file: Path | None, content_hash: str | None) -> Image | None:
    """The whole picture, at most _SIDE large; None where there is none. The hash tells changed ones apart."""
    from PIL import Image

    if file is None:
        return None
    try:
        tile = Image.fromarray(decode(file.read_bytes(), at_least=(_SIDE, _SIDE)).pixels)
    except (OSError, ImageError):
        return None
    tile.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return tile


def _key(query: ImageRecord, neighbours: Sequence[Neighbour]) -> str:
    """What a sheet shows, in short: another sheet has another."""
    shown = [
        (record.id, record.path, record.content_hash, record.labels, distance)
        for record, distance in ((query, 0.0), *neighbours)
    ]
    text = json.dumps([_LAYOUT, shown], ensure_ascii=True)
    return f"searchengine neighbours {hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _key_of(file: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(file) as sheet:
            comment = sheet.info.get("comment", b"")
    except OSError:
        return None
    return comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
