"""Photos are sent without their location, and are otherwise unchanged."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, PngImagePlugin

from searchengine.errors import ImageTooLargeError
from searchengine.images.metadata import PatchedFile, location_patches

LATITUDE = (48.0, 51.0, 29.5)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'dc:source="GPS log" exif:GPSLatitude="48,51.4917N" exif:GPSLongitude=\'2,17.6700E\' drone-dji:GpsLatitude="+48">'
    b"<exif:GPSAltitude>33/1</exif:GPSAltitude></rdf:Description></rdf:RDF></x:xmpmeta>"
)
SECRETS = (b"48,51", b"2,17", b"33/1", b"+48", b"\0\0\0\x33\0\0\0\1", b"\x33\0\0\0\1\0\0\0")


ZEROS = zlib.compress(bytes(2**24))


def exif(*, gps: bool = True) -> Image.Exif:
    values = Image.Exif()
    values[0x010F] = "A camera"
    values[0x0112] = 6
    values[0x9C9B] = "A title".encode("utf-16-le")  # after the pointer to the position
    if gps:
        values.get_ifd(0x8825).update(
            {0: b"\2\3\0\0", 1: "N", 2: LATITUDE, 3: "E", 4: (2.0, 17.0, 40.2), 29: "2026:01:02"}
        )
    values.get_ifd(0x8769).update({0x9003: "2026:01:02 03:04:05"})
    return values


def another() -> Image.Image:
    return Image.open(io.BytesIO(saved("JPEG", exif=exif())))


def saved(format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    noise = Image.frombytes("RGB", (64, 48), random.Random(1).randbytes(64 * 48 * 3))
    noise.save(file, format_, **options)
    return file.getvalue()


def png_text(keyword: bytes, text: bytes, *, compressed: bool = False, kind: bytes = b"") -> bytes:
    """Make a PNG with a text chunk of the given type."""
    info = PngImagePlugin.PngInfo()
    kind = kind or (b"zTXt" if compressed else b"tEXt")
    if kind == b"iTXt":
        info.add_itxt(keyword.decode(), text.decode(), zip=compressed)
    else:
        info.add(kind, keyword + b"\0" + (b"\0" + zlib.compress(text) if compressed else text))
    return saved("PNG", pnginfo=info)


def raw_profile(data: bytes) -> bytes:
    """Return the content of a raw profile as ImageMagick writes it."""
    return b"\nexif\n%8d\n" % len(data) + data.hex().encode() + b"\n"


def blanked(data: bytes) -> bytes:
    return PatchedFile(io.BytesIO(data), location_patches(io.BytesIO(data))).read()


TIFF = exif().tobytes()
PHOTOS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved("JPEG", exif=exif()),
    "JPEG, XMP": lambda: saved("JPEG", exif=exif(), xmp=XMP),
    "GIF, XMP across a boundary": lambda: saved("GIF").ljust(2**20 - 500, b"\0") + XMP,
    "two JPEGs in one": lambda: saved("MPO", exif=exif(), save_all=True, append_images=[another()]),
    "WebP": lambda: saved("WEBP", exif=exif(), xmp=XMP, lossless=True),
    "AVIF": lambda: saved("AVIF", exif=exif(), xmp=XMP),
    "TIFF": lambda: saved("TIFF", exif=exif(), tiffinfo={700: XMP}),
    "PNG": lambda: saved("PNG", exif=exif()),
    "PNG, XMP": lambda: png_text(b"XML:com.adobe.xmp", XMP, kind=b"iTXt"),
    "PNG, compressed XMP": lambda: png_text(b"XML:com.adobe.xmp", XMP, kind=b"iTXt", compressed=True),
    "PNG, raw profile": lambda: png_text(b"Raw profile type exif", raw_profile(TIFF)),
    "PNG, compressed raw profile": lambda: png_text(b"Raw profile type exif", raw_profile(TIFF), compressed=True),
    "PNG, compressed raw XMP": lambda: png_text(b"Raw profile type xmp", raw_profile(XMP), compressed=True),
}


def texts(data: bytes) -> bytes:
    """Return the file, followed by its compressed and hexadecimal texts, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    said = [str(value).encode("utf-8", "replace") for value in image.info.values() if not isinstance(value, bytes)]
    digits = [bytes.fromhex("".join(text.decode().split()[2:])) for text in said if b"\nexif\n" in text]
    return b"".join([data, *said, *digits, *(value for value in image.info.values() if isinstance(value, bytes))])


