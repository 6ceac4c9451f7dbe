"""Every mode that Pillow reads, as the RGB that a person would see on a white page."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# TIFF 6.0, section 8
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode, as mode RGB; the very same one where it is that already.

    Transparent parts are laid over white. Grey with more than 8 bits is scaled, not clipped. CMYK is converted by
    the plain formula, and colour profiles are not applied: they shift colours less than one photo differs from another.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_wide_grey(image)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        page = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(page, seen).convert("RGB")
    return image.convert("RGB")


def _wide_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of 16 or 32 bits or in floating point, (h, w), brought to uint8.

    16 bits reach from 0 to 65535, 12 bits to 4095. The others do not say where white is, so it is 1 (floats only),
    255 or 65535, the first of them that no value exceeds; where values go beyond or below zero, they are stretched
    from the least to the greatest. NaN is black.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    grey: NDArray[np.uint8]
    if image.mode.startswith("I;16"):
        white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
        grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)  # rounded
    else:
        grey = _stretch(values.astype(np.float64), whites=(1, 255, 65535) if image.mode == "F" else (255, 65535))
    # Pillow turns 1 and 8 bits the right way round, but not 16 bits and more.
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def _stretch(values: NDArray[np.float64], whites: tuple[int, ...]) -> NDArray[np.uint8]:
    """(h, w) float64 -> (h, w) uint8, from black to the first of ``whites`` that no value exceeds."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= whites[-1]:
        low, high = 0.0, float(next(white for white in whites if high <= white))
    span = high - low or 1.0
    known = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.rint((known - low) * 255 / span).astype(np.uint8)
