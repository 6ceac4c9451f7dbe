"""Pictures that are read with NumPy."""

from __future__ import annotations

import io
import struct
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import DamagedImageError, NotAnImageError
from searchengine.images import decode, full_jpeg, thumbnail
from searchengine.images.opening import OPENERS
from tests.images.pictures import corners, png, quadrants

RGB = np.asarray(quadrants()).astype(float) / 255  # (32, 64, 3)
GREY = RGB[..., 0]
HEIGHT, WIDTH = GREY.shape
OPAQUE = np.ones_like(GREY)


def written(samples: NDArray[Any], **options: Any) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def bands(dtype: str, scale: float, count: int) -> NDArray[Any]:
    """Return RGB and other bands of values 0 and ``scale``."""
    return (np.concatenate([RGB, RGB], axis=2)[..., :count] * scale).astype(dtype)


COLOURS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "float16": (bands("f2", 1, 3), {"photometric": "rgb"}),
    "float32": (bands("f4", 1, 3), {"photometric": "rgb"}),
    "float64": (bands("f8", 1, 3), {"photometric": "rgb"}),
    "floats up to 255": (bands("f4", 255, 3), {"photometric": "rgb"}),
    "floats with highlights": (
        np.where(np.arange(WIDTH)[:, None] < 5, 16, 1) * bands("f4", 1, 3),
        {"photometric": "rgb"},
    ),
    "floats and alpha": (np.dstack([RGB, OPAQUE]).astype("f4"), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "bands apart": (np.moveaxis(bands("f4", 1, 3), 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "packed tiles": (bands("f4", 1, 3), {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
    "packed with a predictor": (bands("f4", 1, 3), {"photometric": "rgb", "compression": "zlib", "predictor": 3}),
    "packed by LZW": (bands("f4", 1, 3), {"photometric": "rgb", "compression": "lzw"}),
    "32 bits": (bands("u4", 3e9, 3), {"photometric": "rgb"}),
    "five bands": (bands("u1", 255, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
    "six bands of 12 bits": (bands("u2", 4095, 6), {"photometric": "minisblack", "planarconfig": "contig"}),
    "six bands apart": (
        np.moveaxis(bands("u2", 65535, 6), 2, 0),
        {"photometric": "minisblack", "planarconfig": "separate"},
    ),
    "infrared as the fourth": (bands("u2", 65535, 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
}
GREYS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "float16": (GREY.astype("f2"), {}),
    "float64": (GREY.astype("f8"), {}),
    "two bands": (bands("u1", 255, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
    "alpha and 12 bits": (
        np.dstack([GREY * 4095, OPAQUE * 65535]).astype("u2"),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
    ),
}


@pytest.mark.parametrize("name", COLOURS)
def test_a_tiff_of_other_numbers_or_bands(name: str) -> None:
    samples, options = COLOURS[name]
    decoded = decode(written(samples, **options))
    assert (decoded.format, decoded.pixels.shape, corners(decoded.pixels)) == ("TIFF", (HEIGHT, WIDTH, 3), "RGBW")
    assert decoded.pixels[-3, -3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", GREYS)
def test_a_grey_tiff_of_other_numbers_or_bands(name: str) -> None:
    samples, options = GREYS[name]
    assert corners(decode(written(samples, **options)).pixels) == "WKKW"


def test_a_turned_tiff_of_floats() -> None:
    data = written(bands("f4", 1, 3), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    decoded = decode(data)
    assert (decoded.width, decoded.height, corners(decoded.pixels)) == (32, 64, "BRWG")
    assert corners(decode(thumbnail(data)).pixels) == corners(decode(full_jpeg(data)).pixels) == "BRWG"


def test_white_is_zero_in_a_tiff_of_32_bits() -> None:
    data = written((GREY * (2**32 - 1)).astype("u4"), photometric="miniswhite")
    assert corners(decode(data).pixels) == "KWWK"


def test_a_tiff_that_is_not_a_picture() -> None:
    with pytest.raises(
        NotAnImageError, match="1 band of 64-bit complex floating point samples, which is not a picture"
    ):
        decode(written(GREY.astype("c8")))
    with pytest.raises(DamagedImageError):
        decode(written(bands("f4", 1, 3), photometric="rgb")[:-9000])


def test_an_unusual_tiff_without_the_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(bands("f4", 1, 3), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        NotAnImageError, match=r'3 bands of 32-bit floating point.* pip install "searchengine\[formats\]"'
    ):
        OPENERS["TIFF"](data)


def netpbm(head: str, samples: NDArray[Any]) -> bytes:
    return head.format(w=WIDTH, h=HEIGHT).encode() + samples.tobytes()


def pam(depth: int, white: int, samples: NDArray[Any]) -> bytes:
    head = f"P7\n# a remark\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH {depth}\nMAXVAL {white}\nTUPLTYPE X\nENDHDR\n"
    return head.encode() + samples.tobytes()


NETPBM = {
    "PFM": (netpbm("PF\n{w} {h}\n-1.0\n", RGB[::-1].astype("<f4")), "RGBW"),
    "PFM of the other byte order": (netpbm("PF {w} {h} 1.0\n", RGB[::-1].astype(">f4")), "RGBW"),
    "grey PFM": (netpbm("Pf\n{w} {h}\n-1.0\n", GREY[::-1].astype("<f4")), "WKKW"),
    "PPM of 12 bits in 16": (netpbm("P6\n# {{}}\n{w} {h}\n65535\n", (RGB * 4095).astype(">u2")), "RGBW"),
    "PPM of 12 bits": (netpbm("P6 {w} {h} 4095\n", (RGB * 4095).astype(">u2")), "RGBW"),
    "PPM up to 100": (netpbm("P6 {w} {h} 100\n", (RGB * 100).astype("u1")), "RGBW"),
    "PGM of 16 bits": (netpbm("P5 {w} {h} 65535\n", (GREY * 65535).astype(">u2")), "WKKW"),
    "PGM of 10 bits": (netpbm("P5 {w} {h} 1023\n", (GREY * 1023).astype(">u2")), "WKKW"),
    "PAM": (pam(3, 255, (RGB * 255).astype("u1")), "RGBW"),
    "PAM of 16 bits with alpha": (pam(4, 65535, (np.dstack([RGB, OPAQUE]) * 65535).astype(">u2")), "RGBW"),
    "grey PAM with alpha": (pam(2, 255, (np.dstack([GREY, OPAQUE]) * 255).astype("u1")), "WKKW"),
    "black and white PAM": (pam(1, 1, GREY.astype("u1")), "WKKW"),
}


@pytest.mark.parametrize("name", NETPBM)
def test_netpbm(name: str) -> None:
    data, seen = NETPBM[name]
    decoded = decode(data)
    assert (decoded.format, decoded.pixels.shape, decoded.pixels.max()) == ("PPM", (HEIGHT, WIDTH, 3), 255)
    assert corners(decoded.pixels) == seen
    with pytest.raises(DamagedImageError):
        decode(data[:-2000])


def bmp(bits: int, masks: list[int], *, header: int = 40, compression: int = 3, top_down: bool = False) -> bytes:
    """Encode ``quadrants()`` with masks for red, green, blue and perhaps alpha, opaque."""
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint64)
    for channel, mask in zip(np.moveaxis(np.dstack([RGB, OPAQUE]), 2, 0), masks, strict=False):
        values |= channel.astype(np.uint64) * np.uint64(mask)
    pixels = (values if top_down else values[::-1]).astype(f"<u{bits // 8}").tobytes()
    height = -HEIGHT if top_down else HEIGHT
    head = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    head = (head + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


MASKED = [
    bmp(16, [0xF800, 0x7E0, 0x1F]),
    bmp(16, [0x1F, 0x7E0, 0xF800]),
    bmp(16, [0xF00, 0xF0, 0xF]),
    bmp(16, [0xF00, 0xF0, 0xF, 0xF000], header=56),
    bmp(16, [0x7C00, 0x3E0, 0x1F, 0x8000], compression=6),
    bmp(32, [0x3FF00000, 0xFFC00, 0x3FF]),
    bmp(32, [0xFF, 0xFF00, 0xFF0000]),
    bmp(32, [0xFF0000, 0xFF00, 0xFF, 0xFF000000], header=124, top_down=True),
    bmp(32, [0xFF00, 0xFF0000, 0xFF000000, 0xFF], header=108),
]


@pytest.mark.parametrize("data", MASKED)
def test_a_bmp_of_any_masks(data: bytes) -> None:
    decoded = decode(data)
    assert (decoded.format, corners(decoded.pixels)) == ("BMP", "RGBW")
    assert decoded.pixels[-3, -3].tolist() == [255, 255, 255]
    assert corners(decode(data[:-3]).pixels) == "RGBW"


@pytest.mark.parametrize("white", [65535, 4095])
def test_a_png_of_16_bits_with_grey_and_alpha(white: int) -> None:
    alpha = np.where(np.arange(HEIGHT) < HEIGHT // 2, 65535, 0)[:, None] * OPAQUE
    samples = np.dstack([GREY * white, alpha]).astype(">u2")
    data = png(WIDTH, HEIGHT, 16, 4, b"".join(b"\0" + row.tobytes() for row in samples))
    assert corners(decode(data).pixels) == "WKWW"
