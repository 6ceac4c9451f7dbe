"""Chooses the main picture of files that hold several: TIFF files, camera raw files and icons."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np

from searchengine.errors import DamagedImageError
from searchengine.images.formats import jpeg_segments, reader, sniff
from searchengine.images.isolation import MAX_PIXELS

_CANDIDATES = 1000  # pictures of a file that are examined at most

# -- the pages of a TIFF ----------------------------------------------------------------------------------------------

# TIFF 6.0; TIFF/EP and DNG 1.7
NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 259, 262
BITS, ORIENTATION, SAMPLES, SUB_IFDS, SAMPLE_FORMAT, DNG_VERSION = 258, 274, 277, 330, 339, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_REDUCED_OF_OLD = 2
_RAW_PHOTOMETRIC = {32803, 34892}  # colour filter array, linear raw
_RAW_COMPRESSION = {262, 32767, 32769, 32770, 34713, 65000, 65535}  # Kodak, Sony, Samsung, Nikon, Pentax
_RGB_OR_YCBCR, _JPEG = {2, 6}, {6, 7}
_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of a value, by integer type
_PAGES = 256  # that are examined at most
_VALUES = 32  # of a tag that are read at most
_PYRAMID = 3.9  # with this many times the area, about twice the width, a page is the same picture at a larger size


@dataclass(frozen=True, slots=True)
class Page:
    """One image file directory: its offset, and the integer values of its tags."""

    offset: int
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def get(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as stored."""
        return self.get(WIDTH), self.get(HEIGHT)

    @property
    def area(self) -> int:
        """Width times height in pixels."""
        return self.get(WIDTH) * self.get(HEIGHT)

    @property
    def is_reduced(self) -> bool:
        """Whether the page is marked as a smaller copy of another page, or as a mask."""
        return bool(self.get(NEW_SUBFILE_TYPE) & (_REDUCED | _MASK)) or self.get(SUBFILE_TYPE) == _REDUCED_OF_OLD

    @property
    def is_raw(self) -> bool:
        """Whether the page holds data of a camera's sensor, or belongs to a DNG."""
        return (
            self.get(PHOTOMETRIC) in _RAW_PHOTOMETRIC
            or self.get(COMPRESSION) in _RAW_COMPRESSION
            or DNG_VERSION in self.tags
        )

    @property
    def is_unusual(self) -> bool:
        """Whether Pillow does not read this kind of samples."""
        return self.get(SAMPLES, 1) not in (1, 3, 4) or self.get(BITS, 1) > 16 or self.get(SAMPLE_FORMAT, 1) != 1

    @property
    def description(self) -> str:
        """The samples in words, such as "3 bands of 32-bit floating point samples"."""
        samples = self.get(SAMPLES, 1)
        kinds = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex floating point"}
        kind = kinds.get(self.get(SAMPLE_FORMAT, 1), "unknown")
        return f"{samples} band{'s' * (samples != 1)} of {self.get(BITS, 1)}-bit {kind} samples"


