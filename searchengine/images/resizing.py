"""Resizes pictures: for people, and for networks in the way that each was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.errors import QueryError
from searchengine.images.depth import strips

Pixels: TypeAlias = "NDArray[np.uint8 | np.float32]"
"""(h, w, 3) RGB of 0 to 255."""
Part: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height of a part of a picture, as fractions of the upright picture."""
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Filter: TypeAlias = Literal["bicubic", "bilinear"]
FILTERS: tuple[Filter, ...] = get_args(Filter)
_CHOICES = ("antialias", "crop", "exact")
_PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Resizing:
    """The way to bring a picture to the size and the proportions of a network's input.

    ``crop`` cuts the picture to the proportions instead of distorting it. Without ``antialias``, a large picture is not
    smoothed before it is sampled, as for some published models. ``exact`` keeps the resized values as float32 instead
    of rounding them to 8 bits.
    """

    filter: Filter = "bicubic"
    antialias: bool = True
    crop: bool = False
    exact: bool = False

    def __str__(self) -> str:
        return " ".join([self.filter, *(word for word in _CHOICES if getattr(self, word))])

    @classmethod
    def parse(cls, text: str) -> Resizing:
        """Return the inverse of ``str``. Raises ValueError."""
        first, *others = text.split()
        for known in FILTERS:
            if known == first and set(others) <= set(_CHOICES):
                return cls(known, **{word: word in others for word in _CHOICES})
        raise ValueError(f"{text!r} is not a way to resize a picture")


WHOLE = Resizing()


@overload
def resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]: ...
@overload
def resize(
    pixels: NDArray[np.uint8], size: tuple[int, int], part: Part | None = None, how: Resizing = WHOLE
) -> Pixels: ...
def resize(pixels: NDArray[np.uint8], size: tuple[int, int], part: Part | None = None, how: Resizing = WHOLE) -> Pixels:
    """Resize an (h, w, 3) uint8 image, or a part of it, to ``size``, (height, width).

    Always returns a new array, float32 if ``how`` is exact. Raises QueryError if the part is less than a pixel.
    """
    if part is None and pixels.shape[:2] == tuple(size):
        return pixels.astype(np.float32 if how.exact else np.uint8)
    image = Image.fromarray(pixels)
    return resized_exactly(image, size, part, how) if how.exact else np.array(resized(image, size, part, how))


def resized(image: Image.Image, size: tuple[int, int], part: Part | None, how: Resizing = WHOLE) -> Image.Image:
    """Resize an RGB image, or a part of it, to (height, width), rounded to 8 bits. Raises QueryError as ``resize``."""
    image, box = _framed(image, size, part, how)
    if how.antialias:
        return image.resize((size[1], size[0]), _PILLOW[how.filter], box)
    return Image.fromarray(np.rint(_sampled(image, size, box, how.filter)).clip(0, 255).astype(np.uint8))


def resized_exactly(
    image: Image.Image, size: tuple[int, int], part: Part | None, how: Resizing = WHOLE
) -> NDArray[np.float32]:
    """Resize to (height, width, 3) float32. Bicubic values are neither rounded nor clipped to 0 to 255."""
    image, box = _framed(image, size, part, how)
    if not how.antialias:
        return _sampled(image, size, box, how.filter)
    left, top, right, bottom = box
    # (h, w, 3) -> (3, h, width), strip by strip, because floats take four times the memory
    narrow = np.empty((3, image.height, size[1]), np.float32)
    for first, strip in strips(image):
        for channel, band in zip(narrow, strip.split(), strict=True):
            row = band.convert("F").resize((size[1], band.height), _PILLOW[how.filter], (left, 0, right, band.height))
            channel[first : first + band.height] = np.asarray(row)
    # (3, h, width) -> (height, width, 3)
    whole = (0, top, size[1], bottom)
    bands = [Image.fromarray(channel).resize((size[1], size[0]), _PILLOW[how.filter], whole) for channel in narrow]
    return np.stack([np.asarray(band) for band in bands], axis=2)


def _framed(image: Image.Image, size: tuple[int, int], part: Part | None, how: Resizing) -> tuple[Image.Image, Box]:
    """Return the image and the box in it to be resized: the whole or a part, cropped to the proportions if wanted."""
    box: Box = (0, 0, image.width, image.height)
    if part is not None:
        left, top, width, height = part
        right, bottom = min(left + width, 1.0) * image.width, min(top + height, 1.0) * image.height
        box = left * image.width, top * image.height, right, bottom
        if min(box[2] - box[0], box[3] - box[1]) < 1:
            raise QueryError("The box is less than a pixel of this picture wide or high. Draw a larger one.")
    if how.crop:
        image = image.crop(_cropped(box, size))
        box = 0, 0, image.width, image.height
    return image, box


def _cropped(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Crop a box to the proportions of (height, width), in whole pixels, as ``keras.layers.Resizing`` does."""
    left, top, right, bottom = map(round, box)
    width, height = right - left, bottom - top
    crop_width = max(1, min(width, int(height * size[1] / size[0])))
    crop_height = max(1, min(height, int(width * size[0] / size[1])))
    left, top = left + (width - crop_width) // 2, top + (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _sampled(image: Image.Image, size: tuple[int, int], box: Box, filter: Filter) -> NDArray[np.float32]:
    """Sample as TensorFlow does without antialiasing -> (height, width, 3).

    Each pixel is interpolated from the nearest four (bicubic) or two (bilinear) in either direction.
    """
    pixels: NDArray[Any] = np.asarray(image)
    left, top, right, bottom = box
    # (h, w, c) -> (height, w, c) -> (height, width, c)
    rows = _combined(pixels, *_taps(top, bottom, size[0], filter, image.height))
    columns = _combined(rows.swapaxes(0, 1), *_taps(left, right, size[1], filter, image.width))
    return np.ascontiguousarray(columns.swapaxes(0, 1))


def _taps(
    start: float, end: float, count: int, filter: Filter, limit: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return which of ``limit`` pixels contribute to each of ``count``, and their weights, both (count, 2 or 4).

    The bicubic kernel is that of Keys with a = -1/2. Pixels outside the picture have no weight.
    """
    positions = start + (np.arange(count) + 0.5) * (end - start) / count - 0.5
    reach = 2 if filter == "bicubic" else 1
    indices = np.floor(positions).astype(np.intp)[:, None] + np.arange(1 - reach, 1 + reach)
    distance = np.abs(positions[:, None] - indices)
    if filter == "bilinear":
        weights = 1 - distance
    else:
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = np.where(distance <= 1, near, far)
    weights = np.where((indices < 0) | (indices >= limit), 0.0, weights)
    weights /= weights.sum(axis=1, keepdims=True)
    return indices.clip(0, limit - 1), weights.astype(np.float32)


def _combined(pixels: NDArray[Any], indices: NDArray[np.intp], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weighted sums of rows: (n, m, c) -> (count, m, c) float32."""
    total = np.zeros((len(indices), *pixels.shape[1:]), np.float32)
    for tap in range(indices.shape[1]):
        total += weights[:, tap, None, None] * pixels[indices[:, tap]]
    return total


# -- for people -------------------------------------------------------------------------------------------------------


def within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Shrink (width, height) in proportion to a longer side of at most ``max_side``; at least one pixel each."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a smaller copy, (width, height), for people."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def average_colour(pixels: Pixels) -> str:
    """Return the mean of (h, w, 3) pixels as ``"#rrggbb"``, exact to one step of 255."""
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    mean = Image.fromarray(pixels).resize((1, 1), Image.Resampling.BOX)
    return "#" + mean.tobytes().hex()
