"""Recognises the format of a file by its content; file names are not trusted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 512  # sniff() needs this much of a file
NO_PREVIEW = "This is a camera raw file without a large preview, which cannot be read. Export it as JPEG."


@dataclass(frozen=True, slots=True)
class Format:
    """An image format; the function that opens its files is in ``opening.OPENERS``.

    ``start`` is a pattern that matches the beginning of its files. An ISO media file needs one of the ``brands``.
    ``media_type`` is set if most browsers show the format, so files are sent unchanged.
    """

    title: str  # for people
    start: bytes = b"(?!)"
    brands: frozenset[bytes] = frozenset()
    media_type: str | None = None
    is_animated: bool = False  # it may have several frames; the first one with content is used
    is_turned_by_exif: bool = False  # as in browsers; other formats are made upright by their decoders
    is_decoded_at_once: bool = False  # opening a file decodes it, or allocates the memory for it
    has_false_alpha: bool = False  # if a picture is transparent everywhere, its alpha is meaningless


# By name; the first format that matches counts.
FORMATS = {
    "JPEG": Format("JPEG", rb"\xff\xd8\xff", media_type="image/jpeg", is_turned_by_exif=True),
    # Only EXIF data before the pixels count.
    "PNG": Format("PNG", rb"\x89PNG\r\n\x1a\n", media_type="image/png", is_animated=True, is_turned_by_exif=True),
    "WEBP": Format("WebP", rb"RIFF....WEBP", media_type="image/webp", is_animated=True, is_decoded_at_once=True),
    "GIF": Format("GIF", rb"GIF8[79]a", media_type="image/gif", is_animated=True),
    # If a BMP is transparent everywhere, browsers show nothing, but viewers show the picture. A text may begin with
    # "BM" too, so the size of the header, at byte 14, is also checked.
    "BMP": Format("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", has_false_alpha=True),
    # Including BigTIFF, and camera raw files that are TIFF inside: NEF, CR2, ARW, DNG, PEF, ...
    "TIFF": Format("TIFF", rb"II[*+]\0|MM\0[*+]"),
    "RAW": Format(
        "camera raw", rb"FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR", frozenset({b"crx "})
    ),
    # libheif makes HEIC upright by its own boxes; Pillow reports those of AVIF as EXIF.
    "AVIF": Format(
        "AVIF",
        brands=frozenset({b"avif", b"avis"}),
        media_type="image/avif",
        is_animated=True,
        is_turned_by_exif=True,
        is_decoded_at_once=True,
    ),
    "HEIC": Format(
        "HEIC",
        brands=frozenset(
            {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"avci"}
        ),
        is_decoded_at_once=True,
    ),
    "JXL": Format("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", is_turned_by_exif=True, is_decoded_at_once=True),
    "JP2": Format("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    # Icons and cursors of fewer than 256 pictures. The number of colours and the reserved byte are 0, or 255.
    "ICO": Format("ICO", rb"\0\0(\x01\0.|\x02\0[^\0])\0..[\0-\x10\xff][\0\xff]", has_false_alpha=True),
    "ICNS": Format("ICNS", rb"icns"),
    "PPM": Format("PPM", rb"P([1-6]|[Ff])[ \t\r\n]+[#\d]|P7\n"),
}
_STARTS = [(re.compile(format_.start, re.DOTALL), name) for name, format_ in FORMATS.items()]

# Files often mistaken for photos: how they begin, what they are, and what the user can do.
_VIDEO = "a video", "Save the frames you want as JPEG."
_PAGE = "a web page", "It was saved in place of the picture: download the picture itself."
_ARCHIVE = "a compressed archive", "Unpack it, and index the pictures in it."
_OTHERS = (
    (rb"%PDF", "a PDF document", "Export its pages as JPEG or PNG."),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing", "Export it as PNG."),
    (rb"(<\?xml.*|<!--.*|<!DOCTYPE )?<?svg[ >]", "an SVG drawing", "Export it as PNG."),
    (rb"(<!--.*)?<(!DOCTYPE html|html|head|body)", *_PAGE),
    (rb"<\?xml.*<html", *_PAGE),
    (rb"<\?xml", "an XML file", "It holds no picture."),
    (rb"version https://git-lfs", "a Git LFS pointer", "Fetch the picture itself with: git lfs pull"),
    (rb"8BP[SB]", "a Photoshop document", "Export it as JPEG or PNG."),
    (rb"gimp xcf", "a GIMP document", "Export it as JPEG or PNG."),
    (rb"II\xbc", "a JPEG XR image", "Save it as JPEG or PNG."),
    (rb"\x76\x2f\x31\x01", "an OpenEXR image", "Save it as JPEG or PNG."),
    (rb"#\?R", "a Radiance HDR image", "Save it as JPEG or PNG."),
    (rb"DDS ", "a DirectDraw texture", "Save it as PNG."),
    (rb"qoif", "a QOI image", "Save it as PNG."),
    (rb"SIMPLE  =", "a FITS image", "Save it as 16-bit PNG or TIFF."),
    (rb".{128}DICM", "a DICOM image", "Export it as PNG or TIFF."),
    (rb"AT&TFORM", "a DjVu document", "Export its pages as JPEG or PNG."),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile", "Save it as PNG."),
    (rb"\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]|FLV\x01|OggS|RIFF....AVI |0&\xb2u\x8ef\xcf\x11|G.{187}G", *_VIDEO),
    (rb"ID3|fLaC|RIFF....WAVE", "a sound file", "It holds no picture."),
    (rb"PK\x03\x04", "a ZIP archive or an office document", "Unpack it or export its pages, and index the pictures."),
    (rb"Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", *_ARCHIVE),
    (rb"\xd0\xcf\x11\xe0|\{\\rtf", "an office document", "Save its pictures as files."),
    (rb"SQLite format 3", "a database", "It holds no picture."),
)
_OTHER = [(re.compile(start, re.DOTALL | re.IGNORECASE), name, advice) for start, name, advice in _OTHERS]


def sniff(head: bytes) -> str | None:
    """Return the format of an image, a name in ``FORMATS``, by its first ``HEAD_BYTES``; None if it cannot be read."""
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        return next((name for name, format_ in FORMATS.items() if format_.brands & brands), None)
    return next((name for start, name in _STARTS if start.match(head)), None)


def _brands(head: bytes) -> set[bytes]:
    """Return the major brand of an ISO media file, and the compatible brands (four bytes each, from byte 16)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12]} | {head[i : i + 4] for i in range(16, end, 4)}


