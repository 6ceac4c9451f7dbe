"""Image files in a form that every browser shows."""

from __future__ import annotations

import io

from PIL import Image

from searchengine.errors import NotAnImageError
from searchengine.images.colour import to_srgb
from searchengine.images.decoding import ImageSource
from searchengine.images.formats import FORMATS, HEAD_BYTES, sniff, why_not
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


def for_browser(data: bytes) -> tuple[bytes, str]:
    """The bytes to send for an image file, and their media type.

    Files with a media type in ``FORMATS`` are sent as they are, undecoded; the others as a JPEG of the same size, with
    the colour profile of the original. Raises NotAnImageError, and for those the other errors of ``decode``.
    """
    head = data[:HEAD_BYTES]
    format_ = sniff(head)
    if format_ is None:
        raise NotAnImageError(why_not(head))
    media_type = FORMATS[format_].media_type
    if media_type is not None:
        return data, media_type
    return _full_jpeg(data), "image/jpeg"


@isolated
def _full_jpeg(data: bytes) -> bytes:
    source = ImageSource(data)
    image = source.load()
    if max(image.size) > _JPEG_MAX_SIDE:
        image = image.resize(within(image.size, _JPEG_MAX_SIDE), Image.Resampling.BICUBIC)
    return _as_jpeg(image, FULL_QUALITY, source.profile)


def _as_jpeg(image: Image.Image, quality: int, profile: bytes | None) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, icc_profile=profile)
    return file.getvalue()
