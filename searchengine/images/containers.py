"""Files that hold several pictures, and which of them is taken: TIFF files, camera raw files and icons."""

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

_CANDIDATES = 1000  # looked at in a file

# -- the pages of a TIFF ----------------------------------------------------------------------------------------------

# TIFF 6.0; TIFF/EP and DNG 1.7
NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 259, 262
BITS, ORIENTATION, SAMPLES, SUB_IFDS, SAMPLE_FORMAT, DNG_VERSION = 258, 274, 277, 330, 339, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_REDUCED_OF_OLD = 2
_RAW_PHOTOMETRIC = {32803, 34892}  # colour filter array, linear raw
_RAW_COMPRESSION = {262, 32767, 32769, 32770, 34713, 65000, 65535}  # Kodak, Sony, Samsung, Nikon, Pentax
_RGB_OR_YCBCR, _JPEG = {2, 6}, {6, 7}
_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the whole numbers among the types
_PAGES = 256  # looked at
_VALUES = 32  # of a tag
_PYRAMID = 3.9  # times the area, about twice the width: the same picture at another size


@dataclass(frozen=True, slots=True)
class Page:
    """One image file directory: its offset, and the integers of its tags."""

    offset: int
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def get(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as stored."""
        return self.get(WIDTH), self.get(HEIGHT)

    @property
    def area(self) -> int:
        """In pixels."""
        return self.get(WIDTH) * self.get(HEIGHT)

    @property
    def is_reduced(self) -> bool:
        """Whether it is marked as a smaller copy of another page, or as a mask."""
        return bool(self.get(NEW_SUBFILE_TYPE) & (_REDUCED | _MASK)) or self.get(SUBFILE_TYPE) == _REDUCED_OF_OLD

    @property
    def is_raw(self) -> bool:
        """Whether it holds the data of a camera's sensor, or belongs to a DNG."""
        return (
            self.get(PHOTOMETRIC) in _RAW_PHOTOMETRIC
            or self.get(COMPRESSION) in _RAW_COMPRESSION
            or DNG_VERSION in self.tags
        )

    @property
    def is_unusual(self) -> bool:
        """Whether its samples are of a kind that Pillow does not read."""
        return self.get(SAMPLES, 1) not in (1, 3, 4) or self.get(BITS, 1) > 16 or self.get(SAMPLE_FORMAT, 1) != 1

    @property
    def description(self) -> str:
        """Its samples in words, such as "3 bands of 32-bit floating point"."""
        samples = self.get(SAMPLES, 1)
        kinds = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex floating point"}
        kind = kinds.get(self.get(SAMPLE_FORMAT, 1), "unknown")
        return f"{samples} band{'s' * (samples != 1)} of {self.get(BITS, 1)}-bit {kind} samples"


def tiff_pages(data: bytes) -> list[Page]:
    """The pages of a TIFF or BigTIFF in order, each followed by its sub-pages; broken ones are left out."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    wide = data[2:4] in (b"+\0", b"\0+")

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    def read(offset: int) -> tuple[Page, int]:
        """A page, and where the next one begins."""
        count_size, entry_size, place_size = (8, 20, 8) if wide else (2, 12, 4)
        start = offset + count_size
        entries = min(number(offset, count_size), 4096)
        tags = {}
        for at in range(start, min(start + entries * entry_size, len(data) - entry_size + 1), entry_size):
            tag, kind, count = number(at, 2), number(at + 2, 2), number(at + 4, place_size)
            size = _SIZES.get(kind)
            if size is None or count == 0:
                continue
            place = at + 4 + place_size
            if size * count > place_size:
                place = number(place, place_size)
            tags[tag] = tuple(number(place + i * size, size) for i in range(min(count, _VALUES)))
        return Page(offset, tags), number(start + entries * entry_size, place_size)

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
    """The main page: not a smaller copy of another page, which some programs write first.

    Of a picture that has more than ``MAX_PIXELS``, such as a scanned slide, the largest copy within the limit.
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
    """Whether two pages have the same proportions, up to rounding."""
    (width, height), (other_width, other_height) = a.size, b.size
    return abs(width * other_height - other_width * height) <= max(width, height, 0.02 * width * other_height)


def beginning_with(data: bytes, page: Page) -> bytes:
    """The same file, with another first page."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    at, size = (8, 8) if data[2:4] in (b"+\0", b"\0+") else (4, 4)
    return data[:at] + page.offset.to_bytes(size, order) + data[at + size :]


# -- the previews of a camera raw file --------------------------------------------------------------------------------

_SEGMENTS = 200  # before the header of a JPEG
_LARGE = 512  # pixels of the longer side from which a preview is taken for the photo, or a third of the photo's
_LARGER_THAN_A_THUMBNAIL = 321


def is_raw(data: bytes, all_pages: list[Page]) -> bool:
    """Whether a TIFF is a camera raw file."""
    return data[8:10] == b"CR" or any(page.is_raw for page in all_pages)


def raw_preview(all_pages: list[Page]) -> Page | None:
    """The largest page of a camera raw file that is an ordinary picture and not a JPEG."""
    ordinary = [
        page
        for page in all_pages
        if page.get(PHOTOMETRIC) in _RGB_OR_YCBCR and page.get(BITS) == 8 and page.get(COMPRESSION) not in _JPEG
    ]
    return max(ordinary, key=lambda page: page.area, default=None)


def exif_of_raw(data: bytes) -> bytes:
    """The first directory of a camera raw file as EXIF data, for the orientation of the photo."""
    start = data.find(b"CMT1") + 4 if data[4:8] == b"ftyp" else 0  # where a CR3 keeps it
    order = data[start : start + 2]
    return order + (b"*\0" if order == b"II" else b"\0*") + data[start + 4 : start + 2**20]


def largest_jpeg(data: bytes) -> tuple[int, tuple[int, int]]:
    """The offset of the largest JPEG in a camera raw file, and its (width, height); (0, 0) if there is none."""
    return max(_jpegs(data), key=lambda jpeg: jpeg[1], default=(0, (0, 0)))


def is_thumbnail(size: tuple[int, int], raw_side: int) -> bool:
    """Whether a preview is too small to be taken for the photo, whose longer side is ``raw_side`` (0: unknown)."""
    return max(size) < (min(_LARGE, raw_side / 3) if raw_side else _LARGER_THAN_A_THUMBNAIL)


def _jpegs(data: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """The offset and the size of each JPEG."""
    start = -1
    for _ in range(_CANDIDATES):
        start = data.find(b"\xff\xd8\xff", start + 1)
        if start < 0:
            return
        size = _jpeg_size(data, start)
        if size is not None:
            yield start, size


def _jpeg_size(data: bytes, start: int) -> tuple[int, int] | None:
    """(width, height); None for a lossless JPEG, which holds the raw data, and for anything else."""
    for marker, at, _ in islice(jpeg_segments(reader(data), start), _SEGMENTS):
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = int.from_bytes(data[at + 1 : at + 3]), int.from_bytes(data[at + 3 : at + 5])
            return (width, height) if data[at : at + 1] == b"\x08" and width and height else None
        if marker == 0xC3 or marker < 0xC0:
            return None
    return None


# -- icons ------------------------------------------------------------------------------------------------------------

_MASK_BYTES = 2**20  # of an icon: more than any has


def picture_in_ico(data: bytes) -> bytes:
    """The largest picture of a Windows icon or cursor; of equally large ones, that with the most colours.

    The result is a PNG, or an icon with only that picture. The bits per pixel are those of its bitmap, because the list
    of a cursor has the hot spot instead, and some icons have nothing.
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
    """The bitmap of an icon with a complete mask; one of 32 bits without alpha takes that of the mask.

    The missing part of a mask is opaque.
    """
    header, width, height, _, bits = struct.unpack("<IiiHH", bitmap[:16].ljust(16, b"\0"))
    height = abs(height) // 2  # it counts the mask too
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
    """The largest PNG or JPEG 2000 in a macOS icon; None if all its pictures are in older formats."""
    pictures = []
    at, entries = 8, 0
    while at + 8 <= len(data):
        entries += 1
        if entries > _CANDIDATES:
            raise DamagedImageError("This ICNS image is damaged: its list of pictures does not end. Try a fresh copy.")
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        picture = data[at + 8 : at + length]
        if sniff(picture[:32]) in ("PNG", "JP2"):
            pictures.append(picture)
        at += max(length, 8)
    return max(pictures, key=_size_in_header, default=None)


def _size_in_header(picture: bytes) -> int:
    """The width of a PNG or a JPEG 2000."""
    at = 16 if sniff(picture[:32]) == "PNG" else picture.find(b"ihdr") + 8
    return int.from_bytes(picture[at : at + 4], "big")
