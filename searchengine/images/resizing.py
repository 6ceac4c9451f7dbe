"""Pictures in other sizes: for people, and for networks as each was trained on them."""

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
    """How a picture is brought to the size and the proportions that a network takes.

    ``crop`` cuts both sides to the proportions; otherwise the picture is distorted. Without ``antialias`` a large
    picture is not smoothed before it is sampled, as for some published models. ``exact`` keeps the resized values as
    float32; otherwise they are rounded to 8 bits.
    """

    filter: Filter = "bicubic"
    antialias: bool = True
    crop: bool = False
    exact: bool = False

    def __str__(self) -> str:
        return " ".join([self.filter, *(word for word in _CHOICES if getattr(self, word))])

    @classmethod
    def parse(cls, text: str) -> Resizing:
        """The inverse of ``str``; ValueError."""
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
    """Resize an (h, w, 3) uint8 image, or a part of it, to ``size``, (height, width): float32 where that is ``exact``.

    Returns a new array even where the size is already right. QueryError where the part is less than a pixel.
    """
    if part is None and pixels.shape[:2] == tuple(size):
        return pixels.astype(np.float32 if how.exact else np.uint8)
    image = Image.fromarray(pixels)
    return resized_exactly(image, size, part, how) if how.exact else np.array(resized(image, size, part, how))


def resized(image: Image.Image, size: tuple[int, int], part: Part | None, how: Resizing = WHOLE) -> Image.Image:
    """An RGB image, or a part of it, of the size (height, width), rounded to 8 bits; QueryError as ``resize``."""
    image, box = _framed(image, size, part, how)
    if how.antialias:
        return image.resize((size[1], size[0]), _PILLOW[how.filter], box)
    return Image.fromarray(np.rint(_sampled(image, size, box, how.filter)).clip(0, 255).astype(np.uint8))


def resized_exactly(
    image: Image.Image, size: tuple[int, int], part: Part | None, how: Resizing = WHOLE
) -> NDArray[np.float32]:
    """The same, (height, width, 3) float32. Nothing is rounded, nor cut off at 0 and 255, where bicubic overshoots."""
    image, box = _framed(image, size, part, how)
    if not how.antialias:
        return _sampled(image, size, box, how.filter)
    left, top, right, bottom = box
    # (h, w, 3) -> (3, h, width), strip by strip, since a large image takes four times the memory as floats
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
    """An image, and the box of it that is to be resized: all of it, or a part, in the proportions that are wanted."""
    box: Box = (0, 0, image.width, image.height)
    if part is not None:
        left, top, width, height = part
        right, bottom = min(left + width, 1.0) * image.width, min(top + height, 1.0) * image.height
        box = left * image.width, top * image.height, right, bottom
        if min(box[2] - box[0], box[3] - box[1]) < 1:
            raise QueryError("The box is less than a pixel of this picture wide or high. Draw a larger one.")
    if how.crop:
        image = image.crop(_middle(box, size))
        box = 0, 0, image.width, image.height
    return image, box


def _middle(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle of a box in the proportions of (height, width), in whole pixels, as in ``keras.layers.Resizing``."""
    left, top, right, bottom = map(round, box)
    width, height = right - left, bottom - top
    crop_width = max(1, min(width, int(height * size[1] / size[0])))
    crop_height = max(1, min(height, int(width * size[0] / size[1])))
    left, top = left + (width - crop_width) // 2, top + (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _sampled(image: Image.Image, size: tuple[int, int], box: Box, filter: Filter) -> NDArray[np.float32]:
    """(height, width, 3): each pixel from its four or two nearest in either direction, as TensorFlow samples without
    antialiasing.
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
    """Which of ``limit`` pixels make each of ``count``, and their weights: (count, 2 or 4) each.

    The bicubic kernel is that of Keys with a = -1/2. Pixels outside the picture have no weight.
    """
    places = start + (np.arange(count) + 0.5) * (end - start) / count - 0.5
    reach = 2 if filter == "bicubic" else 1
    indices = np.floor(places).astype(np.intp)[:, None] + np.arange(1 - reach, 1 + reach)
    away = np.abs(places[:, None] - indices)
    if filter == "bilinear":
        weights = 1 - away
    else:
        near = (1.5 * away - 2.5) * away * away + 1
        far = ((-0.5 * away + 2.5) * away - 4) * away + 2
        weights = np.where(away <= 1, near, far)
    weights = np.where((indices < 0) | (indices >= limit), 0.0, weights)
    weights /= weights.sum(axis=1, keepdims=True)
    return indices.clip(0, limit - 1), weights.astype(np.float32)


def _combined(pixels: NDArray[Any], indices: NDArray[np.intp], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m, c) -> (count, m, c) float32: weighted sums of rows."""
    total = np.zeros((len(indices), *pixels.shape[1:]), np.float32)
    for tap in range(indices.shape[1]):
        total += weights[:, tap, None, None] * pixels[indices[:, tap]]
    return total


# -- for people -------------------------------------------------------------------------------------------------------


def within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(width, height) shrunk in proportion to a longer side of at most ``max_side``; at least one pixel each."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A smaller copy, (width, height), for people."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def average_colour(pixels: Pixels) -> str:
    """The mean of (h, w, 3) pixels as ``"#rrggbb"``, exact to one step in 255."""
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    mean = Image.fromarray(pixels).resize((1, 1), Image.Resampling.BOX)
    return "#" + mean.tobytes().hex()