@pytest.mark.parametrize("name", PHOTOS)
def test_the_location_is_removed_and_nothing_else(name: str) -> None:
    data = PHOTOS[name]()
    assert any(secret in texts(data) for secret in SECRETS)
    sent = blanked(data)
    assert len(sent) == len(data)
    assert not [secret for secret in SECRETS if secret in texts(sent)]
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(sent))
    assert after.tobytes() == before.tobytes()
    if "raw" not in name and "compressed" not in name:
        assert not after.getexif().get_ifd(0x8825)
        for tag in (0x010F, 0x0112, 0x9C9B):
            assert after.getexif().get(tag) == before.getexif().get(tag)
        assert after.getexif().get_ifd(0x8769) == before.getexif().get_ifd(0x8769)
    assert sum(a != b for a, b in zip(data, sent, strict=True)) < 3000
    assert blanked(sent) == sent


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", exif=exif(gps=False)),
        saved("JPEG"),
        saved("PNG", exif=exif(gps=False)),
        saved("GIF"),
        saved("BMP"),
        b"",
        b"II*\0",
        b"MM\0*\0\0\0\x08",
        b"II*\0\x08\0\0\0\xff\xff" + bytes(100),
        b"II*\0\x08\0\0\0\x01\0\x25\x88\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",  # its own position, for ever
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffeXIf",
        b"\x89PNG\r\n\x1a\n\0\0\0\x40zTXtRaw profile type exif\0\0 no deflate".ljust(100, b"\0"),
    ],
)
def test_files_without_a_location_are_sent_unchanged(data: bytes) -> None:
    sent = blanked(data)
    assert sent == data or (data[:4] == b"II*\0" and len(sent) == len(data))


def test_any_part_can_be_read() -> None:
    data = PHOTOS["JPEG, XMP"]()
    patches = location_patches(io.BytesIO(data))
    whole = blanked(data)
    for start in range(0, len(data), 97):
        with PatchedFile(io.BytesIO(data), patches) as file:
            file.seek(start)
            assert file.read(101) == whole[start : start + 101]
            assert file.tell() == min(start + 101, len(data))


@pytest.mark.parametrize(
    "pieces",
    [
        b"II*\0\x08\0\0\0" * 500_000,
        b"<RDF " + b':GPSa="b"' * 500_000,
        b"<RDF " + b":GPS" * 1_000_000,
        # Sixty headers, all of one directory of 512 pointers to a position.
        b"".join(b"II*\0" + struct.pack("<I", 480 - at) for at in range(0, 480, 8))
        + struct.pack("<H", 512)
        + struct.pack("<HHII", 0x8825, 4, 1, 8) * 512
        + bytes(4),
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0noTe\0\0\0\0" * 200_000,
        b"\x89PNG\r\n\x1a\n" + (struct.pack(">I", 3 + len(ZEROS)) + b"zTXta\0\0" + ZEROS + bytes(4)) * 10,
    ],
    ids=["EXIF", "XMP", "XMP in part", "pointers", "chunks", "inflated"],
)
def test_endless_metadata_are_refused(pieces: bytes) -> None:
    """Otherwise it would take minutes, and all patches are checked whenever a part of the file is sent."""
    with pytest.raises(ImageTooLargeError):
        location_patches(io.BytesIO(pieces))


def test_mutated_metadata_raises_nothing() -> None:
    chance = random.Random(0)
    for data in (TIFF, *(PHOTOS[name]() for name in ("JPEG, XMP", "PNG", "PNG, compressed raw profile"))):
        for _ in range(100):
            broken = bytearray(data)
            for _ in range(chance.randint(1, 8)):
                broken[chance.randrange(min(len(broken), 600))] = chance.randrange(256)
            assert len(blanked(bytes(broken))) == len(broken)
