"""Colours by an embedded profile -> sRGB, which is what models are trained on and what browsers assume.

Most photos are sRGB already; those of many phones are Display P3, some of cameras Adobe RGB, and of print shops CMYK.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms

from searchengine.images import colour_numbers

_PROFILE_BYTES = 4 * 2**20  # those of printing presses have 3 MB
_ALIKE = 4  # steps of 255: no one sees such a difference, and the pixels stay as they are
_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_INTENT = ImageCms.Intent.PERCEPTUAL  # as in browsers; of a profile without tables it is relative colorimetric


def profile_of(image: Image.Image, mode: str) -> bytes | None:
    """The embedded profile of an image if it is one for ``mode``, "L", "RGB" or "CMYK", and changes its colours."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or profile[16:20] != _SPACES[mode] or len(profile) > _PROFILE_BYTES:
        return None
    return None if _transform(profile, mode) is None else profile


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image by its profile -> sRGB: of mode L, RGB or CMYK -> RGB, of mode LA -> LA.

    Without a profile, it is returned as it is.
    """
    transform = None if profile is None else _transform(profile, image.mode.removesuffix("A"))
    if transform is None:
        return image
    if image.mode in ("L", "LA"):
        greys = transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None])).getchannel("R").tobytes()
        return image.point([*greys, *range(256)]) if image.mode == "LA" else image.point(list(greys)).convert("RGB")
    return transform.apply(_without_black(image) if image.mode == "CMYK" else image)


def _without_black(image: Image.Image) -> Image.Image:
    """CMYK whose black is mixed from the other inks before the profile is asked, as browsers do it."""
    *inks, black = image.split()
    mixed = [ImageChops.screen(ink, black) for ink in inks]
    return Image.merge("CMYK", (*mixed, Image.new("L", image.size)))


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None of a profile that is broken, or that hardly differs from sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(io.BytesIO(colour_numbers.srgb()))
        transform = ImageCms.ImageCmsTransform(source, srgb, mode, "RGB", _INTENT)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "CMYK":
        return transform
    if mode == "L":
        sample = Image.fromarray(np.repeat(steps, 3).reshape(1, -1, 3))
        converted = transform.apply(Image.fromarray(steps[None]))
    else:
        sample = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))
        converted = transform.apply(sample)
    difference = np.abs(np.asarray(converted).astype(int) - np.asarray(sample))
    return None if difference.max() <= _ALIKE else transform
