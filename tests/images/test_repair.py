"""Files that break the rules of their format, but that browsers show."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from searchengine.errors import DamagedImageError
from searchengine.images import decode, thumbnail
from tests.images.pictures import chunk, corners, encoded, quadrants


def photo(width: int = 320, height: int = 240) -> Image.Image:
    """Make noise that is smooth enough to compress like a photo."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


JPEGS = {
    "baseline": encoded(photo(), "JPEG"),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "restarts": encoded(photo(), "JPEG", restart_marker_rows=1),
    "grey": encoded(photo().convert("L"), "JPEG"),
    "inks": encoded(photo().convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end(name: str) -> None:
    data, whole = JPEGS[name], decode(JPEGS[name]).pixels
    for cut in (1, 2):
        assert np.array_equal(decode(data[:-cut]).pixels, whole)
    cut_short = decode(data[:-40], at_least=(60, 80)).pixels.astype(int)
    assert np.abs(cut_short - decode(data, at_least=(60, 80)).pixels).mean() < 3
    assert thumbnail(data[:-2]) == thumbnail(data)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_with_a_large_missing_part_is_damaged(name: str) -> None:
    for share in (0.3, 0.5) if name == "progressive" else (0.3, 0.6, 0.85):
        with pytest.raises(DamagedImageError):
            decode(JPEGS[name][: round(len(JPEGS[name]) * share)])


def test_stray_bytes_in_a_jpeg() -> None:
    data = JPEGS["baseline"]
    at = data.index(b"\xff\xdb")
    expected = decode(data).pixels
    for odd in (data + bytes(1000), data[:at] + b"no business" + data[at:], data[:2] + b"\xff\xff" + data[2:]):
        assert np.array_equal(decode(odd).pixels, expected)
    at = data.index(b"\xff\xda")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    assert np.array_equal(decode(data[: end - 3] + b"\0\0\0" + data[end:]).pixels, expected)  # Ss, Se, Ah and Al


@pytest.mark.parametrize("name", ["baseline", "restarts", "grey", "inks"])
@pytest.mark.parametrize("marker", [b"\2", b"\xc4", b"\xff", b"\xd8"])
def test_a_jpeg_with_a_byte_of_255_among_its_pixels(name: str, marker: bytes) -> None:
    data = JPEGS[name]
    start = data.index(b"\xff\xda")
    at = start + (len(data) - start) * 2 // 3
    pixels = decode(data[:at] + b"\xff" + marker + data[at + 2 :]).pixels.astype(int)
    assert np.abs(pixels[:130] - decode(data).pixels[:130]).mean() < 3


PNG = encoded(quadrants(), "PNG")
TEXT = zlib.compress(b"x" * 2_000_000)
ODD_CHUNKS = {
    "a long zTXt": chunk(b"zTXt", b"workflow\0\0" + TEXT),
    "a long iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + TEXT),
    "texts of more than 64 MB": chunk(b"tEXt", b"a\0" + b"x" * 65_000_000),
    "a profile of 2 MB": chunk(b"iCCP", b"p\0\0" + TEXT),
    "a broken profile": chunk(b"iCCP", b"p\0\0" + TEXT[:20]),
    "a profile in an unknown compression": chunk(b"iCCP", b"p\0\7" + TEXT),
    "a wrong checksum of tIME": chunk(b"tIME", b"\7\xe9\1\1\1\1\1", wrong=True),
    "a wrong checksum of iCCP": chunk(b"iCCP", b"p\0\0", wrong=True),
    "a wrong checksum of tRNS": chunk(b"tRNS", b"\0\xff\0\0\0\0", wrong=True),
    "a short gAMA": chunk(b"gAMA", b"\0"),
    "a short pHYs": chunk(b"pHYs", b"\0"),
    "a short sRGB": chunk(b"sRGB", b""),
    "a tRNS of no bytes": chunk(b"tRNS", b""),
    "a tRNS of a byte": chunk(b"tRNS", b"\0"),
    "a type of odd bytes": chunk(b"a\x80b\0", b"x"),
}


@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_a_png_with(name: str) -> None:
    assert corners(decode(PNG[:33] + ODD_CHUNKS[name] + PNG[33:]).pixels) == "RGBW"


@pytest.mark.parametrize("name", [name for name in ODD_CHUNKS if "tRNS" not in name])
def test_a_png_that_ends_with(name: str) -> None:
    assert corners(decode(PNG[:-12] + ODD_CHUNKS[name] + PNG[-12:]).pixels) == "RGBW"


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_png(bits: int) -> None:
    """The value is compared as stored, so with few bits it is a small number."""
    row = bytes([0b00011011] if bits == 2 else [0x0F, 0x1E] if bits == 4 else [0b01] if bits == 1 else [0, 1, 255, 30])
    width = len(row) * 8 // bits
    data = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)) + chunk(b"tRNS", b"\0\1")
    data += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    expected = {1: [0] * 7 + [255], 2: [0, 255, 170, 255], 4: [0, 255, 255, 238], 8: [0, 255, 255, 30]}[bits]
    assert decode(data).pixels[0, :, 0].tolist() == expected


