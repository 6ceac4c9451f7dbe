"""Image files in a form that every browser shows."""

from __future__ import annotations

import io

from PIL import Image

from searchengine.images.colour import to_srgb
from searchengine.images.decoding import ImageSource
from searchengine.images.isolation import isolated
from searchengine.images.resizing import shrink, within

THUMBNAIL_QUALITY = 82
FULL_QUALITY = 90
_JPEG_MAX_SIDE = 65_500  # libjpeg's own limit


@isolated
def thumbnail(data: bytes, *, max_side: int = 480) -> bytes:
    """A small JPEG of an image file: upright, in proportion, no side above ``max_side`` pixels, never enlarged.

    Raises the errors of ``decode``.
    """
    source = ImageSource(data)
    width, height = within(source.size, max_side)
    # Twice the size leaves the filter enough to work with, and is no slower to decode.
    image = source.load(at_least=(2 * height, 2 * width))
    small = to_srgb(shrink(image, within(source.size, max_side)), source.profile)
    return _as_jpeg(small, THUMBNAIL_QUALITY, None)


@isolated
def full_jpeg(data: bytes) -> bytes:
    """A JPEG of the same size, upright, with the colour profile of the original. Raises the errors of ``decode``."""
    source = ImageSource(data)
    image = source.load()
    if max(image.size) > _JPEG_MAX_SIDE:
        image = image.resize(within(image.size, _JPEG_MAX_SIDE), Image.Resampling.BICUBIC)
    return _as_jpeg(image, FULL_QUALITY, source.profile)


def _as_jpeg(image: Image.Image, quality: int, profile: bytes | None) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, icc_profile=profile)
    return file.getvalue()
