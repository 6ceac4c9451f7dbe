"""Opens each format: the bytes of an image file -> a Pillow image whose header has been read, but not its pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcnsImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from searchengine.errors import NotAnImageError
from searchengine.images import arrays, containers, depth
from searchengine.images.formats import NO_PREVIEW, sniff
from searchengine.images.rgb import profile_of_heif, profile_of_png, swaps_sides
from searchengine.processes import is_worker


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """Does not parse all EXIF data for the resolution, which is not needed here."""

    def _read_dpi_from_exif(self) -> None:
        pass


class _WebPFile(WebPImagePlugin.WebPImageFile):
    """Releases libwebp's decoder, which holds the canvas twice, before Pillow makes its own copy."""

    _decoder: Any

    def _get_next(self) -> tuple[bytes, int, int]:
        frame: tuple[bytes, int, int] = super()._get_next()
        if not self.is_animated:
            self._decoder = None
        return frame


class _GifFile(GifImagePlugin.GifImageFile):
    """Leaves the canvas outside the first frame transparent, as browsers do. Pillow fills it with palette colour 0."""

    def load_end(self) -> None:
        super().load_end()
        extent = self.dispose_extent
        if self.tell() or extent is None or extent == (0, 0, *self.size) or "transparency" in self.info:
            return
        opaque = Image.new("L", self.size)
        opaque.paste(255, extent)
        self.im = self.im.convert("RGBA", Image.Dither.NONE)
        self.im.putband(opaque.im, 3)
        self._mode = "RGBA"


_GREYS_IN_BITS = {"L;2": 2, "L;4": 4}


def _png(data: bytes) -> ImageFile.ImageFile:
    file = PngImagePlugin.PngImageFile(io.BytesIO(data))
    bits = _GREYS_IN_BITS.get(str(file.tile[0].args)) if file.tile else None
    transparent = file.info.get("transparency")
    if bits and isinstance(transparent, int):  # Pillow scales the samples, but not this value
        file.info["transparency"] = transparent * 255 // (2**bits - 1)
    if file.tile and file.tile[0].args == "LA;16B":
        return arrays.grey_and_alpha(file)
    grey = file.mode in ("1", "L", "LA") or file.mode.startswith("I")
    file.info["icc_profile"] = profile_of_png(data, file.info, grey=grey)
    return file


def _avif(data: bytes) -> ImageFile.ImageFile:
    try:
        file = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except ValueError:
        # libavif rejects an image with a broken EXIF block; under another name the block is ignored.
        if b"Exif" not in data:
            raise
        file = AvifImagePlugin.AvifImageFile(io.BytesIO(data.replace(b"Exif", b"skip")))
    file.info.setdefault("icc_profile", profile_of_heif(data))
    return file


# A reference box "this item describes that image" of a HEIC: a size below 2**19 and the name. Metadata is not needed
# here, and if a damaged file gives it a name that is not UTF-8, pi-heif 1.4 crashes (a segmentation fault).
_DESCRIBES = re.compile(rb"(\0[\0-\7]..)cdsc", re.DOTALL)


def _heic(data: bytes) -> ImageFile.ImageFile:
    from pi_heif import HeifImageFile, options  # only the class: nothing is registered with Pillow

    file: ImageFile.ImageFile
    data = _DESCRIBES.sub(rb"\1skip", data)
    try:
        file = HeifImageFile(io.BytesIO(data))
    except SyntaxError as error:
        # libheif reads up to 1000 tiles, and a photo of 200 megapixels may have more. Workers have their own limits.
        if "Security limit" not in str(error) or not is_worker():
            raise
        options.DISABLE_SECURITY_LIMITS = True
        try:
            file = HeifImageFile(io.BytesIO(data))
        finally:
            options.DISABLE_SECURITY_LIMITS = False
    if not file.info.get("icc_profile"):
        file.info["icc_profile"] = profile_of_heif(data)
    return file