def tiff_pages(data: bytes) -> list[Page]:
    """Return the pages of a TIFF or BigTIFF in order, each followed by its sub-pages; broken pages are left out."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    wide = data[2:4] in (b"+\0", b"\0+")

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    def read(offset: int) -> tuple[Page, int]:
        """Return a page, and the offset of the next one."""
        count_size, entry_size, offset_size = (8, 20, 8) if wide else (2, 12, 4)
        start = offset + count_size
        entries = min(number(offset, count_size), 4096)
        tags = {}
        for at in range(start, min(start + entries * entry_size, len(data) - entry_size + 1), entry_size):
            tag, kind, count = number(at, 2), number(at + 2, 2), number(at + 4, offset_size)
            size = _SIZES.get(kind)
            if size is None or count == 0:
                continue
            values = at + 4 + offset_size
            if size * count > offset_size:
                values = number(values, offset_size)
            tags[tag] = tuple(number(values + i * size, size) for i in range(min(count, _VALUES)))
        return Page(offset, tags), number(start + entries * entry_size, offset_size)

    def walk(offset: int, depth: int) -> Iterator[Page]:
        while 0 < offset < len(data) and offset not in seen and len(seen) < _PAGES:
            seen.add(offset)
            page, offset = read(offset)
            yield page
            if depth < 2:
                for below in page.tags.get(SUB_IFDS, ()):
                    yield from walk(below, depth + 1)

    seen: set[int] = set()
    first = number(8, 8) if wide else number(4, 4)
    return list(walk(first, 0))


def main_page(all_pages: list[Page]) -> Page:
    """Return the main page: not a smaller copy of another page, which some programs write first.

    If it has more than ``MAX_PIXELS``, such as a scanned slide, return its largest copy within the limit.
    """
    page = _full_page(all_pages)
    if page.area <= MAX_PIXELS:
        return page
    copies = [copy for copy in all_pages if copy.area <= MAX_PIXELS and _same_shape(copy, page)]
    return max(copies, key=lambda copy: copy.area, default=page)


def _full_page(all_pages: list[Page]) -> Page:
    first = all_pages[0]
    full = [page for page in all_pages if not page.is_reduced and page.area]
    if first.is_reduced or not first.area:
        return full[0] if full else max(all_pages, key=lambda page: page.area)
    larger = [page for page in full if page.area >= _PYRAMID * first.area and _same_shape(page, first)]
    return max(larger, key=lambda page: page.area, default=first)


def _same_shape(a: Page, b: Page) -> bool:
    """Return whether two pages have the same proportions, up to rounding."""
    (width, height), (other_width, other_height) = a.size, b.size
    return abs(width * other_height - other_width * height) <= max(width, height, 0.02 * width * other_height)


def beginning_with(data: bytes, page: Page) -> bytes:
    """Return the file with another first page."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    at, size = (8, 8) if data[2:4] in (b"+\0", b"\0+") else (4, 4)
    return data[:at] + page.offset.to_bytes(size, order) + data[at + size :]


# -- the previews of a camera raw file --------------------------------------------------------------------------------

_SEGMENTS = 200  # of a JPEG that are examined at most
_LARGE = 512  # a preview whose longer side has this many pixels, or a third of the photo's, stands for the photo
_LARGER_THAN_A_THUMBNAIL = 321


def is_raw(data: bytes, all_pages: list[Page]) -> bool:
    """Return whether a TIFF is a camera raw file."""
    return data[8:10] == b"CR" or any(page.is_raw for page in all_pages)


def raw_preview(all_pages: list[Page]) -> Page | None:
    """Return the largest page of a camera raw file that is an ordinary picture and not a JPEG, if any."""
    ordinary = [
        page
        for page in all_pages
        if page.get(PHOTOMETRIC) in _RGB_OR_YCBCR and page.get(BITS) == 8 and page.get(COMPRESSION) not in _JPEG
    ]
    return max(ordinary, key=lambda page: page.area, default=None)


def exif_of_raw(data: bytes) -> bytes:
    """Return the first directory of a camera raw file as EXIF data, for the orientation of the photo."""
    start = data.find(b"CMT1") + 4 if data[4:8] == b"ftyp" else 0  # a CR3 keeps it in this box
    order = data[start : start + 2]
    return order + (b"*\0" if order == b"II" else b"\0*") + data[start + 4 : start + 2**20]


def largest_jpeg(data: bytes) -> tuple[int, tuple[int, int]]:
    """Return the offset of the largest JPEG in a camera raw file, and its (width, height); (0, 0) if there is none."""
    return max(_jpegs(data), key=lambda jpeg: jpeg[1], default=(0, (0, 0)))


def is_thumbnail(size: tuple[int, int], raw_side: int) -> bool:
    """Return whether a preview is too small to stand for the photo, whose longer side is ``raw_side`` (0: unknown)."""
    return max(size) < (min(_LARGE, raw_side / 3) if raw_side else _LARGER_THAN_A_THUMBNAIL)


