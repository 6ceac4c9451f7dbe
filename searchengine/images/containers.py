"""Files that contain several picture files: icons and camera raw files. The largest is taken."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

import numpy as np

from searchengine.errors import DamagedImageError
from searchengine.images.formats import jpeg_segments, reader, sniff

_CANDIDATES = 1000  # looked at in a file
_SEGMENTS = 200  # before the header of a JPEG
_LARGE = 512  # pixels of the longer side from which a preview is taken for the photo, or a third of the photo's
_LARGER_THAN_A_THUMBNAIL = 321
_MASK_BYTES = 2**20  # of an icon: more than any has


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
