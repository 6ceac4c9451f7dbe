"""Decodes image files: bytes -> RGB pixels, upright and bounded. Only here do decoders meet untrusted bytes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from searchengine.compat import pillow_warnings_ignored
from searchengine.errors import DamagedImageError, ImageError, ImageTooLargeError, NotAnImageError
from searchengine.files import read_regular
from searchengine.images import depth
from searchengine.images.formats import FORMATS, HEAD_BYTES, Format, sniff, why_not
from searchengine.images.isolation import (
    MAX_PIXELS,
    isolated,
    limit_decoding,
    refuse_too_many_pieces,
    refuse_too_many_scans,
    too_large,
    without_fill_bytes,
)
from searchengine.images.metadata import exif_orientation
from searchengine.images.opening import OPENERS
from searchengine.images.repair import repaired
from searchengine.images.resizing import WHOLE, Part, Pixels, Resizing, resized, resized_exactly, shrink, within
from searchengine.images.rgb import frame_with_content, profile_of, shows_nothing, swaps_sides, to_rgb, to_srgb, upright

# Increment this whenever a change decodes other files, or decodes files to other pixels. Skipped files are then tried
# again, renditions are redrawn, and runs on older indexes report that some images are now decoded differently.
DECODING = 3

_REDUCED_BY = 4  # a JPEG may have this many times more pixels, because it can be decoded at a reduced size


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels, the size and the format of one image.

    ``pixels`` is (h, w, 3) RGB, upright, read-only, possibly at reduced size; uint8 unless resized exactly. ``width``
    and ``height`` are the upright size of the original in pixels. ``format`` is a name that ``sniff`` returns:
    ``"JPEG"``, ``"PNG"``, ... ``preview`` is a small copy in proportion, uint8, if requested.
    """

    pixels: Pixels
    width: int
    height: int
    format: str
    preview: NDArray[np.uint8] | None = None


@isolated
def decode(
    data: bytes,
    *,
    at_least: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    part: Part | None = None,
    how: Resizing = WHOLE,
    preview: int | None = None,
    max_pixels: int = MAX_PIXELS,
    profiles: bool = True,
) -> DecodedImage:
    """Decode one image file: its main picture, or the first frame with content of an animation, upright.

    Thread-safe: decoders release the GIL, or run in a separate process (see ``isolation``).

    Args:
        data: the content of the file.
        at_least: (height, width). A JPEG may be decoded at a half, a quarter or an eighth of its size as long as the
            result is no smaller than this. None decodes in full. A JPEG of more than ``max_pixels`` is always decoded
            at a reduced size.
        size: (height, width). The pixels, or those of a ``part``, are resized as by ``resize``, but faster.
        part: the part of the image to resize.
        how: the way to resize.
        preview: the longest side of a small copy.
        max_pixels: the most pixels that the image may have; a JPEG may have four times as many.
        profiles: apply colour profiles. If False, pixel values are taken as stored.

    Raises:
        NotAnImageError: the content is not an image in a format that can be read.
        ImageTooLargeError: the header announces too many pixels. Nothing is decoded.
        DamagedImageError: the image is cut short or broken.
    """
    source = ImageSource(data, max_pixels=max_pixels, profiles=profiles)
    if part is not None and at_least is not None:
        at_least = math.ceil(at_least[0] / part[3]), math.ceil(at_least[1] / part[2])
    image = source.load(at_least)
    small = None
    if preview is not None:
        small = np.asarray(to_srgb(shrink(image, within(image.size, preview)), source.profile))
    width, height = source.size
    if size is not None and how.exact:
        exact = resized_exactly(to_srgb(image, source.profile) if profiles else image, size, part, how)
        exact.setflags(write=False)
        return DecodedImage(exact, width, height, source.format, small)
    if size is not None:
        image = resized(image, size, part, how)
    if profiles:
        image = to_srgb(image, source.profile)
    return DecodedImage(_as_array(image), width, height, source.format, small)


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Convert to (h, w, 3) uint8, read-only. NumPy's own conversion would hold a large image three times."""
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top, strip in depth.strips(image):
        pixels[top : top + strip.height] = np.asarray(strip)
    pixels.setflags(write=False)
    return pixels


