"""Files with several pages, sizes or previews: the main picture is used."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchengine.errors import DamagedImageError, ImageTooLargeError, NotAnImageError
from searchengine.images import decode, full_jpeg, sniff, thumbnail
from searchengine.images.opening import OPENERS
from tests.images.pictures import HEIC, Entry, corners, encoded, orientation_exif, quadrants, tiff_of


def page(image: Image.Image, *more: Entry) -> tuple[bytes, list[Entry]]:
    """Return the pixels and the entries of an uncompressed grey or RGB page."""
    channels = len(image.getbands())
    return image.tobytes(), [
        (256, 4, (image.width,)),
        (257, 4, (image.height,)),
        (258, 3, (8,) * channels),
        (259, 3, (1,)),
        (262, 3, (2 if channels == 3 else 1,)),
        (277, 3, (channels,)),
        (278, 4, (image.height,)),
        (279, 4, (len(image.tobytes()),)),
        *more,
    ]


REDUCED: Entry = (254, 4, (1,))
BLACK = Image.new("RGB", (16, 8))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "pages",
    [
        [page(BLACK, REDUCED), page(quadrants())],
        [page(BLACK, (255, 3, (2,))), page(quadrants())],
        [page(BLACK, (254, 4, (4,))), page(quadrants())],
        [page(BLACK, REDUCED), page(quadrants()), page(BLACK)],
        [page(BLACK), page(Image.new("RGB", (32, 16))), page(quadrants())],  # a pyramid that begins at its top
        [page(quadrants()), page(BLACK, REDUCED)],
        [page(quadrants()), page(BLACK)],
        [page(quadrants()), page(Image.new("RGB", (64, 64)))],  # the second sheet of a document
        [page(quadrants()), page(Image.new("RGB", (80, 40)))],
        [page(BLACK, REDUCED), page(quadrants(), REDUCED)],
    ],
)
def test_the_main_page_of_a_tiff(pages: list[tuple[bytes, list[Entry]]], order: str) -> None:
    decoded = decode(tiff_of(pages, order=order))
    assert (decoded.format, decoded.width, decoded.height) == ("TIFF", 64, 32)
    assert corners(decoded.pixels) == "RGBW"


def test_the_main_page_may_be_a_subdirectory_of_the_first() -> None:
    assert corners(decode(tiff_of([page(BLACK, REDUCED)], [page(quadrants())])).pixels) == "RGBW"
    assert corners(decode(tiff_of([page(quadrants())], [page(BLACK, REDUCED)])).pixels) == "RGBW"


def test_a_scan_beyond_the_limit_is_its_largest_copy_within_it() -> None:
    content, entries = page(BLACK)
    slide = content, [(tag, kind, {256: (64_000,), 257: (32_000,)}.get(tag, values)) for tag, kind, values in entries]
    label = page(Image.new("RGB", (90, 90)), REDUCED)
    decoded = decode(tiff_of([slide, page(BLACK, REDUCED), label, page(quadrants(), REDUCED)]))
    assert (decoded.width, decoded.height, corners(decoded.pixels)) == (64, 32, "RGBW")
    with pytest.raises(ImageTooLargeError):
        decode(tiff_of([slide, label]))


def test_pages_in_a_circle() -> None:
    data = bytearray(tiff_of([page(BLACK, REDUCED), page(quadrants())]))
    data[-4:] = data[4:8]
    assert corners(decode(bytes(data)).pixels) == "RGBW"


def sensor(width: int, height: int) -> tuple[bytes, list[Entry]]:
    """Return a page with the data of a camera's sensor."""
    content, entries = page(Image.new("L", (width, height), 9))
    return content, [(tag, kind, (32803,) if tag == 262 else values) for tag, kind, values in entries]


