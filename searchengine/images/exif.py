"""What EXIF data say of a photo: how it was held, when it was taken, and with which camera.

A few tags, read by hand: parsing the whole block, as Pillow does, is slower than decoding a small photo, warns, and
fails on broken blocks. Nothing is decoded, and of a photo on a disk only the metadata are read.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import BinaryIO

from searchengine.images.formats import HEAD_BYTES, png_chunks, reader, sniff
from searchengine.images.location import start_of_scan

# EXIF 2.32, 4.6.3 to 4.6.5
_MAKE, _MODEL, _ORIENTATION, _EXIF_DIRECTORY, _TAKEN = 0x010F, 0x0110, 0x0112, 0x8769, 0x9003
_ASCII, _SHORT, _LONG, _IFD = 2, 3, 4, 13  # types of a value
_MOST_BLOCKS = 16  # of EXIF data; a photo has one or two
_MOST_CHUNKS = 100_000  # of a PNG
_MOST_TAGS = 1024
_MOST_TEXT = 200  # bytes

# What stands before EXIF data in a JPEG, PNG, WebP, HEIC, AVIF, JPEG XL or camera raw file: the name of a segment, a
# chunk, a box or an item, perhaps a length, and again a name.
_BLOCK = re.compile(rb"(?:Exif\0\0(?:\0\0)?|eXIf|EXIF[^\xff]{4}(?:Exif\0\0)?|CMT[12])(?=II\*\0|MM\0\*)")
_CHUNK, _OVERLAP = 2**20, 32  # bytes read at a time, and read again with the next
_HEAD_OF_RAW = 2**22  # bytes at the beginning of a camera raw file in which its EXIF data are
_DATE = re.compile(r"(\d{4})[:./-](\d\d)[:./-](\d\d)(?:[ T](\d\d):(\d\d):(\d\d))?")

Entry = tuple[int, int, bytes]  # type, count, and the four bytes of the value, or of where it is


@dataclass(frozen=True, slots=True)
class Shot:
    """When and with what a photo was taken, as its EXIF data say.

    ``taken`` is the local time of the camera, ``2024-05-17T12:34:56``, or None; ``camera`` is its make and model, or
    empty.
    """

    taken: str | None = None
    camera: str = ""


def exif_orientation(exif: object) -> int:
    """The orientation, 1 to 8, in an EXIF block with or without its ``Exif\\0\\0``; 1, upright, if absent or broken."""
    if not isinstance(exif, bytes):
        return 1
    block = _Block(io.BytesIO(exif.removeprefix(b"Exif\0\0")), 0)
    kind, _, value = block.first_directory().get(_ORIENTATION, (0, 0, b""))
    orientation = block.number(value[:2]) if kind == _SHORT else block.number(value) if kind == _LONG else 1
    return orientation if 1 <= orientation <= 8 else 1


def read_shot(file: BinaryIO) -> Shot:
    """When and with what a photo was taken; what is absent or broken is left out. Raises OSError."""
    taken: str | None = None
    camera = ""
    for start in islice(_blocks(file), _MOST_BLOCKS):
        block = _Block(file, start)
        tags = block.first_directory()
        kind, _, pointer = tags.get(_EXIF_DIRECTORY, (0, 0, b""))
        inner = block.directory(block.number(pointer)) if kind in (_LONG, _IFD) else {}
        taken = taken or _time(block.text(inner.get(_TAKEN) or tags.get(_TAKEN)))
        camera = camera or _camera(block.text(tags.get(_MAKE)), block.text(tags.get(_MODEL)))
        if taken and camera:
            break
    return Shot(taken, camera)


class _Block:
    """EXIF data: the TIFF structure that begins at ``start`` of a file."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        header = self._read(0, 8)
        self._order = {b"II": "<", b"MM": ">"}.get(header[:2], "") if len(header) == 8 else ""
        self._first = self.number(header[4:])

    def number(self, data: bytes) -> int:
        """A whole number of two or four bytes."""
        return int.from_bytes(data, "little" if self._order == "<" else "big")

    def first_directory(self) -> dict[int, Entry]:
        """The tags of the directory that the header points to."""
        return self.directory(self._first) if self._order else {}

    def directory(self, offset: int) -> dict[int, Entry]:
        """The tags of a directory, as far as it goes."""
        data = self._read(offset, 2 + 12 * _MOST_TAGS)
        tags: dict[int, Entry] = {}
        for at in range(2, min(2 + 12 * self.number(data[:2]), len(data) - 11), 12):
            tag, kind, count, value = struct.unpack_from(f"{self._order}HHI4s", data, at)
            tags.setdefault(tag, (kind, count, value))
        return tags

    def text(self, entry: Entry | None) -> str:
        """The text of a tag; empty where it has none."""
        if entry is None or entry[0] != _ASCII:
            return ""
        _, count, value = entry
        data = value[:count] if count <= 4 else self._read(self.number(value), min(count, _MOST_TEXT))
        text = data.partition(b"\0")[0].decode("utf-8", "replace")
        return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(self._start + offset)
        return self._file.read(size)


def _blocks(file: BinaryIO) -> Iterator[int]:
    """Where EXIF data begin in an image file: in most, at one place; in a CR3 of Canon's, at several."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    format_ = sniff(head)
    if format_ in ("TIFF", "RAW") and head[:2] in (b"II", b"MM"):
        yield 0
    elif format_ == "PNG":
        chunks = islice(png_chunks(reader(file)), _MOST_CHUNKS)
        yield from (offset for kind, offset, _ in chunks if kind == b"eXIf")
    elif format_ in ("JPEG", "WEBP", "HEIC", "AVIF", "JXL", "RAW"):
        end = start_of_scan(file) if format_ == "JPEG" else _HEAD_OF_RAW if format_ == "RAW" else None
        yield from _occurrences(file, end)


def _occurrences(file: BinaryIO, end: int | None) -> Iterator[int]:
    at, data = 0, b""
    file.seek(0)
    while more := file.read(_CHUNK if end is None else min(_CHUNK, max(end - at, 0))):
        data = data[-_OVERLAP:] + more
        at += len(more)
        for match in _BLOCK.finditer(data):
            if len(data) - match.end() >= 4:
                yield at - len(data) + match.end()
        file.seek(at)


def _time(text: str) -> str | None:
    match = _DATE.match(text)
    with contextlib.suppress(ValueError):  # cameras whose clock was never set write zeros
        if match is not None:
            return datetime(*(int(part or 0) for part in match.groups())).isoformat()  # type: ignore[arg-type]
    return None


def _camera(make: str, model: str) -> str:
    """``NIKON CORPORATION``, ``NIKON D90`` -> ``NIKON D90``; ``Apple``, ``iPhone 12`` -> ``Apple iPhone 12``."""
    words = make.split()
    if not words or any(word.casefold() in model.casefold().split() for word in words):
        return model
    return f"{words[0]} {model}" if model else make
