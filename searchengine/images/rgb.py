"""An image of any mode and orientation -> RGB and upright, as a person would see it on a white page."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# TIFF 6.0, section 8
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode RGB; an RGB image is returned as it is.

    Transparent parts are laid over white. Grey with more than 8 bits is scaled, not clipped. CMYK is converted by
    the plain formula. Colour profiles are not applied: they shift colours less than one photo differs from another.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_wide_grey(image)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def _wide_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Scale grey of 16 bits, 32 bits or floating point to (h, w) uint8.

    16 bits range from 0 to 65535, 12 bits to 4095. The others do not say where white is, so it is the first of 1
    (floats only), 255 and 65535 that no value exceeds; values beyond 65535 or below zero are stretched from the least
    to the greatest. NaN becomes black.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    grey: NDArray[np.uint8]
    if image.mode.startswith("I;16"):
        white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
        grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)  # rounded
    else:
        grey = _stretch(values.astype(np.float64), whites=(1, 255, 65535) if image.mode == "F" else (255, 65535))
    # Pillow inverts 1 and 8 bits where needed, but not 16 bits and more.
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def _stretch(values: NDArray[np.float64], whites: tuple[int, ...]) -> NDArray[np.uint8]:
    """Scale (h, w) float64 to uint8, with white the first of ``whites`` that no value exceeds."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= whites[-1]:
        low, high = 0.0, float(next(white for white in whites if high <= white))
    span = high - low or 1.0
    numbers = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.rint((numbers - low) * 255 / span).astype(np.uint8)


# -- orientation -------------------------------------------------------------------------------------------------------
#
# One EXIF tag, read by hand: parsing the whole block, as Pillow does, is slower than decoding a small photo, warns, and
# fails on broken blocks.

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4

# EXIF 2.32, 4.6.4: how an image with each of the values 2 to 8 becomes upright.
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
    """The orientation, 1 to 8, in an EXIF block with or without its ``Exif\\0\\0``; 1, upright, if absent or broken."""
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
    """Turn an image to how it was seen through the viewfinder; one that is upright is returned as it is."""
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def swaps_sides(orientation: int) -> bool:
    """Whether making it upright takes a quarter turn, which swaps width and height."""
    return orientation >= 5
