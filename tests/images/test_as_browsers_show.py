"""Pictures on which decoders disagree, compared with the pixels that a real browser shows."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from searchengine.images import decode
from tests.images.pictures import chunk, encoded, orientation_exif, quadrants
from tests.images.test_decoding import exif_behind_pixels
from tests.images.test_profiles import (
    ADOBE_RGB,
    CORNERS,
    DISPLAY_P3,
    HALF,
    LINEAR,
    photo,
    press_profile,
    rgb_profile,
    with_chunks,
    with_nclx,
)
from tests.web.browsing import in_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = in_browser

DRAW = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  return [canvas.width, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
}"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


def inks(*values: int) -> bytes:
    return encoded(Image.new("CMYK", (16, 16), values), "JPEG", quality=100)


def many_inks() -> Image.Image:
    steps = np.array([0, 90, 170, 255], dtype=np.uint8)
    inks = np.stack(np.meshgrid(steps, steps, steps, steps), axis=-1).reshape(16, 16, 4)
    return Image.fromarray(inks.repeat(8, axis=0).repeat(8, axis=1), "CMYK")


def with_transform(data: bytes, transform: int) -> bytes:
    """Set the colour transform in the Adobe marker of a CMYK JPEG: 0 is CMYK, 2 is YCCK."""
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"Adobe") - 4
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


TURNED = {
    f"a turned {name}": encoded(quadrants(), name, exif=orientation_exif(6)) for name in ("JPEG", "PNG", "WEBP", "AVIF")
}
PICTURES: dict[str, bytes] = {
    **TURNED,
    "a PNG with its EXIF behind": exif_behind_pixels(TURNED["a turned PNG"]),
    "inks": inks(200, 30, 90, 60),
    "YCCK": with_transform(inks(55, 127, 127, 0), 2),
    "inks without Adobe's marker": without_adobe(inks(200, 30, 90, 60)),
    "inks by a press's profile": encoded(many_inks(), "JPEG", quality=100, icc_profile=press_profile()),
    "Display P3": encoded(photo(), "PNG", icc_profile=rgb_profile(*DISPLAY_P3)),
    "Adobe RGB": encoded(photo(), "JPEG", quality=100, subsampling=0, icc_profile=rgb_profile(*ADOBE_RGB)),
}

FLAT = encoded(Image.new("RGB", (8, 8), (200, 100, 40)), "PNG")
GREY = encoded(Image.new("L", (8, 8), 100), "PNG")
WIDE = (1, 4, 5, 6, 7, 8, 9, 11, 12, 22, 2)
NUMBERS = {
    **{f"cICP of primaries {n}": with_chunks(FLAT, chunk(b"cICP", bytes([n, 13, 0, 1]))) for n in WIDE},
    **{f"cICP of curve {n}": with_chunks(FLAT, chunk(b"cICP", bytes([1, n, 0, 1]))) for n in (*range(4, 18), 1, 2)},
    "cICP of video": with_chunks(FLAT, chunk(b"cICP", bytes([12, 13, 0, 0]))),
    "cICP before a profile": with_chunks(
        FLAT, chunk(b"cICP", bytes([12, 13, 0, 1])), chunk(b"iCCP", b"a\0\0" + zlib.compress(rgb_profile(*ADOBE_RGB)))
    ),
    "cHRM alone": with_chunks(FLAT, CORNERS),
    "gAMA of 2.2": with_chunks(FLAT, HALF),
    "gAMA of 1": with_chunks(FLAT, LINEAR),
    "gAMA and cHRM": with_chunks(FLAT, HALF, CORNERS),
    "sRGB, gAMA and cHRM": with_chunks(FLAT, chunk(b"sRGB", b"\0"), HALF, CORNERS),
    "grey with gAMA": with_chunks(GREY, LINEAR),
    "grey with cICP": with_chunks(GREY, chunk(b"cICP", bytes([1, 8, 0, 1]))),
    **{
        f"nclx {codes}": with_nclx(*codes)
        for codes in ((1, 13), (12, 13), (9, 13), (12, 1), (1, 1), (1, 8), (9, 16), (2, 2))
    },
}
PICTURES.update(NUMBERS)


@pytest.mark.parametrize("name", PICTURES)
def test_as_a_browser_shows_it(name: str, page: Page) -> None:
    address = "data:image/png;base64," + base64.b64encode(PICTURES[name]).decode()
    width, height, values = page.evaluate(DRAW, address)
    shown = np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]
    pixels = decode(PICTURES[name]).pixels
    assert pixels.shape == shown.shape
    assert np.abs(pixels.astype(int) - shown).max() <= 8
