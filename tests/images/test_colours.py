"""Every mode becomes the RGB that a person would see on white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.images import decode, depth
from tests.images.pictures import chunk, encoded, png, tiff


def row(data: bytes) -> list[list[int]]:
    """Return the pixels of the first row."""
    pixels: NDArray[np.uint8] = decode(data).pixels
    return pixels[0].tolist()  # type: ignore[no-any-return]


def greys(data: bytes) -> list[int]:
    """Return the first row of a picture, which must be grey."""
    pixels = row(data)
    assert all(r == g == b for r, g, b in pixels)
    return [r for r, _, _ in pixels]


def of(mode: str, *pixels: object) -> Image.Image:
    """Return a picture of one row."""
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


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("light", [(255, 255, 255), (230, 230, 220)])
def test_light_art_on_transparency_is_seen_on_black(name: str, light: tuple[int, int, int]) -> None:
    images = []
    for box in ((4, 4, 28, 8), (12, 0, 16, 32)):
        image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        image.paste((*light, 255), box)
        images.append(decode(encoded(image, name, **({"lossless": True} if name == "WEBP" else {}))).pixels)
    assert not np.array_equal(*images)
    assert images[0][0, 0].tolist() == [0, 0, 0]
    assert images[0][5, 10].tolist() == list(light)


def test_dark_and_mixed_art_on_transparency_is_seen_on_white() -> None:
    image = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 32, 16))
    image.paste((40, 40, 40, 255), (4, 4, 28, 8))
    assert decode(encoded(image, "PNG")).pixels[20, 20].tolist() == [255, 255, 255]


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
    plain = png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 0, 257, 65535))
    assert greys(plain) == [0, 1, 255]
    image = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert greys(encoded(image, "PNG", transparency=257)) == [0, 255, 255]


@pytest.mark.parametrize("bits", range(8, 17))
def test_white_is_the_greatest_value_of_the_bits_in_use(bits: int) -> None:
    white = 2**bits - 1
    values = [0, white // 2, white]
    assert greys(tiff(3, struct.pack("<3H", *values), bits=16)) == [0, 127, 255]
    assert greys(png(3, 1, 16, 0, b"\0" + struct.pack(">3H", *values))) == [0, 127, 255]
    assert greys(tiff(3, struct.pack("<3i", *values), bits=32, sample_format=2)) == [0, 127, 255]
    assert greys(tiff(3, struct.pack("<3f", *values), bits=32, sample_format=3)) == [0, 127, 255]
    colours = struct.pack(">9H", *[value for value in values for _ in range(3)])
    assert np.abs(np.array(greys(png(3, 1, 16, 2, b"\0" + colours))) - [0, 127, 255]).max() <= 1


def test_a_hot_pixel_does_not_darken_the_rest() -> None:
    values = np.full(3000, 4000, dtype="<u2")
    values[7] = 65535
    assert greys(tiff(3000, values.tobytes(), bits=16))[:8] == [249] * 7 + [255]


def test_pixels_without_a_measurement_are_black() -> None:
    data = encoded(Image.fromarray(np.array([[-9999, 100, 255]], np.float32)), "TIFF", tiffinfo={42113: "-9999"})
    assert greys(data) == [0, 100, 255]


def test_12_bit_grey() -> None:
    # 0x000, 0xfff, 0x800 and 0x010, packed
    assert greys(tiff(4, bytes.fromhex("000fff800010"), bits=12)) == [0, 255, 128, 1]


def test_16_bit_colour() -> None:
    assert row(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 128 * 257, 0))) == [[255, 128, 0]]
    pixels = struct.pack(">4H", 100 * 257, 65535, 65535, 65535)
    assert row(png(2, 1, 16, 4, b"\0" + pixels)) == [[100, 100, 100], [255, 255, 255]]
    assert row(png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 65535, 0, 0, 0))) == [[255, 255, 255]]


def test_16_bit_colour_of_12_bits() -> None:
    dark = struct.pack(">4H", 4095, 2048, 0, 65535) + struct.pack(">4H", 0, 0, 4095, 65535)
    assert row(png(2, 1, 16, 6, b"\0" + dark)) == [[255, 128, 0], [0, 0, 255]]
    pixels = struct.pack("<6H", 4095, 2048, 0, 0, 0, 4095)
    assert row(tiff(2, pixels, bits=16, photometric=2, samples=3)) == [[255, 128, 0], [0, 0, 255]]
    pixels = struct.pack(">6H", 4095, 2048, 0, 0, 0, 4095)
    assert row(tiff(2, pixels, bits=16, photometric=2, samples=3, order=">")) == [[255, 128, 0], [0, 0, 255]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white", [65535, 4095])
def test_16_bit_colours_in_separate_planes_of_a_tiff(order: str, white: int) -> None:
    planes = struct.pack(order + "6H", white, 0, white * 128 // 255 + 1, 0, 0, white)
    places = struct.pack(order + "6I", 8, 12, 16, 4, 4, 4)  # where each begins, and its bytes
    data = tiff(2, planes + places, bits=16, photometric=2, samples=3, order=order, more=[(284, 3, (2,))])
    for tag, value, at in ((273, 8, 20), (279, 36, 32)):
        entry = struct.pack(order + "HHII", tag, 4, 1, value)
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack(order + "HHII", tag, 4, 3, at))
    assert row(data) == [[255, 128, 0], [0, 0, 255]]


def test_16_bit_colour_with_a_transparent_colour() -> None:
    rows = b"\0" + struct.pack(">9H", 0x1234, 0x1234, 0x1234, 0x1234, 0x1234, 0x1235, 0xC800, 0x2800, 0x2800)
    data = png(3, 1, 16, 2, rows)
    data = data[:33] + chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x1234, 0x1234)) + data[33:]
    assert row(data) == [[255, 255, 255], [18, 18, 18], [200, 40, 40]]  # the second differs in its low byte


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


_NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 8), dtype=np.uint8)
_WIDE_GREY = _NOISE[..., :2].copy().view("<u2")[..., 0]
_DARK = _NOISE & np.array([3, 255] * 4, dtype=np.uint8)
_LARGE = {
    "alpha": encoded(Image.fromarray(_NOISE[..., :4]), "PNG"),
    "light art": encoded(Image.fromarray(_NOISE[..., :4] | np.array([248, 248, 248, 0], np.uint8)), "PNG"),
    "grey with alpha": encoded(Image.fromarray(_NOISE[..., :2], "LA"), "PNG"),
    "palette": encoded(Image.fromarray(_NOISE[..., :3]).quantize(99), "PNG", transparency=3),
    "16-bit grey": encoded(Image.fromarray(_WIDE_GREY), "PNG"),
    "16-bit grey of 12 bits": encoded(Image.fromarray(_WIDE_GREY >> 4), "TIFF"),
    "32-bit grey": encoded(Image.fromarray(_WIDE_GREY.astype(np.int32) - 9), "TIFF"),
    "floating point": encoded(Image.fromarray(np.sqrt(_WIDE_GREY).astype(np.float32)), "TIFF"),
    "16-bit colour": png(30, 20, 16, 2, b"".join(b"\0" + line[:, :6].tobytes() for line in _NOISE)),
    "16-bit colour, dark": png(30, 20, 16, 6, b"".join(b"\0" + line.tobytes() for line in _DARK)),
}


@pytest.mark.parametrize("name", _LARGE)
def test_a_large_image_is_converted_by_strips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_here = decode.__wrapped__  # type: ignore[attr-defined]
    whole = decode_here(_LARGE[name]).pixels
    monkeypatch.setattr(depth, "_STRIP_PIXELS", 7 * 30)  # the last strip has six rows
    np.testing.assert_array_equal(decode_here(_LARGE[name]).pixels, whole)
