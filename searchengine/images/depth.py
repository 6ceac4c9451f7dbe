"""Converts samples of more than 8 bits to 8 bits. Few files say which value is white, so the data decide."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

# Tags of TIFF 6.0, section 8; and GDAL's tag for the value of pixels where nothing was measured
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO, _GDAL_NODATA = 258, 262, 0, 42113

_MOST = 0.9
_NEARLY_ALL = 0.999  # this share of the values is not above white: hot pixels say nothing about the picture
_SAMPLE_PIXELS = 2**20  # spread evenly
_STRIP_PIXELS = 2**20  # converted at a time, because float64 copies of a large image would not fit into memory
_WHOLE_WHITES = [2.0**bits - 1 for bits in range(8, 17)]  # of 8 to 16 bits


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the top row and the image of each strip of a loaded image; a small image is one strip."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def grey_of_8_bits(image: Image.Image) -> Image.Image:
    """Scale a loaded image of mode I;16, I or F to mode L.

    White is the first of 1 (floats only), 255, 511, 1023, ... and 65535 that hardly any value exceeds. If there are
    values beyond 65535 or below zero, the least value becomes black and the greatest white. NaN becomes black.
    """
    tags = getattr(image, "tag_v2", {})  # if it is a TIFF
    if image.mode.startswith("I;16"):
        low, high = 0.0, 4095.0 if tags.get(_BITS_PER_SAMPLE) == (12,) else white_of(_sample(image))
    else:
        low, high = _range(image, _nodata(tags))
    grey = Image.new("L", image.size)
    for top, strip in strips(image):
        values = np.asarray(strip)
        if values.dtype.itemsize == 2:
            part = scaled(values, high)
        else:
            part = _stretched(_numbers(values, _nodata(tags)), low, high)
        # Pillow inverts 1 and 8 bits if needed, but not 16 bits and more.
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            part = 255 - part
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            part[values == transparent] = 255
        grey.paste(Image.fromarray(part), (0, top))
    return grey


def white_of(values: NDArray[np.uint16]) -> float:
    """Return the first of 255, 511, ..., 65535 that hardly any value exceeds."""
    bright = _quantile(values, _NEARLY_ALL)
    return next(white for white in _WHOLE_WHITES if bright <= white)


def scaled(values: NDArray[np.uint16], white: float) -> NDArray[np.uint8]:
    """Scale uint16 to uint8, rounded; ``white`` and larger values become 255."""
    return _scale(int(white))[values]


@cache
def _scale(white: int) -> NDArray[np.uint8]:
    """Return the result for each value, (65536,) uint8."""
    wide = np.minimum(np.arange(2**16), white)
    return ((wide * 255 + white // 2) // white).astype(np.uint8)


def image_of(samples: NDArray[Any], white: float | None = None) -> Image.Image:
    """Convert samples of any type, (h, w, 1 to 4), grey or RGB, with or without alpha, to L, LA, RGB or RGBA.

    ``white`` is the value of white. If it is None, it is chosen as in ``grey_of_8_bits``, for all colours together; but
    it is 1 for floating-point RGB if nine tenths of the values do not exceed 1, since brighter values are highlights.
    """
    height, width, bands = samples.shape
    colours = bands - (bands + 1) % 2  # the other band, if any, is alpha
    image = Image.new(("L", "LA", "RGB", "RGBA")[bands - 1], (width, height))
    rows = max(1, _STRIP_PIXELS // width)
    low, high = (0.0, white) if white is not None else _white_of_array(samples[..., :colours])
    opaque = high if white is not None or samples.dtype.kind == "f" else _white_of_array(samples[..., colours:])[1]
    for top in range(0, height, rows):
        strip = samples[top : top + rows]
        parts = [_stretched(_numbers(strip[..., :colours], np.nan), low, high)]
        if colours < bands:
            parts.append(_stretched(_numbers(strip[..., colours:], np.nan), 0.0, max(high, opaque)))
        part = np.concatenate(parts, axis=2)
        image.paste(Image.fromarray(part[..., 0] if bands == 1 else part), (0, top))
    return image


def _white_of_array(samples: NDArray[Any]) -> tuple[float, float]:
    """Return the values of (h, w, bands) samples that become black and white."""
    if samples.dtype == np.uint8:
        return 0.0, 255.0
    floats, finite = samples.dtype.kind == "f", samples[np.isfinite(samples)]
    sample = finite[:: max(1, finite.size // _SAMPLE_PIXELS)]
    if floats and samples.shape[2] == 3 and finite.size and _quantile(sample, _MOST) <= 1:
        return 0.0, 1.0
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.inf, -np.inf)
    return _black_and_white(low, high, sample, floats=floats)


def _range(image: Image.Image, nodata: float) -> tuple[float, float]:
    """Return the values of an image of mode I or F that become black and white."""
    low, high = np.inf, -np.inf
    for _, strip in strips(image):
        finite = _finite(_numbers(np.asarray(strip), nodata))
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return _black_and_white(low, high, _finite(_numbers(_sample(image), nodata)), floats=image.mode == "F")


def _black_and_white(low: float, high: float, sample: NDArray[Any], *, floats: bool) -> tuple[float, float]:
    """Choose black and white by the least and the greatest value, and by a sample of all values."""
    if low > high:
        return 0.0, 1.0
    whites = [1.0, *_WHOLE_WHITES] if floats else _WHOLE_WHITES
    bright = _quantile(sample, _NEARLY_ALL) if sample.size else high
    if low >= 0 and bright <= whites[-1]:
        return 0.0, next(white for white in whites if bright <= white)
    return low, high


def _numbers(values: NDArray[Any], nodata: float) -> NDArray[np.float64]:
    """Return a float64 copy, with NaN for ``nodata``."""
    numbers = values.astype(np.float64)
    numbers[numbers == nodata] = np.nan
    return numbers


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _stretched(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values of any range to uint8: ``low`` becomes 0 and ``high`` 255."""
    numbers = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    grey: NDArray[np.uint8] = np.rint((numbers - low) * 255 / (high - low or 1.0)).astype(np.uint8)
    return grey


