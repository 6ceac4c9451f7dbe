"""The one place where Pillow and pi-heif meet bytes that we do not trust."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

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

from searchengine.errors import DamagedImageError, ImageError, ImageTooLargeError, NotAnImageError
from searchengine.images.colours import to_rgb
from searchengine.images.orientation import exif_orientation, swaps_sides, upright
from searchengine.images.quiet import quiet
from searchengine.images.sniffing import HEAD_BYTES, sniff, why_not

MAX_PIXELS = 200_000_000  # 600 MB as RGB


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """Pillow parses all of EXIF only to learn the dots per inch, which nobody here asks for."""

    def _read_dpi_from_exif(self) -> None:
        pass


# The classes themselves, not PIL.Image.open: the format is known by now, and open() would warn of large images by a
# limit of its own that only a global variable moves.
_FILES: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}


# "This item describes that image": a reference box in a HEIC, a size below 2**19 and its name. Metadata is of no use
# here, and reading it kills pi-heif 1.4 (a segmentation fault) where a damaged file gives it a name that is not UTF-8.
_DESCRIBES = re.compile(rb"(\0[\0-\7]..)cdsc", re.DOTALL)


class ImageSource:
    """An image of which only the header has been read, so that its size is known before memory is spent on it.

    ``format`` is as ``sniff`` names it; ``size`` is (width, height), upright, in pixels of the original; ``profile`` is
    an embedded colour profile that fits the RGB pixels of ``load``, or None.

    Raises NotAnImageError, DamagedImageError and ImageTooLargeError.
    """

    def __init__(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
        known = sniff(data[:HEAD_BYTES])
        if known is None:
            raise NotAnImageError(why_not(data[:HEAD_BYTES]))
        self.format = known
        with _errors_translated(self.format):
            self._file = _open(data, self.format)
            width, height = self._file.size
            if width * height > max_pixels:
                raise ImageTooLargeError(
                    f"This {known} image has {width} x {height} pixels; {max_pixels} are allowed. Use a smaller copy."
                )
            self._orientation = self._read_orientation()
        self.size = (height, width) if swaps_sides(self._orientation) else (width, height)
        self.profile = self._rgb_profile()

    def load(self, at_least: tuple[int, int] | None = None) -> Image.Image:
        """The pixels, RGB and upright; of a JPEG maybe reduced by 2, 4 or 8, but to no less than (height, width).

        To be called once: the source lets go of the file.
        """
        with _errors_translated(self.format):
            if at_least is not None and self.format == "JPEG":
                height, width = reversed(at_least) if swaps_sides(self._orientation) else at_least
                self._file.draft(None, (max(width, 1), max(height, 1)))
                self._file.load()
            else:
                self._file.load()
                self._orientation = self._read_orientation()  # a PNG may hold it behind its pixels
                width, height = self._file.size  # a HEIC may only now know
                self.size = (height, width) if swaps_sides(self._orientation) else (width, height)
            image = upright(to_rgb(self._file), self._orientation)
        del self._file
        return image

    def _read_orientation(self) -> int:
        # Pillow turns a TIFF, and libheif a HEIC, as they are loaded.
        if self.format in ("TIFF", "HEIC"):
            return 1
        return exif_orientation(self._file.info.get("exif"))

    def _rgb_profile(self) -> bytes | None:
        profile = self._file.info.get("icc_profile")
        if not isinstance(profile, bytes) or self._file.mode not in ("RGB", "RGBA"):
            return None
        return profile if profile[16:20] == b"RGB " else None


def _open(data: bytes, known: str) -> ImageFile.ImageFile:
    """The header only; raises whatever Pillow raises."""
    if known == "HEIC":
        from pi_heif import HeifImageFile  # the class alone: nothing is registered with Pillow

        file: ImageFile.ImageFile = HeifImageFile(io.BytesIO(_DESCRIBES.sub(rb"\1skip", data)))
        return file
    try:
        return _FILES[known](io.BytesIO(data))
    except ValueError:
        # libavif refuses a picture for its EXIF block alone. Under another name the block is not looked at.
        if known != "AVIF" or b"Exif" not in data:
            raise
        return _FILES[known](io.BytesIO(data.replace(b"Exif", b"skip")))


@contextmanager
def _errors_translated(known: str) -> Iterator[None]:
    """Whatever a decoder raises, and they raise all kinds, leaves as one of ours with its cause kept."""
    try:
        with quiet():
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise ImageTooLargeError(f"This {known} image is too large to be decoded here. Use a smaller copy.") from error
    except Exception as error:
        why = str(error)[:200] or type(error).__name__
        raise DamagedImageError(
            f"This {known} image is damaged, cut short or of an unusual kind ({why}). Try a fresh copy."
        ) from error
