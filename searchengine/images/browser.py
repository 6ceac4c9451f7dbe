"""Image files in a form that every browser shows."""

from __future__ import annotations

import io

from PIL import Image

from searchengine.errors import NotAnImageError
from searchengine.images.decoding import ImageSource
from searchengine.images.formats import BROWSER_TYPES, HEAD_BYTES, sniff, why_not

THUMBNAIL_QUALITY = 82
FULL_QUALITY = 90
_SRGB = (b"sRGB", "sRGB".encode("utf-16-be"))  # its name in ICC profiles of versions 2 and 4
_JPEG_MAX_SIDE = 65_500  # libjpeg's own limit


def thumbnail(data: bytes, *, max_side: int = 480) -> bytes:
    """A small JPEG of an image file: upright, in proportion, no side above ``max_side`` pixels, never enlarged.

    Raises the errors of ``decode``.
    """
    source = ImageSource(data)
    width, height = _within(source.size, max_side)
    # Twice the size leaves the filter enough to work with, and is no slower to decode.
    image = source.load(at_least=(2 * height, 2 * width))
    width, height = _within(source.size, max_side)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return _as_jpeg(small, THUMBNAIL_QUALITY, source.profile)


def for_browser(data: bytes) -> tuple[bytes, str]:
    """The bytes to send for an image file, and their media type.

    JPEG, PNG, GIF, WebP, AVIF and BMP are sent as they are, undecoded; TIFF and HEIC as a JPEG of the same size.
    Raises NotAnImageError, and for TIFF and HEIC the other errors of ``decode``.
    """
    head = data[:HEAD_BYTES]
    format_ = sniff(head)
    if format_ is None:
        raise NotAnImageError(why_not(head))
    if format_ in BROWSER_TYPES:
        return data, BROWSER_TYPES[format_]
    source = ImageSource(data)
    image = source.load()
    if max(image.size) > _JPEG_MAX_SIDE:
        image = image.resize(_within(image.size, _JPEG_MAX_SIDE), Image.Resampling.BICUBIC)
    return _as_jpeg(image, FULL_QUALITY, source.profile), "image/jpeg"


def _within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(width, height) shrunk to a longer side of at most ``max_side``; at least one pixel each."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _as_jpeg(image: Image.Image, quality: int, profile: bytes | None) -> bytes:
    file = io.BytesIO()
    # Without their profile, photos of a wide gamut look dull; sRGB is what browsers assume anyway.
    kept = None if profile is None or any(name in profile for name in _SRGB) else profile
    image.save(file, "JPEG", quality=quality, icc_profile=kept)
    return file.getvalue()
