"""Decodes unusual images in worker processes, within limits of time and memory; ordinary ones in this process.

A worker that exceeds its limits is killed, and a decoder that crashes ends only its worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import update_wrapper
from itertools import islice, takewhile
from typing import Concatenate, ParamSpec, TypeVar, cast

from searchengine.errors import DamagedImageError, DecoderUnavailableError, DecodingKilledError, ImageTooLargeError
from searchengine.images.formats import HEAD_BYTES, START_OF_SCAN, jpeg_segments, png_chunks, reader, sniff
from searchengine.processes import (
    CallFailedError,
    CallKilledError,
    CallStoppedError,
    CallTimedOutError,
    Limits,
    NoWorkerError,
    Pool,
    can_limit_calls,
    is_worker,
    limit_call,
)
from searchengine.processors import processors

MAX_PIXELS = 16_384 * 12_288  # the size of the largest photos of phones; 600 MB as RGB

# At least four: the server decodes two uploads and two thumbnails at a time, and neither should wait for the other.
_POOL = Pool(max(4, processors()))

Params = ParamSpec("Params")
Result = TypeVar("Result")

_GIVE_UP: ContextVar[Callable[[float], bool] | None] = ContextVar("give_up", default=None)


@contextmanager
def given_up_when(condition: Callable[[float], bool]) -> Iterator[None]:
    """Within this context, stop decoding in a worker, with DecodingKilledError, once ``condition`` is true.

    ``condition`` is called from time to time with the seconds since decoding began.
    """
    token = _GIVE_UP.set(condition)
    try:
        yield
    finally:
        _GIVE_UP.reset(token)


def isolated(function: Callable[Concatenate[bytes, Params], Result]) -> Callable[Concatenate[bytes, Params], Result]:
    """Make a function of an image file's bytes run in a worker process, unless the image is an ordinary one.

    If the system cannot limit processes (Windows), the function always runs in this process. If it has an argument
    ``max_pixels``, the limits are those for an image of that many pixels, until it calls ``limit_decoding``.

    The decorated function also raises:
        ImageTooLargeError: the image takes too long or too much memory.
        DamagedImageError: the image crashes its decoder.
        DecodingKilledError: the worker was killed from outside, or decoding was given up.
        DecoderUnavailableError: no worker can be started.
    """

    def call(data: bytes, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        if is_worker() or is_ordinary(data) or not can_limit_calls():
            return function(data, *args, **kwargs)
        format_ = sniff(data[:HEAD_BYTES])
        try:
            max_pixels = cast("int", kwargs.get("max_pixels", MAX_PIXELS))
            limits = _limits(len(data), max_pixels, max_pixels)
            return _POOL.call(call, data, *args, limits=limits, give_up=_GIVE_UP.get(), **kwargs)
        except NoWorkerError as error:
            raise DecoderUnavailableError(
                f"No process can be started to decode images ({error}). This says nothing about the image. Check that "
                "Python is still where it was, and the limits of memory, processes and open files; then try again."
            ) from error
        except CallStoppedError as error:
            raise DecodingKilledError(
                f"This {format_} image takes long to decode, and others wait. Try again in a moment, or use a smaller "
                "copy."
            ) from error
        except CallTimedOutError as error:
            raise ImageTooLargeError(f"This {format_} image takes too long to decode. Use a smaller copy.") from error
        except MemoryError as error:
            raise too_large(format_) from error
        except CallKilledError as error:
            raise DecodingKilledError(
                f"The process that decoded this {format_} image was killed, perhaps because memory ran out. Try again."
            ) from error
        except CallFailedError as error:
            raise DamagedImageError(
                f"This {format_} image is damaged: it crashes its decoder ({error}). Try a fresh copy."
            ) from error

    update_wrapper(call, function)
    return call


def too_large(format_: str | None) -> ImageTooLargeError:
    """Return the error for an image for which there is not enough memory."""
    return ImageTooLargeError(f"This {format_} image is too large to be decoded here. Use a smaller copy.")


def limit_decoding(size: int, pixels: int, max_pixels: int) -> None:
    """In a worker, set the limits for the rest of the call: for a file of ``size`` bytes and that many pixels."""
    limit_call(_limits(size, pixels, max_pixels))


def _limits(size: int, pixels: int, max_pixels: int) -> Limits:
    """Return limits of several times the time and memory that the slowest decoders need."""
    seconds = 10 + pixels // 4_000_000 + size // 2_500_000  # by size too: a PPM may have its pixels in decimal digits
    # A JPEG 2000 takes up to 26 bytes per pixel, WebP and AVIF 12: the largest allowed images stay below 1 GB.
    room = min(32 * pixels, 12 * max_pixels)
    return Limits(seconds, memory=200 * 2**20 + 2 * size + max(2 * size, room))


# -- which images are ordinary -----------------------------------------------------------------------------------------

# A JPEG takes 2 to 5 ms per scan and megapixel, an 8-bit PNG 15 to 25 ms per megapixel: a second at most within these
# limits. Both take 4 bytes per pixel, and a JPEG of several scans 6 more.
_MEGAPIXELS = {"JPEG": 50, "PNG": 25}
_ORDINARY_SCAN_MEGAPIXELS = 250
_SEGMENTS = 2_000  # before the pixels of a JPEG: Pillow reads each in Python
_HEADER_BYTES = 2**22  # of a JPEG: Pillow concatenates the parts of its metadata
_CHUNKS = 20_000  # of a PNG: Pillow reads each in Python
_SIDE = 30_000  # pixels of a PNG: each row costs memory too
_COMPRESSED_CHUNKS = 50  # of metadata, each of which may expand to a megabyte

# Encoders write up to 20 scans. More are accepted if they take no longer to decode than those of a large photo.
_USUAL_SCANS = 20
_ALLOWED_SCAN_MEGAPIXELS = 500

_MAX_PIECES = 100_000  # segments of a JPEG, chunks of a PNG: 80 megapixels in pieces of 8 kB are 40 000

_EOI = 0xD9
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_PROGRESSIVE = {0xC2, 0xCA}  # the second with arithmetic coding
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # without markers that have no length, stuffing and fill bytes
_FILL, _FILL_BYTES, _USUAL_FILL = b"\xff" * 16, re.compile(rb"\xff{16,}"), 10_000


def is_ordinary(data: bytes) -> bool:
    """Return whether a quick look at a file proves that decoding takes little time and memory.

    Nearly all photos and screenshots are ordinary: JPEG in few scans and 8-bit PNG, of the sizes that cameras and
    screens have. The decoders of other formats have no such bound, and some crash. A file that is not an image is
    ordinary too.
    """
    format_ = sniff(data[:HEAD_BYTES])
    if format_ == "JPEG":
        return _is_ordinary_jpeg(data)
    if format_ == "PNG":
        return _is_ordinary_png(data)
    return format_ is None


def without_fill_bytes(data: bytes) -> bytes:
    """Return a JPEG with few of the fill bytes that may precede a marker: decoders take half a second per MB."""
    if data.count(_FILL) <= _USUAL_FILL:
        return data
    kept, at = [], 0
    for start, end in _segments(data, 2):
        kept += [_FILL_BYTES.sub(b"\xff", data[at:start]), data[start:end]]
        at = end
    return b"".join([*kept, data[at:]])


def refuse_too_many_pieces(data: bytes, format_: str) -> None:
    """Raise ImageTooLargeError for a JPEG or PNG in far more pieces than encoders write: each is read in Python."""
    pieces: Iterator[int | bytes] = iter(())
    if format_ == "JPEG":
        pieces = takewhile(lambda marker: marker != START_OF_SCAN, (data[at + 1] for at, _ in _segments(data, 2)))
    elif format_ == "PNG":
        pieces = (kind for kind in _chunks(data) if kind not in (b"fcTL", b"fdAT"))  # except those of animations
    if next(islice(pieces, _MAX_PIECES, None), None) is not None:
        raise ImageTooLargeError(
            f"This {format_} image is stored in more than {_MAX_PIECES} pieces, which take too long to read. Save it "
            f"again as an ordinary {format_}."
        )


def refuse_too_many_scans(data: bytes, pixels: int) -> None:
    """Raise ImageTooLargeError for a JPEG of far more scans than encoders write: each is work for all pixels."""
    header = _jpeg_header(data)
    start = 2 if header is None else header.end
    if (header is not None and not header.several_scans) or data.count(b"\xff\xda", start) <= _USUAL_SCANS:
        return
    most = max(_USUAL_SCANS, _ALLOWED_SCAN_MEGAPIXELS * 10**6 // max(pixels, 1))
    scans = (at for at, _ in _segments(data, start) if data[at + 1] == START_OF_SCAN)
    if next(islice(scans, most, None), None) is not None:
        raise ImageTooLargeError(
            f"This JPEG image is stored in more than {most} scans, which take too long to decode. Save it again as "
            "an ordinary JPEG."
        )


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield the start (at the marker) and end of each segment of a JPEG, as libjpeg finds them, skipping the pixels."""
    end = start
    while (marker := _MARKER.search(data, end)) is not None:
        end = marker.end()
        if data[end - 1] == _EOI:
            yield marker.start(), end
            return
        end += int.from_bytes(data[end : end + 2])
        yield marker.start(), end


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the type of each chunk of a PNG, up to its end."""
    return takewhile(lambda kind: kind != b"IEND", (kind for kind, _, _ in png_chunks(reader(data))))


@dataclass(frozen=True, slots=True)
class _JpegHeader:
    """Facts from the header of a JPEG; ``end`` is where its first scan begins."""

    frame: int
    pixels: int
    several_scans: bool
    end: int


def _jpeg_header(data: bytes) -> _JpegHeader | None:
    """Read the header of a JPEG; None if it is longer than usual, or not well-formed."""
    frame, pixels, components = 0, 0, 0
    for marker, at, _ in islice(jpeg_segments(reader(data)), _SEGMENTS):
        if at + 6 > len(data):
            return None
        if marker in _FRAMES:
            frame, components = marker, data[at + 5]
            pixels = int.from_bytes(data[at + 1 : at + 3]) * int.from_bytes(data[at + 3 : at + 5])
        elif marker == START_OF_SCAN:
            # If the first scan of a baseline JPEG holds all components, the decoder stops after it.
            several = frame in _PROGRESSIVE or data[at] < components
            return _JpegHeader(frame, pixels, several, at - 4)
    return None


def _is_ordinary_jpeg(data: bytes) -> bool:
    header = _jpeg_header(data)
    if header is None or header.frame not in _HUFFMAN_FRAMES or header.pixels > _MEGAPIXELS["JPEG"] * 10**6:
        return False
    if header.end > _HEADER_BYTES or data.count(_FILL) > _USUAL_FILL:
        return False
    # The same bytes may occur in metadata or in an appended video; then a worker decodes the image.
    scans = data.count(b"\xff\xda", header.end) if header.several_scans else 1
    return scans * header.pixels <= _ORDINARY_SCAN_MEGAPIXELS * 10**6


def _is_ordinary_png(data: bytes) -> bool:
    width, height, depth = int.from_bytes(data[16:20]), int.from_bytes(data[20:24]), data[24:25]
    if data[12:16] != b"IHDR" or depth > b"\x08" or max(width, height) > _SIDE:
        return False
    if width * height > _MEGAPIXELS["PNG"] * 10**6:
        return False
    kinds = list(islice(_chunks(data), _CHUNKS))
    compressed = sum(kind in (b"iCCP", b"zTXt", b"iTXt") for kind in kinds)
    return len(kinds) < _CHUNKS and compressed <= _COMPRESSED_CHUNKS