def read_image(file: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file. Raises ImageError if it cannot be read."""
    try:
        return read_regular(file)
    except (OSError, ValueError) as error:  # ValueError for impossible names
        raise ImageError(f"{os.fspath(file)} cannot be read: {getattr(error, 'strerror', error)}.") from error


# -- copies that every browser shows -----------------------------------------------------------------------------------

THUMBNAIL_QUALITY = 82
FULL_QUALITY = 90
_JPEG_MAX_SIDE = 65_500  # libjpeg's own limit


@isolated
def thumbnail(data: bytes, *, max_side: int = 480) -> bytes:
    """Make a small JPEG of an image file: upright, in proportion, no side above ``max_side`` pixels, never enlarged.

    Raises the errors of ``decode``.
    """
    source = ImageSource(data)
    width, height = within(source.size, max_side)
    # Twice the size gives the filter enough to work with, and is no slower to decode.
    image = source.load(at_least=(2 * height, 2 * width))
    small = to_srgb(shrink(image, within(source.size, max_side)), source.profile)
    return _as_jpeg(small, THUMBNAIL_QUALITY, None)


@isolated
def full_jpeg(data: bytes) -> bytes:
    """Make a JPEG of the same size, upright, with the original colour profile. Raises the errors of ``decode``."""
    source = ImageSource(data)
    image = source.load()
    if max(image.size) > _JPEG_MAX_SIDE:
        image = image.resize(within(image.size, _JPEG_MAX_SIDE), Image.Resampling.BICUBIC)
    return _as_jpeg(image, FULL_QUALITY, source.profile)


def _as_jpeg(image: Image.Image, quality: int, profile: bytes | None) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, icc_profile=profile)
    return file.getvalue()


# -- from the header to pixels -----------------------------------------------------------------------------------------

# Pillow modes whose profiles must be applied before the conversion to RGB, with the colour space of the profiles.
_INK_OR_GREY = {"L": "L", "LA": "L", "I;16": "L", "I;16B": "L", "CMYK": "CMYK"}


class ImageSource:
    """An image whose header has been read, so that its size is known before memory is spent on its pixels.

    ``format`` is a name that ``sniff`` returns; "RAW" includes camera raw files that are TIFF inside. ``size`` is the
    upright (width, height) of the original in pixels. ``profile`` is the colour profile of the pixels that ``load``
    returns, or None if they are sRGB. Grey and CMYK profiles do not survive the conversion to RGB, so ``load`` applies
    them, unless ``profiles`` is False.

    Raises NotAnImageError, DamagedImageError and ImageTooLargeError.
    """

    def __init__(self, data: bytes, *, max_pixels: int = MAX_PIXELS, profiles: bool = True) -> None:
        format_ = sniff(data[:HEAD_BYTES])
        if format_ is None:
            raise NotAnImageError(why_not(data[:HEAD_BYTES]))
        self.format = format_
        refuse_too_many_pieces(data, format_)
        self._data = without_fill_bytes(data) if format_ == "JPEG" else data
        self._max_pixels = max_pixels
        self._profiles = profiles
        limit_decoding(len(data), max_pixels if FORMATS[format_].is_decoded_at_once else 0, max_pixels)
        with _translated_errors(self.format):
            try:
                self._file = self._open()
            except (ImageError, MemoryError):
                raise
            except Exception:
                self._file = self._repaired(pixels=False)
            self._orientation = self._read_orientation()
        if format_ == "TIFF" and self._file.format == "JPEG":
            self.format = "RAW"
        self.size = self._upright_size()
        self.profile = None if self._file.mode == "CMYK" else profile_of(self._file, "RGB")

    def load(self, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Return the pixels, RGB and upright. Can be called only once: it releases the file.

        A JPEG may be reduced by 2, 4 or 8, but not below ``at_least``, (height, width).
        """
        with _translated_errors(self.format):
            try:
                image = self._load(at_least)
            except (ImageError, MemoryError):
                raise
            except Exception:
                self._file = self._repaired(pixels=True)
                image = self._load(at_least)
            image = upright(image, self._orientation)
        del self._file, self._data
        return image

    def _open(self) -> ImageFile.ImageFile:
        file = OPENERS[self.format](self._data)
        width, height = file.size
        allowed = self._max_pixels * (_REDUCED_BY if file.format == "JPEG" else 1)
        if width * height > allowed:
            raise ImageTooLargeError(
                f"This {self.format} image has {width} x {height} pixels, {width * height / 1e6:.0f} million; "
                f"{allowed / 1e6:.0f} million are allowed. Use a smaller copy."
            )
        if file.format == "JPEG":
            refuse_too_many_scans(self._data, width * height)
        limit_decoding(len(self._data), min(width * height, self._max_pixels), self._max_pixels)
        return file

    def _repaired(self, *, pixels: bool) -> ImageFile.ImageFile:
        """Open a repaired copy of the file. If there is none, raise the exception that is being handled."""
        data = repaired(self._data, self.format, self._max_pixels, pixels=pixels)
        if data is None:
            raise
        self._data = data
        return self._open()

    def _load(self, at_least: tuple[int, int] | None) -> Image.Image:
        """Return the pixels as RGB, not yet upright."""
        file = self._file
        if file.format == "JPEG":
            self._reduce(at_least)
            file.load()
            return self._from_ink_or_grey() or to_rgb(file)
        wide = depth.has_16_bit_colour(file)
        file.load()
        self.size = self._upright_size()  # loading may change it: HEIC, and BMP files stored upside down
        if wide and depth.needs_low_bytes(file):
            low = self._open()
            depth.load_low_bytes(low)
            colour = depth.colour_of_8_bits(file, low)
            del low  # to_rgb may make another image of that size
            return to_rgb(colour)
        if FORMATS[self.format].has_false_alpha and shows_nothing(file):
            return file.convert("RGB")  # opaque images are often stored with an alpha of zero
        return self._from_ink_or_grey() or (frame_with_content(file) if self._inner.is_animated else to_rgb(file))

    def _reduce(self, at_least: tuple[int, int] | None) -> None:
        """Have a JPEG decoded at a reduced size, if that is allowed or necessary."""
        width, height = self._file.size
        if at_least is not None:
            least_height, least_width = reversed(at_least) if swaps_sides(self._orientation) else at_least
        elif width * height > self._max_pixels:
            least_height, least_width = height // 2, width // 2
        else:
            return
        self._file.draft(None, (max(least_width, 1), max(least_height, 1)))

    def _upright_size(self) -> tuple[int, int]:
        width, height = self._file.size
        return (height, width) if swaps_sides(self._orientation) else (width, height)

    def _read_orientation(self) -> int:
        return exif_orientation(self._file.info.get("exif")) if self._inner.is_turned_by_exif else 1

    @property
    def _inner(self) -> Format:
        """The format of the picture itself, which may be inside a camera raw file or an icon."""
        return FORMATS.get(self._file.format or "", FORMATS[self.format])

    def _from_ink_or_grey(self) -> Image.Image | None:
        """Convert CMYK or grey with a profile to sRGB; None for other images."""
        file = self._file
        space = _INK_OR_GREY.get(file.mode) if self._profiles else None
        profile = None if space is None else profile_of(file, space)
        if profile is None:
            return None
        image = depth.grey_of_8_bits(file) if file.mode.startswith("I") else file
        if file.mode == "L" and file.has_transparency_data:
            image = file.convert("LA")
        return to_rgb(to_srgb(image, profile))


@contextmanager
def _translated_errors(format_: str) -> Iterator[None]:
    """Translate whatever a decoder raises into an ImageError, and keep its cause."""
    try:
        with pillow_warnings_ignored():
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise too_large(format_) from error
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedImageError(
            f"This {format_} image is damaged, cut short or of an unusual kind ({why}). Try a fresh copy."
        ) from error
