"""Which way up a photo was taken: the one EXIF tag that matters here, read by hand.

Parsing the whole block, as Pillow does, is slower than decoding a small photo, warns and fails on broken ones.
"""

from __future__ import annotations

from typing import Literal

from PIL import Image

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4

# EXIF 2.32, 4.6.4: what brings each of the values 2 to 8 upright.
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(exif: object) -> int:
    """1 to 8 from an EXIF block (with or without its ``Exif\\0\\0``); 1, upright, if it is absent or broken."""
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"]
    if tiff[:4] == b"II*\0":
        order = "little"
    elif tiff[:4] == b"MM\0*":
        order = "big"
    else:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(tiff):
            return 1
        if number(entry, 2) == _ORIENTATION:
            kind = number(entry + 2, 2)
            value = number(entry + 8, 2) if kind == _SHORT else number(entry + 8, 4) if kind == _LONG else 1
            return value if 1 <= value <= 8 else 1
    return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it was seen through the viewfinder; the very same one where nothing is to be turned."""
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def swaps_sides(orientation: int) -> bool:
    """True where upright means a quarter turn, so that width and height change places."""
    return orientation >= 5
