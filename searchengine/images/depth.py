"""Samples of more than 8 bits -> 8 bits. Files seldom say which value is white, so that is chosen by the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

# TIFF 6.0, section 8, and the value that GDAL writes where nothing was measured
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO, _GDAL_NODATA = 258, 262, 0, 42113

_NEARLY_ALL = 0.999  # of the values are no lighter than white: a hot pixel says nothing about the picture
_LOOKED_AT = 2**20  # values, spread evenly
_WHOLE_WHITES = [2.0**bits - 1 for bits in range(8, 17)]  # of 8 to 16 bits


def grey_of_8_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Scale a loaded image of mode I;16, I or F to (h, w) uint8.

    White is the first of 1 (floats only), 255, 511, 1023, ... and 65535 that hardly any value exceeds. Of values beyond
    65535 or below zero, the least becomes black and the greatest white. NaN becomes black.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode.startswith("I;16"):
        white = 4095.0 if tags.get(_BITS_PER_SAMPLE) == (12,) else white_of(values)
        grey = scaled(values, white)
    else:
        numbers = values.astype(np.float64)
        numbers[numbers == _nodata(tags)] = np.nan
        grey = stretched(numbers, fractions=image.mode == "F")
    # Pillow inverts 1 and 8 bits where needed, but not 16 bits and more.
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def white_of(values: NDArray[np.uint16]) -> float:
    """The first of 255, 511, ..., 65535 that hardly any of the values exceeds."""
    bright = _order(values, _NEARLY_ALL)
    return next(white for white in _WHOLE_WHITES if bright <= white)


def scaled(values: NDArray[np.uint16], white: float) -> NDArray[np.uint8]:
    """uint16 -> uint8, rounded; ``white`` and what is beyond it become 255."""
    whole = int(white)
    wide = np.minimum(values, whole).astype(np.uint32)
    result: NDArray[np.uint8] = ((wide * 255 + whole // 2) // whole).astype(np.uint8)
    return result


def stretched(values: NDArray[np.float64], *, fractions: bool) -> NDArray[np.uint8]:
    """Numbers of any range -> uint8, as ``grey_of_8_bits`` says; ``fractions`` where 1 may be white."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    whites = [1.0, *_WHOLE_WHITES] if fractions else _WHOLE_WHITES
    if low >= 0 and finite.size and (bright := _order(finite, _NEARLY_ALL)) <= whites[-1]:
        low, high = 0.0, next(white for white in whites if bright <= white)
    span = high - low or 1.0
    numbers = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    grey: NDArray[np.uint8] = np.rint((numbers - low) * 255 / span).astype(np.uint8)
    return grey


def _order(values: NDArray[np.generic], share: float) -> float:
    """The least value that is no less than that share of the values."""
    flat = values.ravel()
    flat = flat[:: max(1, flat.size // _LOOKED_AT)]
    rank = min(flat.size - 1, int(np.ceil(share * flat.size)))
    return float(np.partition(flat, rank)[rank])


def _nodata(tags: object) -> float:
    try:
        return float(tags.get(_GDAL_NODATA))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return float("nan")


# -- colour of 16 bits ------------------------------------------------------------------------------------------------
#
# Pillow keeps the high byte of each sample. Told that the samples are of the other byte order, it keeps the low one.

_OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
}


def has_16_bit_colour(file: ImageFile.ImageFile) -> bool:
    """Whether an image that is not yet loaded is RGB or RGBA of 16 bits a sample."""
    return bool(file.tile) and all(_rawmode(tile) in _OTHER_BYTE for tile in file.tile)


def needs_low_bytes(high: Image.Image) -> bool:
    """Whether the high bytes of a loaded image do not show all: they are dark, or a colour counts as transparent."""
    counts = np.array(high.histogram()[: 3 * 256]).reshape(3, 256).sum(axis=0)
    return isinstance(high.info.get("transparency"), tuple) or bool(
        counts[128:].sum() <= (1 - _NEARLY_ALL) * counts.sum()
    )


def load_low_bytes(file: ImageFile.ImageFile) -> None:
    """Load the low bytes of an image for which ``has_16_bit_colour``."""
    file.tile = [_of_other_byte(tile) for tile in file.tile]
    file.load()


def colour_of_8_bits(high: Image.Image, low: Image.Image) -> Image.Image:
    """RGB or RGBA of 16 bits, in two loaded images of 8 bits -> RGBA of 8 bits, white as in ``grey_of_8_bits``."""
    values = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
    white = white_of(values[..., :3])
    alpha = np.full(values.shape[:2], 255, dtype=np.uint8)
    if values.shape[2] == 4:
        alpha = scaled(values[..., 3], max(white, white_of(values[..., 3])))
    transparent = high.info.get("transparency")
    if isinstance(transparent, tuple):
        alpha[(values[..., :3] == np.array(transparent, dtype=np.uint16)).all(axis=2)] = 0
    colour = (values[..., :3] >> 8).astype(np.uint8) if white == _WHOLE_WHITES[-1] else scaled(values[..., :3], white)
    return Image.fromarray(np.dstack([colour, alpha]))


def _rawmode(tile: ImageFile._Tile) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _of_other_byte(tile: ImageFile._Tile) -> ImageFile._Tile:
    other = _OTHER_BYTE[_rawmode(tile)]
    return tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
