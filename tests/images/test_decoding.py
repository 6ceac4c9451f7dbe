"""Every format and every odd file is decoded to what a person would see."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from searchengine.errors import DamagedImageError, ImageTooLargeError, NotAnImageError
from searchengine.images import average_colour, decode, resize, sniff
from tests.images.pictures import HEIC, corners, encoded, every_format, jpeg_of_size, orientation_exif, png, quadrants

FILES = every_format()


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_decoded_to_its_first_frame(name: str) -> None:
    decoded = decode(FILES[name])
    assert sniff(FILES[name][:64]) == decoded.format == name
    assert decoded.pixels.dtype == np.uint8
    if name == "HEIC":
        assert (decoded.width, decoded.height, corners(decoded.pixels)) == (32, 64, "BRWG")
    else:
        assert (decoded.width, decoded.height, corners(decoded.pixels)) == (64, 32, "RGBW")
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)


def test_an_mpo_of_a_stereo_camera_is_its_first_picture() -> None:
    data = encoded(quadrants(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert corners(decode(data).pixels) == "RGBW"


def test_bigtiff() -> None:
    data = encoded(quadrants(), "TIFF", big_tiff=True)
    assert data[2] == 43
    assert corners(decode(data).pixels) == "RGBW"


# EXIF 2.32: what the upright picture reads if the stored one reads RGBW.
UPRIGHT = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "AVIF"])
def test_orientation(name: str, orientation: int) -> None:
    decoded = decode(encoded(quadrants(), name, exif=orientation_exif(orientation)))
    assert corners(decoded.pixels) == UPRIGHT[orientation]
    assert (decoded.width, decoded.height) == ((32, 64) if orientation >= 5 else (64, 32))
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)


def exif_behind_pixels(data: bytes) -> bytes:
    """Move the EXIF data of a PNG to the end."""
    at = data.index(b"eXIf") - 4
    size = 12 + struct.unpack(">I", data[at : at + 4])[0]
    chunk, end = data[at : at + size], data.index(b"IEND") - 4
    return data[:at] + data[at + size : end] + chunk + data[end:]


# Compared with a real browser in test_as_browsers_show.py.
def test_exif_in_a_webp_or_behind_the_pixels_of_a_png_is_ignored_as_in_browsers() -> None:
    assert corners(decode(encoded(quadrants(), "WEBP", exif=orientation_exif(6))).pixels) == "RGBW"
    decoded = decode(exif_behind_pixels(encoded(quadrants(), "PNG", exif=orientation_exif(6))))
    assert corners(decoded.pixels) == "RGBW"
    assert (decoded.width, decoded.height) == (64, 32)


BROKEN_EXIF = {
    "no header": b"Exif\0\0garbage garbage",
    "wrong header": b"Exif\0\0XX\0*\0\0\0\x08",
    "nothing": b"Exif\0\0",
    "an offset beyond the end": b"Exif\0\0MM\0*\xff\xff\xff\x08",
    "more entries than there are": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\x10\0\3",
    "cut short": orientation_exif(6)[:24],
    "no such orientation": orientation_exif(9),
    "an orientation in letters": b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\1\0\6\0\0\0\0\0\0",
}


@pytest.mark.parametrize("exif", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_means_upright(name: str, exif: bytes) -> None:
    assert corners(decode(encoded(quadrants(), name, exif=exif)).pixels) == "RGBW"


def test_broken_exif_in_an_avif_means_upright() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = encoded(quadrants(), "AVIF", exif=exif)
    assert b"MM\0*" in data
    assert corners(decode(data.replace(b"MM\0*", b"XX\0*")).pixels) == "RGBW"


def test_scaled_decoding_of_a_jpeg_is_no_smaller_than_requested() -> None:
    data = encoded(quadrants(640, 320), "JPEG")
    for at_least, expected in {
        (320, 640): (320, 640),
        (161, 10): (320, 640),
        (160, 10): (160, 320),
        (40, 80): (40, 80),
        (1, 1): (40, 80),
        (0, 0): (40, 80),
        (1000, 1000): (320, 640),
    }.items():
        decoded = decode(data, at_least=at_least)
        assert decoded.pixels.shape[:2] == expected
        assert (decoded.width, decoded.height) == (640, 320)
        assert corners(decoded.pixels) == "RGBW"


def test_scaled_decoding_respects_the_orientation() -> None:
    data = encoded(quadrants(640, 320), "JPEG", exif=orientation_exif(6))  # upright 320 wide, 640 high
    decoded = decode(data, at_least=(300, 40))
    assert decoded.pixels.shape == (320, 160, 3)
    assert (decoded.width, decoded.height) == (320, 640)
    assert corners(decoded.pixels) == "BRWG"


def test_other_formats_are_decoded_in_full() -> None:
    assert decode(FILES["PNG"], at_least=(4, 4)).pixels.shape == (32, 64, 3)
    assert decode(HEIC, at_least=(4, 4)).pixels.shape == (64, 32, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    decoded = decode(encoded(Image.new("RGB", size, "red"), "PNG"))
    assert decoded.pixels.shape == (size[1], size[0], 3)
    assert resize(decoded.pixels, (8, 8)).tolist() == [[[255, 0, 0]] * 8] * 8


def _with_size(name: str, width: int, height: int) -> bytes:
    """Make a small file whose header claims the given size."""
    data = FILES[name]
    if name == "JPEG":
        return jpeg_of_size(width, height)
    if name == "PNG":
        return png(width, height, 1, 0, bytes(100))
    if name == "GIF":
        return data[:6] + struct.pack("<HH", width, height) + data[10:]
    if name == "BMP":
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    if name == "WEBP":
        return data[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[30:]
    old = struct.pack("<HHIHH", 256, 3, 1, 64, 0), struct.pack("<HHIHH", 257, 3, 1, 32, 0)
    new = struct.pack("<HHII", 256, 4, 1, width), struct.pack("<HHII", 257, 4, 1, height)
    return data.replace(old[0], new[0]).replace(old[1], new[1])


@pytest.mark.parametrize(
    ("name", "side"),
    [("JPEG", 50_000), ("PNG", 50_000), ("GIF", 50_000), ("BMP", 30_000), ("TIFF", 50_000), ("WEBP", 16_384)],
)
def test_a_bomb_is_refused_by_its_header(name: str, side: int) -> None:
    data = _with_size(name, side, side)
    assert len(data) < 8_000
    with pytest.raises(ImageTooLargeError, match="smaller copy"):
        decode(data)
    with pytest.raises(ImageTooLargeError):
        decode(data, at_least=(96, 96))


def test_the_pixel_limit_is_exact() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert decode(data, max_pixels=100).width == 10
    with pytest.raises(ImageTooLargeError, match="10 x 10"):
        decode(data, max_pixels=99)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"GIF"}))
def test_half_a_file_is_damaged(name: str) -> None:
    with pytest.raises(DamagedImageError, match=f"This {name} image is damaged, cut short or") as caught:
        decode(FILES[name][: len(FILES[name]) // 2])
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "The file is empty."),
        (b"hello, this is text", "not an image that can be read; JPEG"),
        (b"BM is how this text begins, and it goes on", "not an image"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\n <svg xmlns=", "an SVG drawing"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript drawing"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="x">', "an SVG drawing"),
        (b"\xef\xbb\xbf<!DOCTYPE HTML>\n<title>404</title>", "a web page.*download the picture itself"),
        (b"<?xml version='1.0'?><!DOCTYPE html><html>", "a web page"),
        (b"8BPS\0\1", "a Photoshop document.*Export it"),
        (b"\x1aE\xdf\xa3\x01", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\3\4\x14\0", "a ZIP archive"),
        (bytes(128) + b"DICM", "a DICOM image"),
    ],
)
def test_files_that_are_not_images_are_named(data: bytes, words: str) -> None:
    assert sniff(data) is None
    with pytest.raises(NotAnImageError, match=words):
        decode(data)


def test_threads_decode_alike() -> None:
    work = [*FILES.values()] * 6
    alone = [decode(data).pixels for data in work]
    with ThreadPoolExecutor(8) as pool:
        together = [decoded.pixels for decoded in pool.map(decode, work)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_resize_is_pillows_bicubic_and_returns_a_new_array() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    resized = resize(pixels, (24, 32))
    assert np.array_equal(resized, np.asarray(Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC)))
    assert resized.flags.writeable
    same = resize(pixels, (37, 53))
    assert np.array_equal(same, pixels)
    assert not np.shares_memory(same, pixels)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "HEIC"])
def test_decoding_to_a_size_equals_decoding_and_resizing(name: str) -> None:
    decoded = decode(FILES[name], size=(24, 18))
    assert np.array_equal(decoded.pixels, resize(decode(FILES[name]).pixels, (24, 18)))
    assert (decoded.width, decoded.height) == ((32, 64) if name == "HEIC" else (64, 32))


def test_average_colour() -> None:
    assert average_colour(np.full((1, 1, 3), (1, 2, 255), dtype=np.uint8)) == "#0102ff"
    half = np.zeros((20, 30, 3), dtype=np.uint8)
    half[:10] = (200, 100, 50)
    assert average_colour(half) == "#643219"
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    colour = np.frombuffer(bytes.fromhex(average_colour(noise)[1:]), dtype=np.uint8)
    assert np.abs(colour - noise.reshape(-1, 3).mean(axis=0)).max() <= 1
