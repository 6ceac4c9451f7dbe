"""The format of an image file, recognised by its content; file names are not trusted."""

from __future__ import annotations

HEAD_BYTES = 64  # the part of a file that sniff() looks at
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC"

# The media types sent to browsers. TIFF and HEIC are missing because few browsers show them.
BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
)
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

# Files often mistaken for images, named in the reason why they are skipped.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG file"),
    (b"<!DOCTYPE html", "a web page"),
    (b"<html", "a web page"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"PK\3\4", "a ZIP archive or an office document"),
)


def sniff(head: bytes) -> str | None:
    """The format of an image from its first ``HEAD_BYTES``, or None if it cannot be read.

    One of ``"JPEG"``, ``"PNG"``, ``"GIF"``, ``"WEBP"``, ``"BMP"``, ``"TIFF"``, ``"AVIF"`` and ``"HEIC"``.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # Two letters are too few to trust: a text may begin with "BM".
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _brand(head)
    return None


def _brand(head: bytes) -> str | None:
    """AVIF or HEIC, by the major brand and the compatible brands (every four bytes from 16 on)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, end, 4)}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIC"
    return None


def why_not(head: bytes) -> str:
    """A sentence that says why a file is not read, from its first bytes, where ``sniff`` gives None."""
    if not head:
        return "The file is empty."
    kind = next((name for magic, name in _OTHERS if head.lstrip().startswith(magic)), None)
    if kind is None and head[4:8] == b"ftyp":
        kind = "a video"
    if kind is None:
        return f"This is not an image that can be read; {READABLE} can."
    return f"This is {kind}, which cannot be read; {READABLE} can."
