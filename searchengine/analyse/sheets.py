"""Pictures as small tiles, and contact sheets of them, for the groups of an index and the neighbours of images.

A folder of sheets also holds ``sheets.json``, which records what each sheet shows. A repeated run draws only the sheets
that are missing, and deletes its own outdated sheets but no file of the user.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import ImageError, IndexingError
from searchengine.files import check_output_folder, output_errors, read_regular, replace_bytes, replacing
from searchengine.images import decode
from searchengine.index.types import ImageRecord
from searchengine.processors import processors
from searchengine.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont
    from pydantic import TypeAdapter

SIDE = 160  # px, side of the square for each picture of a sheet
_GAP = 12
_LINE = 16  # px, height of a caption
_TITLE = 24
_PAPER, _INK, _PALE, _ACCENT = "#ffffff", "#1c1c1c", "#8a8a8a", "#0b66c3"
_EMPTY = "#e8e8e8"
_AHEAD = 64  # tiles to decode ahead
_LAYOUT = 5  # increased whenever sheets look different, so that old ones are drawn again
_CACHED = 2048  # tiles in memory, 75 kB each


# -- tiles ------------------------------------------------------------------------------------------------------------


def tiles(records: Sequence[ImageRecord], side: int) -> Iterator[Image]:
    """Yield whole pictures of at most ``side`` pixels, decoded in threads; unreadable ones become a plain colour."""
    from PIL import Image

    def load(record: ImageRecord) -> Image.Image:
        try:
            return _load(record.file, side)
        except (OSError, ImageError):
            return Image.new("RGB", (side, side), record.colour or _EMPTY)

    with ThreadPoolExecutor(processors(), thread_name_prefix="tile") as pool:
        for start in range(0, len(records), _AHEAD):
            yield from pool.map(load, records[start : start + _AHEAD])


def _load(file: Path | None, side: int) -> Image:
    from PIL import Image

    if file is None:
        raise FileNotFoundError
    tile = Image.fromarray(decode(read_regular(file), at_least=(side, side)).pixels)
    tile.thumbnail((side, side), Image.Resampling.BICUBIC)
    return tile


@lru_cache(maxsize=_CACHED)
def _cached_tile(file: Path | None, content_hash: str | None) -> Image:
    """Load a tile, which may be on many sheets. The hash tells versions of a file apart. Errors are not cached."""
    return _load(file, SIDE)


# -- sheets -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture on a sheet, with the lines of text below it."""

    record: ImageRecord
    captions: tuple[str, ...] = ()
    framed: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet: its file name, and its pictures row by row."""

    name: str
    entries: Sequence[Entry]
    columns: int
    title: str = ""

    @property
    def key(self) -> str:
        """A hash of what the sheet shows."""
        shown = [
            (entry.record.id, entry.record.path, entry.record.content_hash, entry.captions, entry.framed)
            for entry in self.entries
        ]
        text = json.dumps([_LAYOUT, self.title, self.columns, shown])
        return blake2b(text.encode(), digest_size=16).hexdigest()


def draw_sheet(sheet: Sheet) -> tuple[Image, frozenset[int]]:
    """Draw a sheet as an RGB picture; also return the ids of images whose pictures are missing or unreadable."""
    from PIL import Image, ImageDraw

    entries, title = sheet.entries, sheet.title
    columns = min(len(entries), sheet.columns)
    step = SIDE + _GAP
    line_step = step + _LINE * max(len(entry.captions) for entry in entries)
    first_top = _GAP + (_TITLE if title else 0)
    size = (_GAP + columns * step, first_top + -(-len(entries) // columns) * line_step)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    if title:
        _write(draw, (_GAP, _GAP - 2), title, _INK, size[0] - 2 * _GAP)
    missing = set()
    for place, entry in enumerate(entries):
        left, top = _GAP + place % columns * step, first_top + place // columns * line_step
        try:
            tile = _cached_tile(entry.record.file, entry.record.content_hash)
        except (OSError, ImageError):
            missing.add(entry.record.id)
            draw.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), fill=_EMPTY)
            _write(draw, (left + 8, top + SIDE // 2 - 8), "no picture", _PALE, SIDE - 16)
        else:
            picture.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
        if entry.framed:
            draw.rectangle((left - 4, top - 4, left + SIDE + 3, top + SIDE + 3), outline=_ACCENT, width=2)
        for line, caption in enumerate(entry.captions):
            colour = _PALE if line else _ACCENT if entry.framed else _INK
            _write(draw, (left, top + SIDE + 3 + line * _LINE), caption, colour, SIDE)
    return picture, frozenset(missing)


def _write(draw: ImageDraw, at: tuple[int, int], text: str, colour: str, width: int) -> None:
    """Write one line of text, shortened to the width."""
    font = _font()
    text = " ".join(text.split())
    shown = text[: width // 3]
    while shown and draw.textlength(shown if shown == text else shown + "...", font) > width:
        shown = shown[:-1]
    draw.text(at, shown if shown == text else shown + "...", fill=colour, font=font)


@lru_cache(maxsize=1)
def _font() -> FreeTypeFont | ImageFont:
    from PIL.ImageFont import load_default

    return load_default(13)


# -- a folder of sheets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DrawnSheet:
    """A sheet in the folder: the hash of what it shows, its size, and the ids of the pictures that it lacks."""

    key: str
    bytes: int
    missing: frozenset[int] = frozenset()


class SheetFolder:
    """A folder of sheets as JPEG files, with ``sheets.json``, which records what each of them shows."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if necessary; IndexingError if that fails."""
        check_output_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexingError(f"{folder} cannot be created: {error.strerror}.") from error
        self._folder = folder
        self._drawn = self._read()

    def draw(self, sheets: Iterable[Sheet], progress: Progress) -> tuple[int, frozenset[int]]:
        """Draw the sheets that are not in the folder yet, in threads; IndexingError if one cannot be written.

        Returns:
            how many sheets were drawn, and the ids of images whose pictures are missing or unreadable.
        """
        drawn, missing = 0, frozenset[int]()
        with ThreadPoolExecutor(processors(), thread_name_prefix="sheet") as pool:
            for is_new, lacking in pool.map(self._draw, sheets):
                drawn += is_new
                missing |= lacking
                progress.advance()
        self._save()
        return drawn, missing

    def _draw(self, sheet: Sheet) -> tuple[bool, frozenset[int]]:
        key = sheet.key
        absent = frozenset(entry.record.id for entry in sheet.entries if not _file_exists(entry.record))
        drawn = self._drawn.get(sheet.name)
        # A sheet is drawn again if it lacked a picture that exists now.
        if drawn and drawn.key == key and drawn.missing <= absent and self._size(sheet.name) == drawn.bytes:
            return False, absent
        picture, missing = draw_sheet(sheet)
        file = self._folder / sheet.name
        with output_errors(file):
            with replacing(file, durable=False) as part:
                picture.save(part, "JPEG", quality=88)
            size = file.stat().st_size
        self._drawn[sheet.name] = DrawnSheet(key, size, missing)
        return True, missing

    def remove_others(self, keep: Container[str]) -> int:
        """Delete all other sheets of earlier runs, but no other files, and return how many; IndexingError."""
        others = [name for name in self._drawn if name not in keep]
        removed = 0
        with output_errors(self._folder):
            for name in others:
                if self._size(name) == self._drawn[name].bytes:  # otherwise somebody has replaced it
                    (self._folder / name).unlink()
                    removed += 1
                del self._drawn[name]
        self._save()
        return removed

    def _save(self) -> None:
        file = self._folder / "sheets.json"
        with output_errors(file):
            replace_bytes(file, _adapter().dump_json(self._drawn))

    def _read(self) -> dict[str, DrawnSheet]:
        with suppress(OSError, ValueError):  # without the record, all sheets are drawn again
            drawn: dict[str, DrawnSheet] = _adapter().validate_json((self._folder / "sheets.json").read_bytes())
            return {name: sheet for name, sheet in drawn.items() if Path(name).name == name}
        return {}

    def _size(self, name: str) -> int | None:
        file = self._folder / name
        try:
            return None if file.is_symlink() else file.stat().st_size
        except OSError:
            return None


def _file_exists(record: ImageRecord) -> bool:
    try:
        return record.file is not None and record.file.is_file()
    except OSError:
        return False


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[dict[str, DrawnSheet]]:
    from pydantic import TypeAdapter

    return TypeAdapter(dict[str, DrawnSheet])