def _tiff(data: bytes) -> ImageFile.ImageFile:
    pages = containers.tiff_pages(data)
    page = containers.main_page(pages) if pages else None
    if page is None or not page.area:
        return TiffImagePlugin.TiffImageFile(io.BytesIO(data))  # raises an error that says what is wrong
    if containers.is_raw(data, pages):
        side, preview = max(max(each.size) for each in pages), containers.raw_preview(pages)
        if preview is None or preview.size < containers.largest_jpeg(data)[1]:
            return _raw(data, side)
        if containers.is_thumbnail(preview.size, side):
            raise NotAnImageError(NO_PREVIEW)
        page = preview
    if page is not pages[0]:
        data = containers.beginning_with(data, page)
    try:
        file = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except SyntaxError:
        if not page.is_unusual:
            raise
        return arrays.tiff(data, page.description, page.get(containers.ORIENTATION, 1))
    if file.mode == "RGB" and page is not pages[0] and containers.ORIENTATION not in page.tags:  # of a camera raw file
        orientation = pages[0].get(containers.ORIENTATION, 1)
        file.getexif()[containers.ORIENTATION] = orientation
        file._size = file.size[::-1] if swaps_sides(orientation) else file.size
    if page.get(containers.BITS) == 16:
        order = "L" if data[:2] == b"II" else "B"
        file.tile = [depth.plane_of_16_bits(tile, order) for tile in file.tile]
    return file


def _bmp(data: bytes) -> ImageFile.ImageFile:
    return arrays.bmp(data) or BmpImagePlugin.BmpImageFile(io.BytesIO(data))


def _ppm(data: bytes) -> ImageFile.ImageFile:
    return arrays.netpbm(data) or PpmImagePlugin.PpmImageFile(io.BytesIO(data))


def _raw(data: bytes, side: int = 0) -> ImageFile.ImageFile:
    start, size = containers.largest_jpeg(data)
    if containers.is_thumbnail(size, side):
        raise NotAnImageError(NO_PREVIEW)
    file = _JpegFile(io.BytesIO(data[start:]))
    file.info.setdefault("exif", containers.exif_of_raw(data))
    return file


def _ico(data: bytes) -> ImageFile.ImageFile:
    picture = containers.picture_in_ico(data)
    if sniff(picture) == "PNG":
        return _png(picture)
    # Pillow decodes an icon when it opens it, but only a PNG can be larger than the icon says.
    return IcoImagePlugin.IcoImageFile(io.BytesIO(picture))


def _icns(data: bytes) -> ImageFile.ImageFile:
    picture = containers.picture_in_icns(data)
    if picture is None:
        return IcnsImagePlugin.IcnsImageFile(io.BytesIO(data))
    return OPENERS[sniff(picture) or "PNG"](picture)


def _jxl(data: bytes) -> ImageFile.ImageFile:
    try:
        from pillow_jxl.JpegXLImagePlugin import JXLImageFile
    except ImportError as error:
        raise NotAnImageError(
            'This is a JPEG XL image. To read it: pip install "searchengine[formats]". Or save it as JPEG or PNG.'
        ) from error
    file = JXLImageFile(io.BytesIO(data))  # this decodes it, within the limits of a worker
    if not file.jpeg:  # libjxl has made it upright already, unless it is a losslessly packed JPEG
        file.info.pop("exif", None)
    opened: ImageFile.ImageFile = file
    return opened


def _by(plugin: Callable[[io.BytesIO], ImageFile.ImageFile]) -> Callable[[bytes], ImageFile.ImageFile]:
    return lambda data: plugin(io.BytesIO(data))


# By format, the function that reads the header of an image. It raises whatever Pillow raises. The plugin classes are
# used, not PIL.Image.open, because the format is known already, and open() warns about large images at its own limit,
# which can be changed only through a global variable.
OPENERS: dict[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "JPEG": _by(_JpegFile),
    "PNG": _png,
    "GIF": _by(_GifFile),
    "WEBP": _by(_WebPFile),
    "BMP": _bmp,
    "TIFF": _tiff,
    "AVIF": _avif,
    "HEIC": _heic,
    "JP2": _by(Jpeg2KImagePlugin.Jpeg2KImageFile),
    "PPM": _ppm,
    "ICO": _ico,
    "ICNS": _icns,
    "JXL": _jxl,
    "RAW": _raw,
}