def why_not(head: bytes) -> str:
    """Return a sentence that says what an unreadable file is, by its first bytes, and what to do about it."""
    if not head:
        return "The file is empty."
    format_ = sniff(head)
    if format_ is not None:
        return NO_PREVIEW if format_ == "RAW" else f"This {format_} image is of a kind that cannot be read."
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kind, advice = next(((name, advice) for start, name, advice in _OTHER if start.match(text)), ("", ""))
    if not kind and head[4:8] in (b"ftyp", b"moov", b"mdat"):
        kind, advice = _VIDEO
    if kind:
        return f"This is {kind}, which cannot be read. {advice}"
    *titles, last = (format_.title for format_ in FORMATS.values())
    return f"This is not an image that can be read; {', '.join(titles)} and {last} files can."


# -- segments of a JPEG, chunks of a PNG ------------------------------------------------------------------------------

Read = Callable[[int, int], bytes]  # an offset and a number of bytes -> the bytes, as far as the file goes
START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xDA), 0xFF}


def reader(source: bytes | BinaryIO) -> Read:
    """Return a function that reads from bytes or a file."""
    if isinstance(source, bytes):
        return lambda offset, size: source[offset : offset + size]

    def read(offset: int, size: int) -> bytes:
        source.seek(offset)
        return source.read(size)

    return read


def jpeg_segments(read: Read, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, offset of the content, its length) for each segment of a JPEG, up to and including the first scan.

    Stops earlier if the file is not well-formed.
    """
    at, marker = start + 2, 0
    while marker != START_OF_SCAN:
        head = read(at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in _WITHOUT_LENGTH:
            return
        marker, length = head[1], max(int.from_bytes(head[2:]) - 2, 0)
        yield marker, at + 4, length
        at += 4 + length


def png_chunks(read: Read) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, offset of the content, its length) for each chunk of a PNG, as far as the file goes."""
    at = 8
    while len(head := read(at, 8)) == 8:
        kind, length = head[4:], int.from_bytes(head[:4])
        yield kind, at + 8, length
        at += 12 + length