def _sample(image: Image.Image) -> NDArray[Any]:
    """Return a sample of about ``_SAMPLE_PIXELS`` pixels at most, spread evenly: (n,) or (n, channels)."""
    step = max(1, image.width * image.height // _SAMPLE_PIXELS)
    parts = []
    for top, strip in strips(image):
        values = np.asarray(strip)
        flat = values.reshape(-1, *values.shape[2:])  # (h, w, channels) -> (h * w, channels)
        parts.append(flat[-top * image.width % step :: step].copy())
    return np.concatenate(parts)


def _quantile(values: NDArray[np.generic], share: float) -> float:
    """Return the least value that is not below that share of the values."""
    flat = values.ravel()
    rank = min(flat.size - 1, int(np.ceil(share * flat.size)))
    return float(np.partition(flat, rank)[rank])


def _nodata(tags: object) -> float:
    try:
        return float(tags.get(_GDAL_NODATA))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return float("nan")


# -- colour of 16 bits ------------------------------------------------------------------------------------------------
#
# Pillow keeps the high byte of each sample. With the other byte order in the raw mode, it keeps the low byte.

_OTHER_BYTE = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", *"RGBA")
    for order, other in ("BL", "LB", "NB")
}


def has_16_bit_colour(file: ImageFile.ImageFile) -> bool:
    """Return whether an image that is not yet loaded is RGB or RGBA with 16 bits per sample."""
    return bool(file.tile) and all(_rawmode(tile) in _OTHER_BYTE for tile in file.tile)


def needs_low_bytes(high: Image.Image) -> bool:
    """Return whether a loaded image needs more than its high bytes: it is dark, or a colour counts as transparent."""
    counts = np.array(high.histogram()[: 3 * 256]).reshape(3, 256).sum(axis=0)
    return isinstance(high.info.get("transparency"), tuple) or bool(
        counts[128:].sum() <= (1 - _NEARLY_ALL) * counts.sum()
    )


def load_low_bytes(file: ImageFile.ImageFile) -> None:
    """Load the low bytes of an image with 16-bit colour."""
    file.tile = [_of_other_byte(tile) for tile in file.tile]
    file.load()


def colour_of_8_bits(high: Image.Image, low: Image.Image) -> Image.Image:
    """Convert 16-bit RGB or RGBA, given as the images of its high and low bytes, to 8 bits.

    White is chosen as in ``grey_of_8_bits``. The result is ``high`` itself, modified; it becomes RGBA if a colour
    counts as transparent.
    """
    sample = _wide(_sample(high), _sample(low))
    white = white_of(sample[:, :3])
    opaque = max(white, white_of(sample[:, 3])) if sample.shape[1] == 4 else white
    transparent = high.info.get("transparency")
    alpha = Image.new("L", high.size) if isinstance(transparent, tuple) else None
    for (top, high_strip), (_, low_strip) in zip(strips(high), strips(low), strict=True):
        values = _wide(np.asarray(high_strip), np.asarray(low_strip))
        colour = values[..., :3]
        layers = [(colour >> 8).astype(np.uint8) if white == _WHOLE_WHITES[-1] else scaled(colour, white)]
        if values.shape[2] == 4:
            layers.append(scaled(values[..., 3:], opaque))
        elif alpha is not None:
            hidden = (colour == np.array(transparent, dtype=np.uint16)).all(axis=2)  # (h, w)
            alpha.paste(Image.fromarray(np.where(hidden, np.uint8(0), np.uint8(255))), (0, top))
        high.paste(Image.fromarray(np.concatenate(layers, axis=2)), (0, top))
    if alpha is not None:
        high.putalpha(alpha)
    return high


def plane_of_16_bits(tile: ImageFile._Tile, order: str) -> ImageFile._Tile:
    """Correct a tile of a 16-bit TIFF whose colours are stored in separate, uncompressed planes.

    Pillow takes such a tile for 8 bits.
    """
    if tile.codec_name != "raw" or _rawmode(tile) not in "RGBA" or not isinstance(tile.args, tuple):
        return tile
    return tile._replace(args=(f"{_rawmode(tile)};16{order}", *tile.args[1:]))


def _wide(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Combine the high and low bytes of samples."""
    return high.astype(np.uint16) << np.uint16(8) | low


def _rawmode(tile: ImageFile._Tile) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _of_other_byte(tile: ImageFile._Tile) -> ImageFile._Tile:
    other = _OTHER_BYTE[_rawmode(tile)]
    return tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
