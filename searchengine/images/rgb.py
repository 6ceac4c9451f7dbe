"""An opened image of any mode, colour space, orientation and number of frames -> sRGB and upright, as people see it.

sRGB is what models are trained on and what browsers assume. Most photos are sRGB already; those of many phones are
Display P3, those of some cameras Adobe RGB, and those of print shops CMYK. Some files have numbers instead of a colour
profile: cICP, gAMA and cHRM in a PNG, nclx in AVIF and HEIC. These are made into a profile here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms, ImageFile

from searchengine.images.depth import grey_of_8_bits, strips
from searchengine.processes import is_worker

_FAINT = 16  # up to this alpha, a pixel shows nothing of its own colour
_LIGHT = 200  # from this luma on, a colour is hard to distinguish from white
_MOSTLY = 0.95


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode RGB; an RGB image is returned unchanged.

    Transparent parts are laid over white, or over black if nearly all of the rest is light, because white line art
    would be lost on white. Grey with more than 8 bits is scaled, not clipped. CMYK inks are multiplied.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return grey_of_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        return _on_a_page(image)
    return image.convert("RGB")


def _on_a_page(image: Image.Image) -> Image.Image:
    """Lay an image with transparent parts over white or black -> RGB."""
    ground, result = _ground(image), Image.new("RGB", image.size)
    for top, strip in strips(image):
        page = Image.new("RGBA", strip.size, ground)
        result.paste(Image.alpha_composite(page, strip.convert("RGBA")).convert("RGB"), (0, top))
    return result


def _ground(image: Image.Image) -> str:
    """Choose the background for an image with transparent parts."""
    opaque, lumas = True, np.zeros(256, dtype=np.int64)
    for _, strip in strips(image):
        layer = strip.convert("RGBA")
        alpha = layer.getchannel("A")
        opaque = opaque and alpha.getextrema()[0] == 255
        shown = alpha.point([255 if value > _FAINT else 0 for value in range(256)])
        lumas += layer.convert("RGB").convert("L").histogram(shown)
    return "black" if not opaque and lumas[_LIGHT:].sum() > _MOSTLY * lumas.sum() else "white"


def shows_nothing(image: Image.Image) -> bool:
    """Return whether every pixel of a loaded image is transparent."""
    return image.has_transparency_data and all(
        strip.convert("RGBA").getchannel("A").getextrema()[1] == 0 for _, strip in strips(image)
    )


# -- orientation -------------------------------------------------------------------------------------------------------

# EXIF 2.32, 4.6.4: the operation that makes an image with each of the orientations 2 to 8 upright.
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright by its EXIF orientation; an upright image is returned unchanged."""
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def swaps_sides(orientation: int) -> bool:
    """Return whether making an image upright takes a quarter turn, which swaps width and height."""
    return orientation >= 5


# -- animations --------------------------------------------------------------------------------------------------------

_MOST_FRAMES = 64  # that are examined
_FRAME_PIXELS = 50_000_000  # in all examined frames together
_FEWEST_FRAMES = 3  # that are examined, however large they are
_FLAT = 16  # the pixels of an empty frame differ by at most this many steps of 255


