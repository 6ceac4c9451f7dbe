"""Reads pictures with NumPy that Pillow cannot read: unusual TIFF, BMP, Netpbm and PNG files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from searchengine.errors import NotAnImageError
from searchengine.images import depth
from searchengine.images.rgb import swaps_sides, upright

Read = Callable[[], tuple[NDArray[Any], float | None]]


class ArrayFile(ImageFile.ImageFile):
    """A Pillow image file whose size is known at once, and whose pixels are read as an array when it is loaded.

    ``read`` returns (h, w, 1 to 4) samples of any type, grey or RGB, with or without alpha, and the value of white, or
    None to have ``depth.image_of`` choose it.
    """

    def __init__(
        self,
        format_: str,
        size: tuple[int, int],
        read: Read,
        info: Mapping[str | tuple[int, int], Any] | None = None,
        orientation: int = 1,
    ) -> None:
        self._read: Read | None = read
        self._orientation = orientation
        self._header = format_, size[::-1] if swaps_sides(orientation) else size, dict(info or {})
        super().__init__(io.BytesIO())

    def _open(self) -> None:
        self.format, self._size, self.info = self._header
        self._mode = "RGB"

    def load(self) -> Any:
        """Read the pixels on the first call."""
        if self._read is not None:
            image = upright(depth.image_of(*self._read()), self._orientation)
            self.im, self._mode, self._read = image.im, image.mode, None
        return Image.Image.load(self)


# -- TIFF -------------------------------------------------------------------------------------------------------------

_COMPLEX = "c"
_BLACK_IS_ZERO, _WHITE_IS_ZERO = 1, 0  # photometric interpretations of grey


def tiff(data: bytes, description: str, orientation: int) -> ArrayFile:
    """Open the first page of a TIFF with any kind of samples. If it has more than four bands, the first three are RGB.

    Needs the package tifffile, and imagecodecs for most kinds of compression.
    """
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise NotAnImageError(
            f'This TIFF image has {description}. To read it: pip install "searchengine[formats]". Or save it with 8 or '
            "16 bits a sample, as grey or RGB."
        ) from error
    page = TiffFile(io.BytesIO(data)).pages.first
    width, height = page.imagewidth, page.imagelength
    if page.dtype is None or page.dtype.kind == _COMPLEX or page.imagedepth != 1:
        raise NotAnImageError(f"This TIFF image has {description}, which is not a picture. Save it as grey or RGB.")

    def read() -> tuple[NDArray[Any], float | None]:
        samples: NDArray[Any] = page.asarray()
        if page.axes.startswith("S"):  # (bands, h, w)
            samples = np.moveaxis(samples, 0, -1)
        samples = samples.reshape(height, width, -1)
        bands = samples.shape[2]
        if page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and bands == 2 and not page.extrasamples:
            bands = 1
        if page.photometric == _WHITE_IS_ZERO and samples.dtype.kind == "u":
            samples = np.iinfo(samples.dtype).max - samples
        return samples[..., : bands if bands <= 2 else 3], None

    return ArrayFile("TIFF", (width, height), read, {"icc_profile": page.iccprofile}, orientation)


# -- Netpbm: PPM and PGM of more than 8 bits, PAM, and PFM -------------------------------------------------------------

_TOKEN = re.compile(rb"(?:\s|#[^\n]*\n)*([^\s#]+)")
_PAM_HEADER = re.compile(rb"P7\s.*?ENDHDR[^\n]*\n", re.DOTALL)


def netpbm(data: bytes) -> ArrayFile | None:
    """Open a file that Pillow does not read well; None for other files."""
    if data.startswith(b"P7"):
        return _pam(data)
    header, at = [], 0
    for _ in range(4):
        token = _TOKEN.match(data, at)
        if token is None:
            return None
        header.append(token[1])
        at = token.end()
    at += 1  # one whitespace character
    if header[0] == b"PF":
        scale = float(header[3])
        dtype = np.dtype("<f4" if scale < 0 else ">f4")
        return _samples(memoryview(data)[at:], (int(header[1]), int(header[2]), 3), dtype, None, upside_down=True)
    if header[0] in (b"P5", b"P6") and int(header[3]) > 255:
        bands = 1 if header[0] == b"P5" else 3
        shape = (int(header[1]), int(header[2]), bands)
        return _samples(memoryview(data)[at:], shape, np.dtype(">u2"), int(header[3]))
    return None


def _pam(data: bytes) -> ArrayFile:
    header = _PAM_HEADER.match(data[: 2**16])
    if header is None:
        raise ValueError("its header has no end")
    lines = (line.split(None, 1) for line in header[0].splitlines() if not line.startswith(b"#"))
    values = {line[0]: line[1] for line in lines if len(line) == 2}
    width, height, bands, white = (int(values[name]) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    if not (bands > 0 and 0 < white < 2**16):
        raise ValueError("its header makes no sense")
    dtype = np.dtype("u1" if white < 256 else ">u2")
    return _samples(memoryview(data)[header.end() :], (width, height, bands), dtype, white)


def _samples(
    data: memoryview, shape: tuple[int, int, int], dtype: np.dtype[Any], white: int | None, *, upside_down: bool = False
) -> ArrayFile:
    """Open consecutive samples, shape (width, height, bands). If they may use all 16 bits, the data choose white."""
    width, height, bands = shape
    if min(shape) < 1:
        raise ValueError("its header makes no sense")

    def read() -> tuple[NDArray[Any], float | None]:
        samples = np.frombuffer(data, dtype, width * height * bands).reshape(height, width, bands)
        samples = samples[::-1] if upside_down else samples
        return samples[..., :4], None if white in (255, 2**16 - 1) else white

    return ArrayFile("PPM", (width, height), read)


# -- BMP with any masks -----------------------------------------------------------------------------------------------

_BIT_FIELDS, _ALPHA_BIT_FIELDS = 3, 6


def bmp(data: bytes) -> ArrayFile | None:
    """Open a BMP of 16 or 32 bits with masks for red, green and blue; None for other files."""

    def number(at: int, size: int = 4, *, signed: bool = False) -> int:
        return int.from_bytes(data[at : at + size], "little", signed=signed)

    start, header, width, height = number(10), number(14), number(18), number(22, signed=True)
    bits, compression = number(28, 2), number(30)
    masks = [number(54 + 4 * i) for i in range(4 if header >= 56 or compression == _ALPHA_BIT_FIELDS else 3)]
    if compression not in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) or bits not in (16, 32) or not all(masks[:3]):
        return None
    words = (width * bits + 31) // 32 * 32 // bits  # per row

    def read() -> tuple[NDArray[Any], float | None]:
        dtype = np.dtype(f"<u{bits // 8}")
        values = np.frombuffer(data, dtype, words * abs(height), start).reshape(abs(height), words)[:, :width]
        channels = [_under_mask(values, mask) for mask in masks if mask]
        return np.stack(channels, axis=2)[:: -1 if height > 0 else 1], 255

    return ArrayFile("BMP", (width, abs(height)), read)


def _under_mask(values: NDArray[Any], mask: int) -> NDArray[np.uint8]:
    """Return the bits under a mask, scaled to 0 to 255."""
    lowest = (mask & -mask).bit_length() - 1
    channel = (values & mask).astype(np.uint32) >> lowest
    scaled: NDArray[np.uint8] = np.rint(channel * (255 / (mask >> lowest))).astype(np.uint8)
    return scaled


# -- 16-bit PNG, grey with alpha --------------------------------------------------------------------------------------


def grey_and_alpha(file: ImageFile.ImageFile) -> ArrayFile:
    """Read a PNG as four bytes per pixel, because Pillow would keep only the high bytes."""
    file._mode = "RGBA"
    file.tile = [tile._replace(args="RGBA") for tile in file.tile]

    def read() -> tuple[NDArray[Any], float | None]:
        file.load()
        return np.asarray(file).view(">u2"), None

    return ArrayFile("PNG", file.size, read, file.info)
