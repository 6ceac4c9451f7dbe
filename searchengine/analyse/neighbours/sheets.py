"""A contact sheet: the query and its neighbours as pictures, each with its rank, distance and label."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import ImageError
from searchengine.files import replacing
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
_LAYOUT = 3  # raised when sheets look different, so that old ones are made anew
_KEPT = 2048  # small pictures, 75 kB each

_MARK = "searchengine neighbours "  # a sheet of ours says so in its comment, and which places it leaves empty
_WITHOUT = " without "
_NAME = re.compile(r"([1-9][0-9]*)\.jpg")

Neighbour = tuple[ImageRecord, float]


@dataclass(frozen=True, slots=True)
class Sheet:
    """What came of a sheet; ``missing``: ids of the images whose pictures are not there, or cannot be read."""

    drawn: bool
    missing: frozenset[int]


def write_sheet(file: Path, query: ImageRecord, neighbours: Sequence[Neighbour]) -> Sheet:
    """Write a sheet as JPEG, unless the file is this very sheet already, or shows more than can be shown now.

    A picture that is missing or cannot be read has an empty place, and the file says so: once the picture is there, the
    sheet is drawn again. The file is replaced when the new one is whole. OSError if it cannot be.
    """
    key = _key(query, neighbours)
    records = [query, *(record for record, _ in neighbours)]
    missing = frozenset(record.id for record in records if not _is_there(record))
    stands, _, left_empty = (comment_of(file) or "").partition(_WITHOUT)
    if stands == key and set(filter(None, left_empty.split(","))) <= set(map(str, missing)):
        return Sheet(False, missing)
    sheet, missing = draw_sheet(query, neighbours)
    comment = f"{key}{_WITHOUT}{','.join(map(str, sorted(missing)))}" if missing else key
    with replacing(file, durable=False) as part:
        sheet.save(part, "JPEG", quality=88, comment=comment)
    return Sheet(True, missing)


def remove_sheets(folder: Path, keep: Container[int]) -> int:
    """Delete the sheets of all images but those; returns how many. Files that are no sheets of ours stay. OSError."""
    removed = 0
    for file in sorted(folder.iterdir()):
        name = _NAME.fullmatch(file.name)
        if name and int(name[1]) not in keep and not file.is_symlink() and (comment_of(file) or "").startswith(_MARK):
            file.unlink()
            removed += 1
    return removed


def draw_sheet(query: ImageRecord, neighbours: Sequence[Neighbour]) -> tuple[Image, frozenset[int]]:
    """The sheet itself, RGB: the query first, framed, then its neighbours row by row; and whose pictures it lacks."""
    from PIL import Image, ImageDraw

    missing = set()
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
        try:
            tile = _tile(record.file, record.content_hash)
        except (OSError, ImageError):
            missing.add(record.id)
            draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_EMPTY)
            _write(draw, left + 8, top + _SIDE // 2 - 8, "no picture", _PALE, _SIDE - 16)
        else:
            sheet.paste(tile, (left + (_SIDE - tile.width) // 2, top + (_SIDE - tile.height) // 2))
        if place == 0:
            draw.rectangle((left - 4, top - 4, left + _SIDE + 3, top + _SIDE + 3), outline=_ACCENT, width=2)
        named = ", ".join(record.labels) or record.path.rsplit("/", 1)[-1]
        _write(draw, left, top + _SIDE + 3, caption, _ACCENT if place == 0 else _INK, _SIDE)
        _write(draw, left, top + _SIDE + 19, named, _PALE, _SIDE)
    return sheet, frozenset(missing)


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
def _tile(file: Path | None, content_hash: str | None) -> Image:
    """The whole picture, at most _SIDE large; the hash tells changed ones apart. OSError, ImageError: not kept."""
    from PIL import Image

    if file is None:
        raise FileNotFoundError
    tile = Image.fromarray(decode(file.read_bytes(), at_least=(_SIDE, _SIDE)).pixels)
    tile.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return tile


def _key(query: ImageRecord, neighbours: Sequence[Neighbour]) -> str:
    """What a sheet should show, in short: another sheet has another."""
    shown = [
        (record.id, record.path, record.content_hash, record.labels, distance)
        for record, distance in ((query, 0.0), *neighbours)
    ]
    text = json.dumps([_LAYOUT, shown], ensure_ascii=True)
    return f"{_MARK}{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _is_there(record: ImageRecord) -> bool:
    try:
        return record.file is not None and record.file.is_file()
    except OSError:
        return False


def comment_of(file: Path) -> str | None:
    """The comment in a JPEG file; None if it is no picture."""
    from PIL import Image

    try:
        with Image.open(file) as sheet:
            comment = sheet.info.get("comment", b"")
    except (OSError, Image.DecompressionBombError):
        return None
    return comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
