"""Which frame of an animation shows what it is about: the first that is not empty."""

from __future__ import annotations

from PIL import Image, ImageFile

from searchengine.images.rgb import shows_nothing, to_rgb
from searchengine.processes import is_worker

_FRAMES = 64  # looked at
_PIXELS = 50_000_000  # in all of them
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
    frames = min(_FRAMES, max(_FEWEST, _PIXELS // (file.width * file.height) + 1))
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
    """Load a frame that may be cut short: it is the first that shows something."""
    ImageFile.LOAD_TRUNCATED_IMAGES = is_worker()  # a process with one thread that decodes
    try:
        file.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _pass_over_default_image(file: ImageFile.ImageFile) -> None:
    """Go to the first frame of a loaded PNG whose pixels proper are only for programs that know no animations."""
    default = file.im.copy()
    file.paste(0, (0, 0, *file.size))  # or Pillow would draw the frame on it
    try:
        file.seek(1)
        file.load()
    except Exception:
        file.im = default


def _is_flat(image: Image.Image) -> bool:
    return all(high - low <= _FLAT for low, high in image.getextrema())  # type: ignore[misc]
