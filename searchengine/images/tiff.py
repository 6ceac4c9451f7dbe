"""The pages of a TIFF: which one is the main picture, and whether the file is a camera raw file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from searchengine.images.isolation import MAX_PIXELS

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


def pages(data: bytes) -> list[Page]:
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


def is_raw(data: bytes, all_pages: list[Page]) -> bool:
    """Whether a TIFF is a camera raw file."""
    return data[8:10] == b"CR" or any(page.is_raw for page in all_pages)


def preview(all_pages: list[Page]) -> Page | None:
    """The largest page of a camera raw file that is an ordinary picture and not a JPEG."""
    ordinary = [
        page
        for page in all_pages
        if page.get(PHOTOMETRIC) in _RGB_OR_YCBCR and page.get(BITS) == 8 and page.get(COMPRESSION) not in _JPEG
    ]
    return max(ordinary, key=lambda page: page.area, default=None)


def as_exif(data: bytes) -> bytes:
    """The first directory of a camera raw file as EXIF data, for the orientation of the photo."""
    start = data.find(b"CMT1") + 4 if data[4:8] == b"ftyp" else 0  # where a CR3 keeps it
    order = data[start : start + 2]
    return order + (b"*\0" if order == b"II" else b"\0*") + data[start + 4 : start + 2**20]
