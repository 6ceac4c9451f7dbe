"""The format of a file, recognised by its content; file names are not trusted."""

from __future__ import annotations

import re

HEAD_BYTES = 512  # the part of a file that sniff() looks at
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG 2000, ICO, ICNS, PPM and camera raw files"

NO_PREVIEW = "This is a camera raw file without a large preview, which cannot be read. Export it as JPEG."

# The media types sent to browsers. Of the others, few browsers show TIFF, HEIC and JPEG 2000; and they show a BMP that
# says it is transparent everywhere as nothing, where every viewer shows the picture.
BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),  # and those camera raw files that are TIFF inside: NEF, CR2, ARW, DNG, PEF, ...
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2"),
    (b"\xff\x4f\xff\x51", "JP2"),
    (b"icns", "ICNS"),
    (b"FUJIFILMCCD-RAW", "RAW"),  # RAF
    (b"IIU\0", "RAW"),  # RW2
    (b"IIRO", "RAW"),  # ORF
    (b"IIRS", "RAW"),
    (b"MMOR", "RAW"),
    (b"FOVb", "RAW"),  # X3F
    (b"\0MRM", "RAW"),  # MRW
)
# Icons and cursors of fewer than 256 pictures. The number of colours and the reserved byte are 0, by some programs 255.
_ICO = re.compile(rb"\0\0(\x01\0.|\x02\0[^\0])\0..[\0-\x10\xff][\0\xff]", re.DOTALL)
_NETPBM = re.compile(rb"P([1-6]|[Ff])[ \t\r\n]+[#\d]|P7\n")
_CANON = re.compile(rb"II\x1a\0\0\0HEAPCCDR")  # CRW
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"avci"}

# Files often mistaken for photos: how they begin, what they are, and what to do.
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
    """The format of an image from its first ``HEAD_BYTES``, or None if it cannot be read.

    One of ``"JPEG"``, ``"PNG"``, ``"GIF"``, ``"WEBP"``, ``"BMP"``, ``"TIFF"``, ``"AVIF"``, ``"HEIC"``, ``"JXL"``,
    ``"JP2"``, ``"ICO"``, ``"ICNS"``, ``"PPM"`` and ``"RAW"``.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # Two letters are too few to trust: a text may begin with "BM".
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if _ICO.match(head):
        return "ICO"
    if _NETPBM.match(head):
        return "PPM"
    if _CANON.match(head):
        return "RAW"
    if head[4:8] == b"ftyp":
        return _brand(head)
    return None


def _brand(head: bytes) -> str | None:
    """AVIF, HEIC or RAW, by the major brand and the compatible brands (every four bytes from 16 on)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, end, 4)}
    if b"crx " in brands:  # CR3
        return "RAW"
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIC"
    return None


def why_not(head: bytes) -> str:
    """A sentence that says what a file is and what to do, from its first bytes, where it cannot be read."""
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
    return f"This is not an image that can be read; {READABLE} can."
