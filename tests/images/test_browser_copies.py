"""Thumbnails, and the copies sent in place of formats that browsers do not show."""

from __future__ import annotations

import pytest
from PIL import Image

from searchengine.errors import DamagedImageError, ImageTooLargeError, NotAnImageError
from searchengine.images import decode, full_jpeg, thumbnail
from tests.images.pictures import HEIC, corners, encoded, every_format, jpeg_of_size, orientation_exif, quadrants

FILES = every_format()


@pytest.mark.parametrize("name", FILES)
def test_thumbnail_of_every_format(name: str) -> None:
    small = decode(thumbnail(FILES[name], max_side=16))
    assert small.format == "JPEG"
    assert (small.width, small.height) == ((8, 16) if name == "HEIC" else (16, 8))
    assert corners(small.pixels) == ("BRWG" if name == "HEIC" else "RGBW")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (480, 360)),
        ((481, 1), (480, 1)),
        ((1, 30_000), (1, 480)),
        ((480, 480), (480, 480)),
        ((1, 1), (1, 1)),
        ((100, 50), (100, 50)),
        ((4032, 3024), (480, 360)),
    ],
)
def test_thumbnails_keep_proportions_and_never_grow(size: tuple[int, int], expected: tuple[int, int]) -> None:
    small = decode(thumbnail(encoded(Image.new("RGB", size, "red"), "JPEG")))
    assert (small.width, small.height) == expected


@pytest.mark.parametrize("orientation", [1, 6])
def test_thumbnails_are_upright_and_have_no_orientation(orientation: int) -> None:
    data = thumbnail(encoded(quadrants(1280, 640), "JPEG", exif=orientation_exif(orientation)))
    assert corners(decode(data).pixels) == ("RGBW" if orientation == 1 else "BRWG")
    assert b"Exif" not in data


@pytest.mark.parametrize(("data", "seen"), [(FILES["TIFF"], "RGBW"), (FILES["BMP"], "RGBW"), (HEIC, "BRWG")])
def test_other_formats_are_sent_as_jpeg_of_the_same_size(data: bytes, seen: str) -> None:
    shown = decode(full_jpeg(data))
    assert (shown.format, corners(shown.pixels)) == ("JPEG", seen)
    assert (shown.width, shown.height) == (decode(data).width, decode(data).height)


def test_a_tiff_longer_than_a_jpeg_can_be() -> None:
    sent = full_jpeg(encoded(Image.new("L", (70_000, 2)), "TIFF", compression="tiff_lzw"))
    assert decode(sent).width == 65_500


def test_errors() -> None:
    for function in (thumbnail, full_jpeg):
        with pytest.raises(NotAnImageError):
            function(b"a text")
        with pytest.raises(DamagedImageError):
            function(FILES["TIFF"][:200])
    with pytest.raises(ImageTooLargeError):
        thumbnail(jpeg_of_size(60_000, 60_000))