def preview(width: int = 640, orientation: int | None = None) -> bytes:
    exif = {} if orientation is None else {"exif": orientation_exif(orientation)}
    return encoded(quadrants(width, width // 2), "JPEG", **exif)


def jpeg_page(data: bytes, width: int) -> tuple[bytes, list[Entry]]:
    _, entries = page(Image.new("RGB", (width, width // 2)), REDUCED)
    changed = {259: (7,), 262: (6,), 279: (len(data),)}
    return data, [(tag, kind, changed.get(tag, values)) for tag, kind, values in entries]


TURNED: Entry = (274, 3, (6,))


def tiff_raws(width: int) -> dict[str, bytes]:
    """Make camera raw files that are TIFF inside, with a preview of the given width."""
    height, small = width // 2, Image.new("RGB", (width // 4, width // 5), "red")
    page_of_jpeg, raw = jpeg_page(preview(width), width), sensor(2 * width, width)
    return {
        "NEF": tiff_of([page(small, REDUCED, TURNED)], [page_of_jpeg, raw], ">"),
        "DNG": tiff_of([page(BLACK, REDUCED, TURNED, (50706, 1, (1, 4, 0, 0)))], [page_of_jpeg, raw]),
        # The content of the first page begins at byte 8.
        "CR2": tiff_of([jpeg_page(b"CR\2\0" + preview(width, 6), width), page(small, REDUCED)]),
        "an uncompressed preview": tiff_of([page(small, REDUCED)], [page(quadrants(width, height), REDUCED), raw]),
    }


THUMBNAIL = page(Image.new("RGB", (160, 120), "red"), REDUCED)
OTHER_RAWS = {
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(100) + preview(640, 6) + bytes(5000),
    "RW2": b"IIU\0" + tiff_of([page(BLACK, TURNED)])[4:] + preview() + bytes(5000),
    "ORF": b"IIRO" + tiff_of([page(BLACK, TURNED)])[4:] + preview() + bytes(5000),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"CMT1" + tiff_of([page(BLACK, TURNED)]) + preview() + bytes(5000),
}
RAWS = {**tiff_raws(640), **OTHER_RAWS}


@pytest.mark.parametrize("name", RAWS)
def test_camera_raw_is_its_large_preview(name: str) -> None:
    data = RAWS[name]
    decoded = decode(data)
    upright = name == "an uncompressed preview"
    assert decoded.format == ("TIFF" if upright else "RAW")
    assert (decoded.width, decoded.height) == ((640, 320) if upright else (320, 640))
    assert corners(decoded.pixels) == ("RGBW" if upright else "BRWG")
    assert decode(data, at_least=(80, 80)).pixels.shape[0] < 400
    assert corners(decode(thumbnail(data)).pixels) == corners(decode(full_jpeg(data)).pixels)


def test_an_uncompressed_preview_has_the_orientation_of_its_file() -> None:
    data = tiff_of([page(BLACK, REDUCED, TURNED)], [page(quadrants(640, 320), REDUCED), sensor(1200, 600)])
    decoded = decode(data)
    assert (decoded.width, decoded.height, corners(decoded.pixels)) == (320, 640, "BRWG")
    assert decode(thumbnail(data)).pixels.shape == (480, 240, 3)


def test_camera_raw_with_only_a_thumbnail_is_refused() -> None:
    small = encoded(Image.new("RGB", (160, 120)), "JPEG")
    for data in (
        tiff_of([THUMBNAIL], [sensor(1200, 600)]),
        tiff_of([sensor(1200, 600)]),
        b"FUJIFILMCCD-RAW 0201" + small,
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500),
        b"IIRO\x08\0\0\0" + small,
    ):
        with pytest.raises(NotAnImageError, match=r"a camera raw file .* Export it as JPEG\."):
            decode(data)


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_the_largest_picture_of_an_icon(bitmap_format: str) -> None:
    data = encoded(quadrants(64, 64), "ICO", sizes=[(16, 16), (64, 64), (32, 32)], bitmap_format=bitmap_format)
    assert sniff(data) == "ICO"
    decoded = decode(data)
    assert (decoded.format, decoded.width, decoded.height, corners(decoded.pixels)) == ("ICO", 64, 64, "RGBW")
    assert full_jpeg(data).startswith(b"\xff\xd8")


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
@pytest.mark.parametrize(
    ("kind", "colours", "reserved", "bits"), [(1, 0, 255, 32), (1, 255, 0, 32), (1, 0, 0, 0), (2, 0, 0, 7)]
)
def test_icons_as_some_programs_write_them(
    bitmap_format: str, kind: int, colours: int, reserved: int, bits: int
) -> None:
    image = quadrants(64, 64).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))
    data = bytearray(encoded(image, "ICO", sizes=[(64, 64)], bitmap_format=bitmap_format))
    data[2], data[8], data[9], data[12] = kind, colours, reserved, bits
    assert corners(decode(bytes(data)).pixels) == "WGBW"


def icon(bits: int, *, alpha: int = 255, missing: int = 0) -> bytes:
    """Make an icon of ``quadrants()`` whose mask hides the first quarter, and lacks its last bytes."""
    picture = np.asarray(quadrants(32, 32))[::-1]  # the last row first
    palette = b""
    if bits == 8:
        colours, numbers = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
        palette = b"".join(bytes([*colour[::-1], 0]) for colour in colours).ljust(1024, b"\0")
        pixels = numbers.astype(np.uint8).tobytes()
    else:
        channels = picture[..., ::-1] if bits == 24 else np.dstack([picture[..., ::-1], np.full((32, 32), alpha)])
        pixels = channels.astype(np.uint8).tobytes()
    mask = np.repeat([0, 1], 16)[:, None] * np.repeat([1, 0], 16)  # the last row first here too
    bitmap = struct.pack("<IiiHHIIiiII", 40, 32, 64, 1, bits, 0, 0, 0, 0, 0, 0) + palette + pixels
    bitmap += np.packbits(mask.astype(np.uint8), axis=1).tobytes()
    bitmap = bitmap[: len(bitmap) - missing]
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, bits, len(bitmap), 22) + bitmap


@pytest.mark.parametrize("bits", [8, 24, 32])
def test_the_mask_of_an_icon(bits: int) -> None:
    assert corners(decode(icon(bits, alpha=0)).pixels) == "WGBW"
    for missing in (60, 128):  # the missing part is opaque
        assert corners(decode(icon(bits, alpha=0, missing=missing)).pixels) == "RGBW"
    assert corners(decode(icon(32)).pixels) == "RGBW"  # an icon with alpha needs no mask


def test_a_macos_icon() -> None:
    data = encoded(quadrants(256, 256), "ICNS")
    decoded = decode(data)
    assert decoded.format == "ICNS"
    assert decoded.width >= 256
    assert corners(decoded.pixels) == "RGBW"


@pytest.mark.parametrize("no_jp2", [False, True])
def test_jpeg_2000(no_jp2: bool) -> None:
    data = encoded(quadrants(), "JPEG2000", no_jp2=no_jp2)
    assert (decode(data).format, corners(decode(data).pixels)) == ("JP2", "RGBW")
    assert full_jpeg(data).startswith(b"\xff\xd8")


def test_jpeg_xl(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    lossless = encoded(quadrants(), "JXL", lossless=True)
    assert np.array_equal(decode(lossless).pixels, np.asarray(quadrants()))
    assert corners(decode(encoded(quadrants(), "JXL", exif=orientation_exif(6))).pixels) == "RGBW"
    (tmp_path / "turned.jpg").write_bytes(encoded(quadrants(), "JPEG", exif=orientation_exif(6)))
    with Image.open(tmp_path / "turned.jpg") as photo:
        assert corners(decode(encoded(photo, "JXL", lossless_jpeg=True)).pixels) == "BRWG"
    assert full_jpeg(lossless).startswith(b"\xff\xd8")
    with pytest.raises(DamagedImageError):
        decode(lossless[:30])


def test_jpeg_xl_without_the_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl.JpegXLImagePlugin", None)
    with pytest.raises(NotAnImageError, match=r'JPEG XL image.*pip install "searchengine\[formats\]"'):
        OPENERS["JXL"](b"\xff\x0a")


def test_portable_pixmaps() -> None:
    for image in (quadrants(), quadrants().convert("L")):
        file = io.BytesIO()
        image.save(file, "PPM")
        decoded = decode(file.getvalue())
        assert decoded.format == "PPM"
        assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


def heic_of_parts(side: int) -> bytes:
    """Make a HEIC of side x side tiles, as phones store large photos."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    def full(kind: bytes, body: bytes, version: int = 0) -> bytes:
        return box(kind, struct.pack(">I", version << 24) + body)

    at = HEIC.index(b"hvcC") - 4
    decoder = HEIC[at : at + int.from_bytes(HEIC[at : at + 4], "big")]
    at = HEIC.index(b"iloc")
    start, length = _extent_of_item_1(HEIC[at + 4 :])
    tile, parts = HEIC[start : start + length], side * side
    grid = parts + 1
    kinds = [
        full(b"infe", struct.pack(">HH4sx", i, 0, b"grid" if i == grid else b"hvc1"), 2) for i in range(1, grid + 1)
    ]
    sizes = [full(b"ispe", struct.pack(">II", 64, 64)), full(b"ispe", struct.pack(">II", 64 * side, 64 * side))]
    uses = [struct.pack(">HBBB", i, 2, 0x81, 2) for i in range(1, grid)] + [struct.pack(">HBB", grid, 1, 3)]
    properties = box(b"ipco", decoder + b"".join(sizes)) + full(b"ipma", struct.pack(">I", grid) + b"".join(uses))
    of = box(b"dimg", struct.pack(f">HH{parts}H", grid, parts, *range(1, grid)))
    layout = struct.pack(">BBBBHH", 0, 0, side - 1, side - 1, 64 * side, 64 * side)
    head = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")

    def meta(base: int) -> bytes:
        places = [struct.pack(">HHHII", i, 0, 1, base, len(tile)) for i in range(1, grid)]
        places.append(struct.pack(">HHHII", grid, 0, 1, base + len(tile), len(layout)))
        return full(
            b"meta",
            full(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + full(b"pitm", struct.pack(">H", grid))
            + full(b"iloc", struct.pack(">BBH", 0x44, 0, grid) + b"".join(places))
            + full(b"iinf", struct.pack(">H", grid) + b"".join(kinds))
            + box(b"iprp", properties)
            + full(b"iref", of),
        )

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", tile + layout)


def _extent_of_item_1(iloc: bytes) -> tuple[int, int]:
    version, widths = iloc[0], (iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4)
    at = 8 + 2 + (2 if version else 0) + 2
    base = int.from_bytes(iloc[at : at + widths[2]], "big")
    at += widths[2] + 2
    start = base + int.from_bytes(iloc[at : at + widths[0]], "big")
    return start, int.from_bytes(iloc[at + widths[0] : at + widths[0] + widths[1]], "big")


@pytest.mark.parametrize("side", [24, 33])
def test_a_heic_of_hundreds_of_parts(side: int) -> None:
    decoded = decode(heic_of_parts(side))
    assert (decoded.format, decoded.width, decoded.height) == ("HEIC", 64 * side, 64 * side)
    assert corners(decoded.pixels[:32, :64]) == corners(decoded.pixels[-64:-32, -64:]) == "RGBW"
