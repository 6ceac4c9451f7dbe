"""Bytes of an image file -> pixels: RGB, upright, bounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.images.opening import MAX_PIXELS, ImageSource


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of one image, and what its file said of it.

    ``pixels`` is (h, w, 3) uint8 RGB, upright, read-only, and maybe a reduced copy; ``width`` and ``height`` are the
    upright size of the original in pixels; ``format`` is as ``sniff`` names it: ``"JPEG"``, ``"PNG"``, ...
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    format: str


def decode(
    data: bytes,
    *,
    at_least: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> DecodedImage:
    """Decode one image file: the first frame, turned upright by its EXIF orientation, as a person sees it.

    ``at_least``, (height, width), allows a JPEG to be decoded at a half, a quarter or an eighth of its size, as long
    as it stays no smaller than that; None decodes in full. With ``size``, (height, width), the pixels come as
    ``resize`` makes them, in less time than by two calls. Thread-safe; the decoders let go of the GIL.

    Raises NotAnImageError if the content is no image that we read, ImageTooLargeError if the header announces more
    than ``max_pixels`` (before anything is decoded), DamagedImageError if it is cut short or broken.
    """
    source = ImageSource(data, max_pixels=max_pixels)
    image = source.load(at_least)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    width, height = source.size
    return DecodedImage(np.asarray(image), width, height, source.format)


def resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole (h, w, 3) uint8 image brought to ``size``, (height, width), by Pillow's bicubic filter.

    A fresh array, the input untouched, also where the size is the same already.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels.copy()
    height, width = size
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def average_colour(pixels: NDArray[np.uint8]) -> str:
    """The mean of (h, w, 3) uint8 pixels as ``"#rrggbb"``, right to one step of 255."""
    mean = Image.fromarray(pixels).resize((1, 1), Image.Resampling.BOX)
    return "#" + mean.tobytes().hex()
