"""Every mode becomes the RGB that a person would see on white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.images import decode
from tests.images.pictures import encoded, png, tiff


def row(data: bytes) -> list[list[int]]:
    """The pixels of the first row."""
    pixels: NDArray[np.uint8] = decode(data).pixels
    return pixels[0].tolist()  # type: ignore[no-any-return]


def greys(data: bytes) -> list[int]:
    """The first row of a picture that must be grey."""
    pixels = row(data)
    assert all(r == g == b for r, g, b in pixels)
    return [r for r, _, _ in pixels]


def of(mode: str, *pixels: object) -> Image.Image:
    """One row of pixels."""
    image = Image.new(mode, (len(pixels), 1))
    for x, pixel in enumerate(pixels):
        image.putpixel((x, 0), pixel)  # type: ignore[arg-type]
    return image


def test_one_bit() -> None:
    assert greys(encoded(of("1", 0, 255, 0), "PNG")) == [0, 255, 0]
    assert greys(encoded(of("1", 0, 255, 0), "TIFF")) == [0, 255, 0]
    assert greys(encoded(of("1", 0, 255, 0), "BMP")) == [0, 255, 0]


def test_grey() -> None:
    assert greys(encoded(of("L", 0, 100, 255), "PNG")) == [0, 100, 255]
    assert greys(encoded(Image.new("L", (8, 8), 100), "JPEG")) == [100] * 8


def test_grey_with_a_transparent_value() -> None:
    assert greys(encoded(of("L", 0, 100, 255), "PNG", transparency=100)) == [0, 255, 255]


def test_grey_with_alpha() -> None:
    # 100 * 128/255 + 255 * 127/255 = 177.2
    assert greys(encoded(of("LA", (100, 255), (100, 0), (100, 128)), "PNG")) == [100, 255, 177]


def palette_image() -> Image.Image:
    image = of("P", 0, 1, 2)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def test_palette() -> None:
    assert row(encoded(palette_image(), "PNG")) == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert row(encoded(palette_image(), "BMP")) == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert row(encoded(palette_image(), "TIFF")) == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(name: str) -> None:
    assert row(encoded(palette_image(), name, transparency=1)) == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_palette_with_alpha_for_each_colour() -> None:
    seen = row(encoded(palette_image(), "PNG", transparency=bytes([255, 0, 128])))
    assert seen == [[255, 0, 0], [255, 255, 255], [127, 127, 255]]


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_is_laid_over_white(name: str) -> None:
    options = (
        {"lossless": True} if name == "WEBP" else {"quality": 100, "subsampling": "4:4:4"} if name == "AVIF" else {}
    )
    image = Image.new("RGBA", (30, 10), (255, 0, 0, 128))
    image.paste((0, 0, 255, 0), (10, 0, 20, 10))
    image.paste((0, 255, 0, 255), (20, 0, 30, 10))
    seen = np.array(row(encoded(image, name, **options)))[[5, 15, 25]]
    assert np.abs(seen - [[255, 127, 127], [255, 255, 255], [0, 255, 0]]).max() <= (4 if name == "AVIF" else 0)


def test_rgb_with_a_transparent_colour() -> None:
    data = encoded(of("RGB", (1, 2, 3), (9, 9, 9)), "PNG", transparency=(1, 2, 3))
    assert row(data) == [[255, 255, 255], [9, 9, 9]]


def test_cmyk_as_jpeg_is_stored_inverted() -> None:
    for inks, seen in {(0, 0, 0, 0): [255] * 3, (255, 0, 0, 0): [0, 255, 255], (0, 0, 0, 255): [0] * 3}.items():
        assert row(encoded(Image.new("CMYK", (8, 8), inks), "JPEG"))[0] == pytest.approx(seen, abs=2)
    assert row(encoded(of("CMYK", (255, 0, 0, 0), (0, 0, 0, 128)), "TIFF")) == [[0, 255, 255], [127, 127, 127]]


def test_ycck() -> None:
    # Stored bytes are 255 - ink: (200, 128, 128, 255). As YCCK that is Y 200 without chroma and no black: 255 - 200.
    data = encoded(Image.new("CMYK", (8, 8), (55, 127, 127, 0)), "JPEG")
    at = data.index(b"Adobe")
    assert data[at + 11] == 0  # no colour transform
    data = data[: at + 11] + b"\2" + data[at + 12 :]
    assert row(data)[0] == pytest.approx([55] * 3, abs=2)


def test_lab() -> None:
    white, black = row(encoded(of("LAB", (255, 128, 128), (0, 128, 128)), "TIFF"))
    assert white == pytest.approx([255] * 3, abs=1)
    assert black == pytest.approx([0] * 3, abs=1)


# 65535 = 255 * 257; 128 / 257 rounds down, 129 / 257 up.
WIDE, NARROW = [0, 128, 129, 257, 128 * 257, 65535], [0, 0, 1, 1, 128, 255]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    rows = b"\0" + struct.pack(">6H", *WIDE)
    assert greys(png(6, 1, 16, 0, rows)) == NARROW
    assert greys(tiff(6, struct.pack("<6H", *WIDE), bits=16)) == NARROW
    assert greys(tiff(6, struct.pack(">6H", *WIDE), bits=16, order=">")) == NARROW
    assert greys(encoded(Image.fromarray(np.array([WIDE], np.uint16)), "TIFF", compression="tiff_lzw")) == NARROW


def test_16_bit_grey_where_zero_is_white() -> None:
    assert greys(tiff(6, struct.pack("<6H", *WIDE), bits=16, photometric=0)) == [255 - value for value in NARROW]


def test_16_bit_grey_with_a_transparent_value() -> None:
    plain = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0, 257))
    assert greys(plain) == [0, 1]
    image = Image.fromarray(np.array([[0, 257]], np.uint16))
    assert greys(encoded(image, "PNG", transparency=257)) == [0, 255]


def test_12_bit_grey() -> None:
    # 0x000, 0xfff, 0x800 and 0x010, packed
    assert greys(tiff(4, bytes.fromhex("000fff800010"), bits=12)) == [0, 255, 128, 1]


def test_16_bit_colour() -> None:
    assert row(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 128 * 257, 0))) == [[255, 128, 0]]
    assert row(png(1, 1, 16, 4, b"\0" + struct.pack(">2H", 100 * 257, 65535))) == [[100, 100, 100]]
    assert row(png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 65535, 0, 0, 0))) == [[255, 255, 255]]


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([7_000_000, 7_000_000], [0, 0]),
    ],
)
def test_32_bit_grey(values: list[int], seen: list[int]) -> None:
    assert greys(tiff(len(values), struct.pack(f"<{len(values)}i", *values), bits=32, sample_format=2)) == seen


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([0.0, 0.25, 1.0], [0, 64, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("inf"), float("-inf"), 0.5, 1.0], [0, 255, 0, 128, 255]),
        ([float("nan")], [0]),
        ([-3e38, 3e38], [0, 255]),
    ],
)
def test_floating_point(values: list[float], seen: list[int]) -> None:
    assert greys(tiff(len(values), struct.pack(f"<{len(values)}f", *values), bits=32, sample_format=3)) == seen