def frame_with_content(file: ImageFile.ImageFile) -> Image.Image:
    """Return the first frame of a loaded image that is neither transparent nor of one colour, as RGB.

    If there is none, return the first frame that is not transparent, or else the first. Raises whatever the decoder
    raises if the first frame cannot be decoded.
    """
    if getattr(file, "default_image", False):
        _skip_default_image(file)
    start = file.tell()
    first = to_rgb(file)
    if not getattr(file, "is_animated", False) or not _is_flat(first):
        return first
    first = first.copy()  # the pixels of the file change with the frame
    fallback = None if shows_nothing(file) else first
    frames = min(_MOST_FRAMES, max(_FEWEST_FRAMES, _FRAME_PIXELS // (file.width * file.height) + 1))
    for number in range(start + 1, start + frames):
        try:
            file.seek(number)
            _load_truncated(file)
        except Exception:  # there are no more frames, or none that can be decoded
            break
        frame = to_rgb(file)
        if not _is_flat(frame):
            return frame
        if fallback is None and not shows_nothing(file):
            fallback = frame.copy()
    return first if fallback is None else fallback


def _load_truncated(file: ImageFile.ImageFile) -> None:
    """Load a frame, in a worker even if it is cut short."""
    ImageFile.LOAD_TRUNCATED_IMAGES = is_worker()  # only a worker has a single thread that decodes
    try:
        file.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _skip_default_image(file: ImageFile.ImageFile) -> None:
    """Go to the first frame of a loaded PNG whose default image is not part of the animation."""
    default = file.im.copy()
    file.paste(0, (0, 0, *file.size))  # otherwise Pillow would draw the frame over the default image
    try:
        file.seek(1)
        file.load()
    except Exception:
        file.im = default


def _is_flat(image: Image.Image) -> bool:
    return all(high - low <= _FLAT for low, high in image.getextrema())  # type: ignore[misc]


# -- colour profiles ---------------------------------------------------------------------------------------------------

_PROFILE_BYTES = 4 * 2**20  # the profiles of printing presses have 3 MB
_ALIKE = 4  # steps of 255: an invisible difference, so the pixels are left unchanged
_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_INTENT = ImageCms.Intent.PERCEPTUAL  # as in browsers; for a profile without tables it means relative colorimetric


def profile_of(image: Image.Image, mode: str) -> bytes | None:
    """Return the embedded profile of an image if it is for ``mode`` ("L", "RGB" or "CMYK") and changes colours."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or profile[16:20] != _SPACES[mode] or len(profile) > _PROFILE_BYTES:
        return None
    return None if _transform(profile, mode) is None else profile


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image from its profile to sRGB: L, RGB or CMYK -> RGB, LA -> LA.

    Without a profile, the image is returned unchanged.
    """
    transform = None if profile is None else _transform(profile, image.mode.removesuffix("A"))
    if transform is None:
        return image
    if image.mode in ("L", "LA"):
        greys = transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None])).getchannel("R").tobytes()
        return image.point([*greys, *range(256)]) if image.mode == "LA" else image.point(list(greys)).convert("RGB")
    return transform.apply(_without_black(image) if image.mode == "CMYK" else image)


def _without_black(image: Image.Image) -> Image.Image:
    """Replace the black of a CMYK image by a mix of the other inks, as browsers do before they apply a profile."""
    *inks, black = image.split()
    mixed = [ImageChops.screen(ink, black) for ink in inks]
    return Image.merge("CMYK", (*mixed, Image.new("L", image.size)))


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None for a profile that is broken or hardly differs from sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        # A profile of version 2: with version 4, littlecms would make black deeper, and browsers do not.
        srgb = ImageCms.ImageCmsProfile(io.BytesIO(_matrix_profile(_SRGB, _SRGB_TRANSFER)))
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


# -- colour spaces given as numbers ------------------------------------------------------------------------------------
#
# cICP and nclx use the numbers of ITU-T H.273. They are interpreted as in Chromium.

Chromaticities = tuple[float, ...]  # x and y of white, red, green and blue

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_SRGB = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES: Mapping[int, Chromaticities] = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_SRGB_TRANSFER, _VIDEO_TRANSFERS = 13, {1, 6, 11, 14, 15}
_ABOUT_SRGB = 0.05  # an exponent that differs from 2.2 by less than this share counts as sRGB
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of_png(data: bytes, info: Mapping[Any, Any], *, grey: bool) -> bytes | None:
    """Return the profile of a PNG: from cICP, else the embedded one, else from gAMA and cHRM. None for sRGB.

    ``info`` is the ``info`` of Pillow's image.
    """
    at = data.find(b"cICP", 0, max(data.find(b"IDAT"), 0))
    if at >= 0 and data[at + 6 : at + 8] == b"\0\1":  # RGB in the full range
        return _by_code(data[at + 4], data[at + 5], grey=grey)
    embedded, exponent = info.get("icc_profile"), info.get("gamma")
    if isinstance(embedded, bytes):
        return embedded
    if "srgb" in info or not isinstance(exponent, float) or exponent <= 0:
        return None
    corners = info.get("chromaticity")
    transfer = _SRGB_TRANSFER if abs(exponent * 2.2 - 1) < _ABOUT_SRGB else -1 / exponent
    return _profile(corners if isinstance(corners, tuple) and len(corners) == 8 else _SRGB, transfer, grey=grey)


