"""Metadata of photos: orientation, date and camera are read; the location is blanked when a file is sent.

A few tags are read directly. Parsing the whole block, as Pillow does, is slower than decoding a small photo, emits
warnings, and fails on broken blocks. Pixels are not decoded, and only the metadata of a file are read from the disk.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO

from searchengine.errors import ImageTooLargeError
from searchengine.images.formats import HEAD_BYTES, START_OF_SCAN, jpeg_segments, png_chunks, reader, sniff

# EXIF 2.32, 4.6.3 to 4.6.5. The location has its own directory, and so have most facts about the shot.
_MAKE, _MODEL, _ORIENTATION, _EXIF_DIRECTORY, _GPS_DIRECTORY, _TAKEN = 0x010F, 0x0110, 0x0112, 0x8769, 0x8825, 0x9003
_ASCII, _SHORT, _LONG, _IFD = 2, 3, 4, 13  # types of a value

Entry = tuple[int, int, int, bytes]  # tag, type, count, and four bytes: the value, or its offset
_NONE: Entry = (0, 0, 0, b"")


class _Exif:
    """EXIF data: the TIFF structure at ``start`` of a file. ``first`` is the offset of its first directory."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self.start = file, start
        header = self._read(0, 8)
        self._order = {b"II": "<", b"MM": ">"}.get(header[:2], "") if len(header) == 8 else ""
        self.first = self.number(header[4:]) if self._order else 0

    def number(self, data: bytes) -> int:
        """Return an integer of two or four bytes."""
        return int.from_bytes(data, "little" if self._order == "<" else "big")

    def directory(self, offset: int, most: int) -> tuple[int, list[Entry], int]:
        """Return the number of tags that a directory announces, up to ``most`` of them, and the next one's offset."""
        if not self._order:
            return 0, [], 0
        data = self._read(offset, 2 + 12 * most + 4)
        announced = self.number(data[:2])
        held = min(announced, most, (len(data) - 2) // 12)
        entries = [struct.unpack_from(f"{self._order}HHI4s", data, 2 + 12 * i) for i in range(held)]
        rest = data[2 + 12 * announced : 6 + 12 * announced]
        return announced, entries, self.number(rest) if len(rest) == 4 else 0

    def text(self, entry: Entry) -> str:
        """Return the text of a tag, or an empty string."""
        _, kind, count, value = entry
        if kind != _ASCII:
            return ""
        data = value[:count] if count <= 4 else self._read(self.number(value), min(count, _MOST_TEXT))
        text = data.partition(b"\0")[0].decode("utf-8", "replace")
        return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(self.start + offset)
        return self._file.read(size)


# -- orientation, date and camera -------------------------------------------------------------------------------------

_MOST_BLOCKS = 16  # of EXIF data; a photo has one or two
_MOST_CHUNKS = 100_000  # of a PNG
_MOST_TAGS = 1024
_MOST_TEXT = 200  # bytes

# EXIF data in a JPEG, PNG, WebP, HEIC, AVIF, JPEG XL or camera raw file follow the name of a segment, a chunk, a box or
# an item, sometimes with a length and another name.
_BLOCK = re.compile(rb"(?:Exif\0\0(?:\0\0)?|eXIf|EXIF[^\xff]{4}(?:Exif\0\0)?|CMT[12])(?=II\*\0|MM\0\*)")
_CHUNK, _OVERLAP = 2**20, 32  # bytes read at a time, and how many of them are searched again with the next ones
_HEAD_OF_RAW = 2**22  # the EXIF data of a camera raw file are in its first bytes, this many
_DATE = re.compile(r"(\d{4})[:./-](\d\d)[:./-](\d\d)(?:[ T](\d\d):(\d\d):(\d\d))?")


@dataclass(frozen=True, slots=True)
class Shot:
    """The date and the camera of a photo, by its EXIF data.

    ``taken`` is the local time of the camera, ``2024-05-17T12:34:56``, or None. ``camera`` is its make and model, or an
    empty string.
    """

    taken: str | None = None
    camera: str = ""


def exif_orientation(exif: object) -> int:
    """Return the orientation, 1 to 8, of an EXIF block, with or without its ``Exif\\0\\0``; 1 if absent or broken."""
    if not isinstance(exif, bytes):
        return 1
    block = _Exif(io.BytesIO(exif.removeprefix(b"Exif\0\0")), 0)
    _, kind, _, value = _tags(block, block.first).get(_ORIENTATION, _NONE)
    orientation = block.number(value[:2]) if kind == _SHORT else block.number(value) if kind == _LONG else 1
    return orientation if 1 <= orientation <= 8 else 1


def read_shot(file: BinaryIO) -> Shot:
    """Read the date and the camera of a photo, as far as they are present and intact. Raises OSError."""
    taken: str | None = None
    camera = ""
    for start in islice(_blocks(file), _MOST_BLOCKS):
        block = _Exif(file, start)
        tags = _tags(block, block.first)
        _, kind, _, pointer = tags.get(_EXIF_DIRECTORY, _NONE)
        inner = _tags(block, block.number(pointer)) if kind in (_LONG, _IFD) else {}
        taken = taken or _time(block.text(inner.get(_TAKEN) or tags.get(_TAKEN, _NONE)))
        camera = camera or _camera(block.text(tags.get(_MAKE, _NONE)), block.text(tags.get(_MODEL, _NONE)))
        if taken and camera:
            break
    return Shot(taken, camera)


def _tags(block: _Exif, offset: int) -> dict[int, Entry]:
    """Return the tags of a directory, as far as it goes."""
    tags: dict[int, Entry] = {}
    for entry in block.directory(offset, _MOST_TAGS)[1]:
        tags.setdefault(entry[0], entry)
    return tags


def _blocks(file: BinaryIO) -> Iterator[int]:
    """Yield the offsets of EXIF data in an image file. Most files have one; Canon's CR3 files have several."""
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
        for start, data in _pieces(file, end, _OVERLAP):
            for match in _BLOCK.finditer(data):
                if len(data) - match.end() >= 4:
                    yield start + match.end()


def _pieces(file: BinaryIO, end: int | None, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Yield pieces of a file before ``end`` with their offsets; each begins with the last bytes of the one before."""
    at, data = 0, b""
    file.seek(0)
    while more := file.read(_CHUNK if end is None else min(_CHUNK, max(end - at, 0))):
        data = data[-overlap:] + more
        at += len(more)
        yield at - len(data), data
        file.seek(at)


def _time(text: str) -> str | None:
    match = _DATE.match(text)
    with contextlib.suppress(ValueError):  # cameras whose clock is not set write zeros
        if match is not None:
            return datetime(*(int(part or 0) for part in match.groups())).isoformat()  # type: ignore[arg-type]
    return None


def _camera(make: str, model: str) -> str:
    """``NIKON CORPORATION``, ``NIKON D90`` -> ``NIKON D90``; ``Apple``, ``iPhone 12`` -> ``Apple iPhone 12``."""
    words = make.split()
    if not words or any(word.casefold() in model.casefold().split() for word in words):
        return model
    return f"{words[0]} {model}" if model else make


# -- location ---------------------------------------------------------------------------------------------------------
#
# Only the bytes of the location change, and no byte moves, so nothing is decoded or encoded again. EXIF is found by its
# TIFF header and XMP by its text, wherever a format keeps them: JPEG, WebP, HEIC, AVIF, TIFF, GIF. The chunks of a PNG
# are read one by one, because they have checksums and may hold compressed text.

Patch = tuple[int, bytes]  # an offset in the file, and the bytes to send in place of those there

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_HEADERS = (b"II*\0", b"MM\0*")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value, by type
_MAX_GPS_TAGS = 64
_MAX_TAGS = 512
_MAX_IFDS = 32
_MAX_VALUE = 65_536  # bytes

# exif:GPSLatitude="48,12.3N", <exif:GPSLatitude>48,12.3N</...>, drone-dji:GpsLatitude="+48.2"
_XMP_WORD = b"RDF"  # precedes all of these
_XMP = re.compile(
    rb""":(?:GPS|Gps|gps)\w{1,40}(?:\s*=\s*(?:"([^"<]{1,400})"|'([^'<]{1,400})')|(?:\s[^<>]{0,200})?>([^<]{1,400})<)"""
)

_XMP_OVERLAP = 2048  # bytes, longer than what _XMP matches
_MAX_TEXT = 2**26  # bytes of a text chunk of a PNG; none is longer

# The cost allowed for searching one file: 100 000 chunks or segments, 1 000 patches, 64 MB of inflated text, ...
_BUDGET = 100_000
_PIECE, _NAME, _DIRECTORY, _PATCH = 1, 1, 50, 100
_INFLATED = 2**26 // _BUDGET  # bytes that cost 1


def location_patches(file: BinaryIO) -> tuple[Patch, ...]:
    """Return the bytes to replace in an image file so that it does not reveal where the photo was taken.

    Raises ImageTooLargeError if its metadata are in far more pieces than programs write.
    """
    file.seek(0)
    budget = _Budget()
    if file.read(len(_PNG)) == _PNG:
        return tuple(_png_patches(file, budget))
    return tuple(_patches(file, budget, start_of_scan(file)))


class _Budget:
    """The cost that searching a file may still have."""

    def __init__(self) -> None:
        self._left = _BUDGET

    def spend(self, cost: int) -> None:
        """Spend part of the budget. Raises ImageTooLargeError when it is used up."""
        self._left -= cost
        if self._left < 0:
            raise ImageTooLargeError("The metadata of this image are in too many pieces to be searched.")


class PatchedFile(io.RawIOBase):
    """A file with some bytes replaced, which can be read up to ``end``. Closing it closes the underlying file."""

    def __init__(self, file: BinaryIO, patches: Sequence[Patch] = ()) -> None:
        self._file, self.patches = file, patches
        self.end: int | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()
        size = len(buffer) if self.end is None else max(0, min(len(buffer), self.end - start))
        data = bytearray(self._file.read(size))
        for offset, patch in self.patches:
            first, last = max(offset, start), min(offset + len(patch), start + len(data))
            if first < last:
                data[first - start : last - start] = patch[first - offset : last - offset]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def start_of_scan(file: BinaryIO) -> int | None:
    """Return where the metadata of a JPEG end; None for other files, and if another image may follow the first."""
    read = reader(file)
    if read(0, 2) != b"\xff\xd8":
        return None
    for marker, at, _ in islice(jpeg_segments(read), _BUDGET):
        if marker == START_OF_SCAN:
            return at
        if marker == 0xE2 and read(at, 4) == b"MPF\0":
            return None
    return None


def _patches(file: BinaryIO, budget: _Budget, end: int | None = None) -> list[Patch]:
    """Return patches for the location in EXIF and XMP data, anywhere in a file before ``end``."""
    patches: set[Patch] = set()
    headers: set[int] = set()
    has_xmp = False
    for start, data in _pieces(file, end, _XMP_OVERLAP):
        for header in _TIFF_HEADERS:
            for offset in _places_of(header, data):
                budget.spend(_DIRECTORY)
                headers.add(start + offset)
        has_xmp = has_xmp or _XMP_WORD in data
        if has_xmp:
            budget.spend(sum(map(data.count, (b":GPS", b":Gps", b":gps"))) * _NAME)
            for match in _XMP.finditer(data):
                budget.spend(_PATCH)
                first, last = match.span(match.lastindex or 0)
                patches.add((start + first, b" " * (last - first)))
    for offset in headers:
        for patch in _exif_patches(file, offset, budget):
            budget.spend(_PATCH)
            patches.add(patch)
    return sorted(patches)


def _places_of(word: bytes, data: bytes) -> Iterator[int]:
    offset = data.find(word)
    while offset >= 0:
        yield offset
        offset = data.find(word, offset + 1)


def _exif_patches(file: BinaryIO, start: int, budget: _Budget) -> Iterator[Patch]:
    """Yield patches for the location in the TIFF structure at ``start``, if it is one."""
    block = _Exif(file, start)
    offset = block.first
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_IFDS:
        seen.add(offset)
        budget.spend(_DIRECTORY)
        entries, offset = _whole_directory(block, offset, _MAX_TAGS)
        for tag, kind, count, value in entries:
            if tag == _GPS_DIRECTORY and kind in (_LONG, _IFD) and count == 1:
                budget.spend(_DIRECTORY)
                yield from _gps_patches(block, block.number(value))


def _gps_patches(block: _Exif, offset: int) -> Iterator[Patch]:
    entries, _ = _whole_directory(block, offset, _MAX_GPS_TAGS)
    if not entries or any(kind not in _SIZES for _, kind, _, _ in entries):
        return  # the pointer only looks like one to a location
    yield block.start + offset, bytes(2 + 12 * len(entries))
    for _, kind, count, value in entries:
        size = _SIZES[kind] * count
        if 4 < size <= _MAX_VALUE:  # a shorter value is in the entry
            yield block.start + block.number(value), bytes(size)


def _whole_directory(block: _Exif, offset: int, most: int) -> tuple[list[Entry], int]:
    """Return the tags of a directory and the next one's offset; nothing if it has over ``most``, or is cut short."""
    announced, entries, following = block.directory(offset, most)
    return (entries, following) if len(entries) == announced else ([], 0)


def _png_patches(file: BinaryIO, budget: _Budget) -> Iterator[Patch]:
    """Yield patches for the location in the chunks of a PNG, with their new checksums."""
    read = reader(file)
    for kind, offset, length in png_chunks(read):
        budget.spend(_PIECE)
        if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") and length <= _MAX_TEXT:
            blanked = _blanked(kind, read(offset, length), budget)
            if blanked is not None:
                budget.spend(_PATCH)
                yield offset - len(kind), blanked + struct.pack(">I", zlib.crc32(blanked))


def _blanked(kind: bytes, data: bytes, budget: _Budget) -> bytes | None:
    """Return the type and content of a PNG chunk without the location; None if it has no location."""
    keyword, _, rest = data.partition(b"\0")
    if keyword.startswith(b"Raw profile type") or kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1"):
        # Compressed, or in hexadecimal digits: a chunk of an unknown type takes its place.
        text = _text(kind, rest)
        budget.spend(len(text) // _INFLATED)
        return b"noTe" + bytes(len(data)) if _patches(io.BytesIO(text), budget) else None
    patches = _patches(io.BytesIO(data), budget)
    return kind + PatchedFile(io.BytesIO(data), patches).read() if patches else None


def _text(kind: bytes, rest: bytes) -> bytes:
    """Return the text after the keyword of a PNG chunk, inflated, and decoded if it is in hexadecimal digits."""
    if kind == b"zTXt":
        rest = _inflate(rest[1:])
    elif kind == b"iTXt":
        text = rest[2:].split(b"\0", 2)[-1]
        rest = _inflate(text) if rest[:1] == b"\1" else text
    profile = re.fullmatch(rb"\s*\w+\s+\d+\s+([0-9A-Fa-f\s]+)", rest)
    if profile is None:
        return rest
    digits = re.sub(rb"\s+", b"", profile[1])
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode())


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_TEXT)
    except zlib.error:
        return b""
