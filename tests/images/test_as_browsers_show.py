"""Pictures on which decoders disagree, held against the pixels that a real browser shows."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from searchengine.images import decode
from tests.images.pictures import encoded, orientation_exif, quadrants
from tests.images.test_decoding import exif_behind_pixels
from tests.images.test_profiles import ADOBE_RGB, DISPLAY_P3, photo, rgb_profile
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


def with_transform(data: bytes, transform: int) -> bytes:
    """A JPEG of inks whose Adobe marker names another colour transform: 0 is CMYK, 2 is YCCK."""
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"Adobe") - 4
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


TURNED = {
    f"a turned {name}": encoded(quadrants(), name, exif=orientation_exif(6)) for name in ("JPEG", "PNG", "WEBP", "AVIF")
}
PICTURES = {
    **TURNED,
    "a PNG with its EXIF behind": exif_behind_pixels(TURNED["a turned PNG"]),
    "inks": inks(200, 30, 90, 60),
    "YCCK": with_transform(inks(55, 127, 127, 0), 2),
    "inks without Adobe's marker": without_adobe(inks(200, 30, 90, 60)),
    "Display P3": encoded(photo(), "PNG", icc_profile=rgb_profile(*DISPLAY_P3)),
    "Adobe RGB": encoded(photo(), "JPEG", quality=100, subsampling=0, icc_profile=rgb_profile(*ADOBE_RGB)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_as_a_browser_shows_it(name: str, page: Page) -> None:
    address = "data:image/png;base64," + base64.b64encode(PICTURES[name]).decode()
    width, height, values = page.evaluate(DRAW, address)
    shown = np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]
    pixels = decode(PICTURES[name]).pixels
    assert pixels.shape == shown.shape
    assert np.abs(pixels.astype(int) - shown).max() <= 8
