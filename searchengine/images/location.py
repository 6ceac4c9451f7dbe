"""The position in a photo's metadata: found, and blanked while the file is sent.

Only bytes of the position change, and none moves, so nothing is decoded or encoded again. EXIF is found by its TIFF
header and XMP by its text, wherever a format keeps them: JPEG, WebP, HEIC, AVIF, TIFF, GIF. PNG has checksums, and may
have compressed its texts, so its chunks are read one by one.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

from searchengine.errors import ImageTooLargeError
from searchengine.images.formats import START_OF_SCAN, jpeg_segments, png_chunks, reader

Patch = tuple[int, bytes]  # an offset in the file, and the bytes to send from there

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_HEADERS = (b"II*\0", b"MM\0*")
_GPS_IFD = 0x8825  # the tag that points to the position
_LONG, _IFD = 4, 13  # types of a pointer
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value, by type
_MAX_GPS_TAGS = 64
_MAX_TAGS = 512
_MAX_IFDS = 32
_MAX_VALUE = 65_536  # bytes

# exif:GPSLatitude="48,12.3N", <exif:GPSLatitude>48,12.3N</...>, drone-dji:GpsLatitude="+48.2"
_XMP_WORD = b"RDF"  # stands before any of these
_XMP = re.compile(
    rb""":(?:GPS|Gps|gps)\w{1,40}(?:\s*=\s*(?:"([^"<]{1,400})"|'([^'<]{1,400})')|(?:\s[^<>]{0,200})?>([^<]{1,400})<)"""
)

_CHUNK = 2**20  # bytes read at a time
_OVERLAP = 2048  # bytes, longer than what _XMP matches
_MAX_TEXT = 2**26  # bytes of a PNG's chunk of text; none is longer

# What looking through one file may cost: 100 000 chunks or segments, 1 000 patches, 64 MB of inflated text, ...
_BUDGET = 100_000
_PIECE, _NAME, _DIRECTORY, _PATCH = 1, 1, 50, 100
_INFLATED = 2**26 // _BUDGET  # bytes for 1


def location_patches(file: BinaryIO) -> tuple[Patch, ...]:
    """What to send in place of some bytes of an image file so that it does not say where it was taken.

    ImageTooLargeError where its metadata are in far more pieces than any program writes.
    """
    file.seek(0)
    budget = _Budget()
    if file.read(len(_PNG)) == _PNG:
        return tuple(_png_patches(file, budget))
    return tuple(_patches(file, budget, start_of_scan(file)))


class _Budget:
    """What is left of it; ImageTooLargeError when it is used up."""

    def __init__(self) -> None:
        self._left = _BUDGET

    def spend(self, cost: int) -> None:
        """Take a part of it."""
        self._left -= cost
        if self._left < 0:
            raise ImageTooLargeError("The metadata of this image are in too many pieces to be looked through.")


class PatchedFile(io.RawIOBase):
    """A file with other bytes in some places; it can be read up to ``end``. Closing it closes the file."""

    def __init__(self, file: BinaryIO, patches: Sequence[Patch] = ()) -> None:
        self._file, self.patches = file, patches
        self.end: int | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.IOBase."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See io.IOBase."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
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
        """See io.IOBase."""
        self._file.close()
        super().close()


def start_of_scan(file: BinaryIO) -> int | None:
    """Where the metadata of a JPEG ends and its pixels begin; None for all else, and where another image may follow."""
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
    """The position in EXIF and XMP, anywhere in a file before ``end``."""
    patches: set[Patch] = set()
    headers: set[int] = set()
    at, data, has_xmp = 0, b"", False
    file.seek(0)
    while more := file.read(_CHUNK if end is None else min(_CHUNK, end - at)):
        data = data[-_OVERLAP:] + more
        start = at + len(more) - len(data)
        at += len(more)
        for header in _TIFF_HEADERS:
            for offset in _occurrences(data, header):
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


def _occurrences(data: bytes, word: bytes) -> Iterator[int]:
    offset = data.find(word)
    while offset >= 0:
        yield offset
        offset = data.find(word, offset + 1)


def _exif_patches(file: BinaryIO, start: int, budget: _Budget) -> Iterator[Patch]:
    """The position in the TIFF structure whose header is at ``start``, if it is one."""
    file.seek(start)
    header = file.read(8)
    if len(header) < 8:
        return
    order = "<" if header.startswith(b"II") else ">"
    (offset,) = struct.unpack(f"{order}I", header[4:])
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_IFDS:
        seen.add(offset)
        budget.spend(_DIRECTORY)
        entries, following = _read_ifd(file, start + offset, order, _MAX_TAGS)
        for tag, kind, count, value in entries:
            if tag == _GPS_IFD and kind in (_LONG, _IFD) and count == 1:
                budget.spend(_DIRECTORY)
                yield from _gps_patches(file, start, value, order)
        offset = following


def _gps_patches(file: BinaryIO, start: int, offset: int, order: str) -> Iterator[Patch]:
    entries, _ = _read_ifd(file, start + offset, order, _MAX_GPS_TAGS)
    if not entries or any(kind not in _SIZES for _, kind, _, _ in entries):
        return  # something else that looks like a pointer to a position
    yield start + offset, bytes(2 + 12 * len(entries))
    for _, kind, count, value in entries:
        size = _SIZES[kind] * count
        if 4 < size <= _MAX_VALUE:  # else the value was in the entry
            yield start + value, bytes(size)


def _read_ifd(file: BinaryIO, offset: int, order: str, most: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """The (tag, type, count, value) of a directory, and where the next one is; nothing if it has more than ``most``."""
    file.seek(offset)
    data = file.read(2 + 12 * most + 4)
    if len(data) < 2:
        return [], 0
    (count,) = struct.unpack_from(f"{order}H", data)
    if count > most or len(data) < 2 + 12 * count:
        return [], 0
    entries = [struct.unpack_from(f"{order}HHII", data, 2 + 12 * i) for i in range(count)]
    rest = data[2 + 12 * count : 6 + 12 * count]
    return entries, struct.unpack(f"{order}I", rest)[0] if len(rest) == 4 else 0


def _png_patches(file: BinaryIO, budget: _Budget) -> Iterator[Patch]:
    """The position in the chunks of a PNG, and the checksums of these."""
    read = reader(file)
    for kind, offset, length in png_chunks(read):
        budget.spend(_PIECE)
        if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") and length <= _MAX_TEXT:
            blanked = _blanked(kind, read(offset, length), budget)
            if blanked is not None:
                budget.spend(_PATCH)
                yield offset - len(kind), blanked + struct.pack(">I", zlib.crc32(blanked))


def _blanked(kind: bytes, data: bytes, budget: _Budget) -> bytes | None:
    """The type and content of a PNG's chunk without the position; None where it has none."""
    keyword, _, rest = data.partition(b"\0")
    if keyword.startswith(b"Raw profile type") or kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1"):
        # Compressed or in hexadecimal digits: a chunk that no reader knows takes its place.
        text = _text(kind, rest)
        budget.spend(len(text) // _INFLATED)
        return b"noTe" + bytes(len(data)) if _patches(io.BytesIO(text), budget) else None
    patches = _patches(io.BytesIO(data), budget)
    return kind + PatchedFile(io.BytesIO(data), patches).read() if patches else None


def _text(kind: bytes, rest: bytes) -> bytes:
    """What follows the keyword of a PNG's text: inflated, and decoded where it is written in hexadecimal digits."""
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