def _jpegs(data: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the offset and the size of each JPEG."""
    start = -1
    for _ in range(_CANDIDATES):
        start = data.find(b"\xff\xd8\xff", start + 1)
        if start < 0:
            return
        size = _jpeg_size(data, start)
        if size is not None:
            yield start, size


def _jpeg_size(data: bytes, start: int) -> tuple[int, int] | None:
    """Return (width, height), or None for a lossless JPEG, which holds the raw data, and for anything else."""
    for marker, at, _ in islice(jpeg_segments(reader(data), start), _SEGMENTS):
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = int.from_bytes(data[at + 1 : at + 3]), int.from_bytes(data[at + 3 : at + 5])
            return (width, height) if data[at : at + 1] == b"\x08" and width and height else None
        if marker == 0xC3 or marker < 0xC0:
            return None
    return None


# -- icons ------------------------------------------------------------------------------------------------------------

_MASK_BYTES = 2**20  # more than the mask of any icon has


def picture_in_ico(data: bytes) -> bytes:
    """Return the largest picture of a Windows icon or cursor, and among equally large ones that with the most colours.

    The result is a PNG, or an icon with only that picture. Bits per pixel are read from the bitmap, because the list
    of a cursor has the hot spot in their place, and the list of some icons has zeros.
    """

    def bits(entry: bytes) -> int:
        start = int.from_bytes(entry[12:16], "little")
        return int.from_bytes(data[start + 14 : start + 16], "little")

    entries = [data[at : at + 16] for at in range(6, 6 + 16 * int.from_bytes(data[4:6], "little"), 16)]
    entries = [entry for entry in entries if len(entry) == 16]
    if not entries:
        raise DamagedImageError("This ICO image is damaged: it lists no pictures. Try a fresh copy.")
    entry = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), bits(entry)))
    length, start = int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")
    picture = data[start : start + length]
    if sniff(picture) == "PNG":
        return picture
    picture = _with_masks(picture)
    sizes = len(picture).to_bytes(4, "little") + (22).to_bytes(4, "little")
    return b"\0\0\1\0\1\0" + entry[:4] + b"\1\0" + bits(entry).to_bytes(2, "little") + sizes + picture


def _with_masks(bitmap: bytes) -> bytes:
    """Complete the mask of an icon's bitmap; a bitmap of 32 bits without alpha takes its alpha from the mask.

    The missing part of a mask is opaque.
    """
    header, width, height, _, bits = struct.unpack("<IiiHH", bitmap[:16].ljust(16, b"\0"))
    height = abs(height) // 2  # the height in the file includes the mask
    colours = int.from_bytes(bitmap[32:36], "little") or (1 << bits if bits <= 8 else 0)
    start = header + 4 * colours
    mask_start = start + (width * bits + 31) // 32 * 4 * height
    row = (width + 31) // 32 * 4
    if header < 40 or not 0 < row * height <= _MASK_BYTES or not start < mask_start <= len(bitmap):
        return bitmap
    bitmap = bitmap[: mask_start + row * height].ljust(mask_start + row * height, b"\0")
    if bits == 32:
        pixels = np.frombuffer(bitmap, np.uint8, width * height * 4, start).reshape(height, width, 4).copy()
        mask = np.frombuffer(bitmap, np.uint8, row * height, mask_start).reshape(height, row)
        if not pixels[..., 3].any():
            pixels[..., 3] = np.where(np.unpackbits(mask, axis=1)[:, :width], 0, 255)
            return bitmap[:start] + pixels.tobytes() + bitmap[mask_start:]
    return bitmap


def picture_in_icns(data: bytes) -> bytes | None:
    """Return the largest PNG or JPEG 2000 in a macOS icon; None if all its pictures are in older formats."""
    pictures: list[bytes] = []
    at = 8
    for _ in range(_CANDIDATES + 1):
        if at + 8 > len(data):
            return max(pictures, key=_width, default=None)
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        picture = data[at + 8 : at + length]
        if sniff(picture[:32]) in ("PNG", "JP2"):
            pictures.append(picture)
        at += max(length, 8)
    raise DamagedImageError("This ICNS image is damaged: its list of pictures does not end. Try a fresh copy.")


def _width(picture: bytes) -> int:
    """Return the width of a PNG or a JPEG 2000."""
    at = 16 if sniff(picture[:32]) == "PNG" else picture.find(b"ihdr") + 8
    return int.from_bytes(picture[at : at + 4], "big")