def profile_of_heif(data: bytes) -> bytes | None:
    """Return the profile of an AVIF or HEIC without an embedded one, from its nclx. None for sRGB."""
    at = data.find(b"colrnclx")
    if at < 0:
        return None
    primaries, transfer = struct.unpack(">HH", data[at + 8 : at + 12].ljust(4, b"\0"))
    return _by_code(primaries, _SRGB_TRANSFER if transfer in _VIDEO_TRANSFERS else transfer, grey=False)


def _by_code(primaries: int, transfer: int, *, grey: bool) -> bytes | None:
    return _profile(_PRIMARIES.get(primaries, _SRGB), transfer, grey=grey)


@lru_cache(maxsize=16)
def _profile(corners: Chromaticities, transfer: float, *, grey: bool) -> bytes | None:
    """Make a profile of a matrix and a curve (ICC.1:2001-04). None for sRGB, and if the numbers make no sense."""
    if corners == _SRGB and transfer == _SRGB_TRANSFER:
        return None
    if grey:
        return _icc(b"GRAY", {b"kTRC": _curve(transfer)})
    try:
        return _matrix_profile(corners, transfer)
    except (np.linalg.LinAlgError, struct.error, ZeroDivisionError, ValueError):
        return None


def _matrix_profile(corners: Chromaticities, transfer: float) -> bytes:
    matrix, curve = _to_xyz(corners), _curve(transfer)
    columns = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
    return _icc(b"RGB ", {**columns, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def _to_xyz(corners: Chromaticities) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from linear RGB to XYZ under D50."""
    white, *primaries = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(corners[::2], corners[1::2], strict=True)
    )
    columns = np.stack(primaries, axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    adapted = np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white))
    result: NDArray[np.float64] = np.linalg.solve(_BRADFORD, adapted @ _BRADFORD @ matrix)
    return result


def _curve(transfer: float) -> bytes:
    """Return the curve from stored values to light as a table. A negative ``transfer`` is minus the exponent."""
    stored = np.linspace(0, 1, 1024)
    light = np.clip(_light(stored, transfer), 0, 1)
    return b"curv" + struct.pack(">II", 0, 1024) + np.rint(light * 65535).astype(">u2").tobytes()


def _light(stored: NDArray[np.float64], transfer: float) -> NDArray[np.float64]:
    if transfer == 7:
        return np.where(stored < 0.0913, stored / 4, ((stored + 0.1115) / 1.1115) ** (1 / 0.45))
    if transfer == 16:  # PQ: white is 1000 cd/m², as in most films
        root = stored ** (32 / 2523)
        return (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610) * 10
    if transfer == 18:  # HLG, with its system gamma applied to each channel separately
        scene = np.where(stored < 0.5, stored**2 / 3, (np.exp((stored - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return 2.46 * scene**1.2
    if transfer == 17:
        return 52.37 / 48 * stored**2.6
    exponents = {4: 2.2, 5: 2.8, 8: 1.0, **dict.fromkeys(_VIDEO_TRANSFERS, 2.4)}
    exponent = -transfer if transfer < 0 else exponents.get(int(transfer))
    if exponent is not None:
        return stored**exponent
    return np.where(stored < 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)


def _icc(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(_D50), b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    table, content = b"", b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    body = struct.pack(">I", len(tags)) + table + content
    head = struct.pack(">I", 128 + len(body)) + b"none\2\x40\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    return head.ljust(68, b"\0") + _xyz(_D50)[8:] + bytes(48) + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