def test_a_png_without_its_end() -> None:
    data = encoded(photo(), "PNG")
    expected = decode(data).pixels
    for cut in (1, 12, 14, 16):
        assert np.array_equal(decode(data[:-cut]).pixels, expected)
    cut_short = decode(data[: round(len(data) * 0.98)]).pixels
    assert np.array_equal(cut_short[:220], expected[:220])
    with pytest.raises(DamagedImageError):
        decode(data[: round(len(data) * 0.8)])


def test_a_png_whose_pixels_have_a_wrong_checksum() -> None:
    rows = b"".join(b"\0" + bytes([y] * 64) for y in range(40))
    for interlaced, pixels in ((0, rows), (1, bytes(2635))):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 40, 8, 0, 0, 0, interlaced))
        body = zlib.compress(pixels)
        data = PNG[:8] + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
        expected = decode(data).pixels
        for last in (body[:-1] + bytes([body[-1] ^ 1]), body[:-4] + b"\0\0\0\0"):
            wrong = PNG[:8] + header + chunk(b"IDAT", last[:30]) + chunk(b"IDAT", last[30:]) + chunk(b"IEND", b"")
            assert np.array_equal(decode(wrong).pixels, expected)


@pytest.mark.parametrize("colours", [4, 200])
@pytest.mark.parametrize("interlace", [0, 1])
def test_a_gif_without_its_end(colours: int, interlace: int) -> None:
    data = encoded(photo().quantize(colours), "GIF", interlace=interlace)
    expected = decode(data).pixels
    for cut in (1, 2, 3, 5, 20, len(data) // 80):
        unlike = (decode(data[:-cut]).pixels != expected).any(axis=2)
        assert unlike.mean() <= 0.05
        assert interlace or not unlike[:220].any()
    with pytest.raises(DamagedImageError):
        decode(data[: len(data) * 9 // 10])


def test_a_bmp_without_its_end() -> None:
    data = encoded(photo(), "BMP")
    assert np.array_equal(decode(data[:-3]).pixels[2:], decode(data).pixels[2:])
    with pytest.raises(DamagedImageError):
        decode(data[: len(data) // 2])


def run_lengths(rows: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> bytes:
    """Return the content of a run-length encoded 8-bit BMP, with the end of each row but not of the bitmap."""
    runs = [
        bytes(each for start in range(0, len(row), 16) for each in (len(row[start : start + 16]), row[start])) + b"\0\0"
        for row in rows[::-1]
    ]
    return b"".join(runs)


ROWS = np.arange(40, dtype=np.uint8)[:, None] + np.zeros(64, np.uint8)


def run_length_bmp(content: bytes) -> bytes:
    palette = b"".join(bytes([i, i, i, 0]) for i in range(255, -1, -1))
    head = struct.pack("<IiiHHIIiiII", 40, 64, 40, 1, 8, 1, len(content), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(content), 0, 0, 1078) + head + palette + content


def test_a_run_length_encoded_bmp_without_its_end() -> None:
    content = run_lengths(ROWS)
    expected = decode(run_length_bmp(content + b"\0\1")).pixels
    assert expected[5, 0].tolist() == [250] * 3
    for cut in (content, content[:-1], content[:-8], content[:-12] + b"\0\x40ab"):
        assert np.array_equal(decode(run_length_bmp(cut)).pixels[2:], expected[2:])
    with pytest.raises(DamagedImageError):
        decode(run_length_bmp(content[: len(content) // 2]))


def test_a_run_length_encoded_bmp_that_leaves_out_rows() -> None:
    for rest in (b"\0\1", b"\0\1junk"):
        pixels = decode(run_length_bmp(run_lengths(ROWS[30:]) + rest)).pixels
        assert (pixels[0, 0].tolist(), pixels[39, 0].tolist()) == ([255] * 3, [216] * 3)
