"""Bytes of an image file -> pixels: RGB, upright, bounded. The only place where decoders meet bytes we do not trust."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from searchengine.compat import pillow_warnings_ignored
from searchengine.errors import DamagedImageError, ImageError, ImageTooLargeError, NotAnImageError
from searchengine.files import read_regular
from searchengine.images.formats import HEAD_BYTES, sniff, why_not
from searchengine.images.isolation import MAX_PIXELS, isolated, refuse_endless, too_large
from searchengine.images.rgb import exif_orientation, swaps_sides, to_rgb, upright

_STRIP_PIXELS = 2**20  # converted at a time


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of one image, and what its file says about it.

    ``pixels`` is (h, w, 3) uint8 RGB, upright, read-only, possibly at reduced size; ``width`` and ``height`` are the
    upright size of the original in pixels; ``format`` is one of the names of ``sniff``: ``"JPEG"``, ``"PNG"``, ...;
    ``preview`` is a small copy in proportion, like ``pixels``, if one was asked for.
    """

    pixels: NDArray[np.uint8]
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
    preview: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> DecodedImage:
    """Decode one image file: its first frame, turned upright by its EXIF orientation.

    ``at_least``, (height, width), allows a JPEG to be decoded at a half, a quarter or an eighth of its size as long
    as the result is no smaller than that; None decodes in full. With ``size``, (height, width), the pixels are resized
    as by ``resize``, faster than with two calls. ``preview`` is the longest side of a small copy. Thread-safe; the
    decoders release the GIL, or run in a process of their own: see ``isolation``.

    Raises NotAnImageError if the content is not an image in a format that can be read, ImageTooLargeError if the
    header announces more than ``max_pixels`` (before anything is decoded), DamagedImageError if it is cut short or
    broken.
    """
    source = ImageSource(data, max_pixels=max_pixels)
    image = source.load(at_least)
    small = None if preview is None else np.asarray(shrink(image, within(image.size, preview)))
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    width, height = source.size
    return DecodedImage(_as_array(image), width, height, source.format, small)


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    """(h, w, 3) uint8, read-only. NumPy's own conversion holds a large image three times."""
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        pixels[top : top + rows] = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
    pixels.setflags(write=False)
    return pixels


def read_image(file: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, not decoded. Raises ImageError if it cannot be read."""
    try:
        return read_regular(file)
    except OSError as error:
        raise ImageError(f"{os.fspath(file)} cannot be read: {error.strerror}.") from error


def resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a whole (h, w, 3) uint8 image to ``size``, (height, width), by Pillow's bicubic filter.

    Returns a new array even where the size is already right.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels.copy()
    height, width = size
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(width, height) shrunk in proportion to a longer side of at most ``max_side``; at least one pixel each."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image for people to look at, of a smaller (width, height)."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def average_colour(pixels: NDArray[np.uint8]) -> str:
    """The mean of (h, w, 3) uint8 pixels as ``"#rrggbb"``, exact to one step in 255."""
    mean = Image.fromarray(pixels).resize((1, 1), Image.Resampling.BOX)
    return "#" + mean.tobytes().hex()


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """Without Pillow's parsing of all EXIF data for the dots per inch, which is not used here."""

    def _read_dpi_from_exif(self) -> None:
        pass


# The classes themselves, not PIL.Image.open: the format is known by now, and open() warns about large images at a limit
# of its own, which can only be changed through a global variable.
_FILES: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}


# "This item describes that image": a reference box in a HEIC, a size below 2**19 and its name. Metadata is not needed
# here, and it crashes pi-heif 1.4 (a segmentation fault) where a damaged file gives it a name that is not UTF-8.
_DESCRIBES = re.compile(rb"(\0[\0-\7]..)cdsc", re.DOTALL)


class ImageSource:
    """An image of which only the header has been read, so that its size is known before memory is spent on it.

    ``format`` is one of the names of ``sniff``; ``size`` is the upright (width, height) of the original in pixels;
    ``profile`` is the embedded colour profile if it applies to the RGB pixels of ``load``, else None.

    Raises NotAnImageError, DamagedImageError and ImageTooLargeError.
    """

    def __init__(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
        format_ = sniff(data[:HEAD_BYTES])
        if format_ is None:
            raise NotAnImageError(why_not(data[:HEAD_BYTES]))
        self.format = format_
        with _translated_errors(self.format):
            self._file = _open(data, self.format)
            width, height = self._file.size
            if width * height > max_pixels:
                raise ImageTooLargeError(
                    f"This {format_} image has {width} x {height} pixels; {max_pixels} are allowed. Use a smaller copy."
                )
            if format_ == "JPEG":
                refuse_endless(data, width * height)
            self._orientation = self._read_orientation()
        self.size = (height, width) if swaps_sides(self._orientation) else (width, height)
        self.profile = self._rgb_profile()

    def load(self, at_least: tuple[int, int] | None = None) -> Image.Image:
        """The pixels, RGB and upright; a JPEG may be reduced by 2, 4 or 8, but not below ``at_least``, (height, width).

        Can be called once: the source then releases the file.
        """
        with _translated_errors(self.format):
            if at_least is not None and self.format == "JPEG":
                height, width = reversed(at_least) if swaps_sides(self._orientation) else at_least
                self._file.draft(None, (max(width, 1), max(height, 1)))
                self._file.load()
            else:
                self._file.load()
                self._orientation = self._read_orientation()  # a PNG may store it after its pixels
                width, height = self._file.size  # of a HEIC known only now
                self.size = (height, width) if swaps_sides(self._orientation) else (width, height)
            image = upright(to_rgb(self._file), self._orientation)
        del self._file
        return image

    def _read_orientation(self) -> int:
        # Pillow turns a TIFF upright as it is loaded, and libheif a HEIC.
        if self.format in ("TIFF", "HEIC"):
            return 1
        return exif_orientation(self._file.info.get("exif"))

    def _rgb_profile(self) -> bytes | None:
        profile = self._file.info.get("icc_profile")
        if not isinstance(profile, bytes) or self._file.mode not in ("RGB", "RGBA"):
            return None
        return profile if profile[16:20] == b"RGB " else None


def _open(data: bytes, format_: str) -> ImageFile.ImageFile:
    """Read the header only. Raises whatever Pillow raises."""
    if format_ == "HEIC":
        from pi_heif import HeifImageFile  # the class alone: nothing is registered with Pillow

        file: ImageFile.ImageFile = HeifImageFile(io.BytesIO(_DESCRIBES.sub(rb"\1skip", data)))
        return file
    try:
        return _FILES[format_](io.BytesIO(data))
    except ValueError:
        # libavif rejects an image for a broken EXIF block. Under another name the block is ignored.
        if format_ != "AVIF" or b"Exif" not in data:
            raise
        return _FILES[format_](io.BytesIO(data.replace(b"Exif", b"skip")))


@contextmanager
def _translated_errors(format_: str) -> Iterator[None]:
    """Translate whatever a decoder raises into an ImageError, with its cause kept."""
    try:
        with pillow_warnings_ignored():
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise too_large(format_) from error
    except Exception as error:
        why = str(error)[:200] or type(error).__name__
        raise DamagedImageError(
            f"This {format_} image is damaged, cut short or of an unusual kind ({why}). Try a fresh copy."
        ) from error
