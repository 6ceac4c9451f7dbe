"""An opened image of any mode, orientation and number of frames -> RGB and upright, as a person would see it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

from searchengine.images.depth import grey_of_8_bits, strips
from searchengine.processes import is_worker

_FAINT = 16  # alpha up to which a pixel shows nothing of its own colour
_LIGHT = 200  # luma from which a colour can hardly be told from white
_MOSTLY = 0.95


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode RGB; an RGB image is returned unchanged.

    Transparent parts are laid over white, or over black where nearly all that is not transparent is light: white line
    art would be lost on white. Grey with more than 8 bits is scaled, not clipped. Inks (CMYK) are multiplied.
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
    """The background on which a person sees an image with transparent parts."""
    opaque, lumas = True, np.zeros(256, dtype=np.int64)
    for _, strip in strips(image):
        layer = strip.convert("RGBA")
        alpha = layer.getchannel("A")
        opaque = opaque and alpha.getextrema()[0] == 255
        shown = alpha.point([255 if value > _FAINT else 0 for value in range(256)])
        lumas += layer.convert("RGB").convert("L").histogram(shown)
    return "black" if not opaque and lumas[_LIGHT:].sum() > _MOSTLY * lumas.sum() else "white"


def shows_nothing(image: Image.Image) -> bool:
    """Whether every pixel of a loaded image is transparent."""
    return image.has_transparency_data and all(
        strip.convert("RGBA").getchannel("A").getextrema()[1] == 0 for _, strip in strips(image)
    )


# -- orientation -------------------------------------------------------------------------------------------------------

# EXIF 2.32, 4.6.4: how an image with each of the values 2 to 8 becomes upright.
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
    """Turn an image as it was seen through the viewfinder; an upright one is returned unchanged."""
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def swaps_sides(orientation: int) -> bool:
    """Whether making it upright takes a quarter turn, which swaps width and height."""
    return orientation >= 5


# -- animations --------------------------------------------------------------------------------------------------------

_FRAMES = 64  # looked at
_FRAME_PIXELS = 50_000_000  # in all of them
_FEWEST = 3  # looked at, however large
_FLAT = 16  # steps of 255 that the pixels of an empty frame may differ by


def frame_with_content(file: ImageFile.ImageFile) -> Image.Image:
    """The first frame of a loaded image that is neither transparent nor of one colour, RGB.

    Where there is none, the first that is not transparent; else the first. Raises what the decoder raises, if the first
    frame cannot be decoded.
    """
    if getattr(file, "default_image", False):
        _pass_over_default_image(file)
    start = file.tell()
    first = to_rgb(file)
    if not getattr(file, "is_animated", False) or not _is_flat(first):
        return first
    first = first.copy()  # the file's own pixels change with the frame
    fallback = None if shows_nothing(file) else first
    frames = min(_FRAMES, max(_FEWEST, _FRAME_PIXELS // (file.width * file.height) + 1))
    for number in range(start + 1, start + frames):
        try:
            file.seek(number)
            _load_what_there_is(file)
        except Exception:  # no more of them, or none that can be decoded
            break
        frame = to_rgb(file)
        if not _is_flat(frame):
            return frame
        if fallback is None and not shows_nothing(file):
            fallback = frame.copy()
    return first if fallback is None else fallback


def _load_what_there_is(file: ImageFile.ImageFile) -> None:
    """Load a frame, even if it is cut short."""
    ImageFile.LOAD_TRUNCATED_IMAGES = is_worker()  # a process with one thread that decodes
    try:
        file.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _pass_over_default_image(file: ImageFile.ImageFile) -> None:
    """Go to the first frame of a loaded PNG whose default image is not part of the animation."""
    default = file.im.copy()
    file.paste(0, (0, 0, *file.size))  # or Pillow would draw the frame on it
    try:
        file.seek(1)
        file.load()
    except Exception:
        file.im = default


def _is_flat(image: Image.Image) -> bool:
    return all(high - low <= _FLAT for low, high in image.getextrema())  # type: ignore[misc]
