"""Animations whose first frame is empty."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from searchengine.images import decode, rgb, thumbnail
from searchengine.images.opening import OPENERS
from tests.images.pictures import chunk, corners, encoded, quadrants
from tests.images.test_repair import photo

ANIMATED = ["GIF", "PNG", "WEBP", "AVIF"]
CLEAR = (0, 0, 0, 0)


def animation(format_: str, *frames: Image.Image) -> bytes:
    return encoded(frames[0], format_, save_all=True, append_images=frames[1:], duration=100)


def plain(colour: tuple[int, ...]) -> Image.Image:
    return Image.new("RGBA", (64, 32), colour)


@pytest.mark.parametrize("format_", ANIMATED)
@pytest.mark.parametrize("empty", [CLEAR, (0, 0, 0, 255), (255, 255, 255, 255), (10, 10, 200, 255)])
def test_an_empty_first_frame_is_skipped(format_: str, empty: tuple[int, ...]) -> None:
    faint = plain(empty)
    faint.paste(tuple(min(value + 8, 255) for value in empty), (0, 0, 9, 9))
    data = animation(format_, plain(empty), faint, quadrants().convert("RGBA"), plain((200, 40, 40, 255)))
    assert corners(decode(data).pixels) == "RGBW"
    assert corners(decode(thumbnail(data)).pixels) == "RGBW"


@pytest.mark.parametrize("format_", ANIMATED)
def test_a_frame_of_one_colour_is_better_than_a_transparent_one(format_: str) -> None:
    data = animation(format_, plain(CLEAR), plain((200, 40, 40, 255)))
    assert np.abs(decode(data).pixels[16, 32].astype(int) - (200, 40, 40)).max() < 10
    data = animation(format_, plain((200, 40, 40, 255)), plain((40, 40, 200, 255)))
    assert np.abs(decode(data).pixels[16, 32].astype(int) - (200, 40, 40)).max() < 10


@pytest.mark.parametrize("format_", ANIMATED)
def test_nothing_but_empty_frames_and_frames_that_cannot_be_read(format_: str) -> None:
    assert decode(animation(format_, plain(CLEAR), plain(CLEAR))).pixels.min() > 250
    assert decode(encoded(plain(CLEAR), format_)).pixels.min() > 250


def test_a_frame_that_is_cut_short_is_better_than_an_empty_one() -> None:
    whole = animation("GIF", plain(CLEAR), photo(64, 32).convert("RGBA"))
    cut = decode(whole[: len(whole) * 9 // 10]).pixels
    assert np.array_equal(cut[:16], decode(whole).pixels[:16])


def test_the_number_of_frames_examined_is_bounded() -> None:
    many = [plain((i % 2, 0, 0, 255)) for i in range(80)]
    assert corners(decode(animation("GIF", *many, quadrants().convert("RGBA"))).pixels) == "KKKK"


def with_first_frame_at(left: int, top: int, gif: bytes) -> bytes:
    """Move the first frame of a GIF on a canvas that grows by as much."""
    at = gif.index(b",\0\0\0\0") + 1
    moved = gif[:at] + struct.pack("<HH", left, top) + gif[at + 4 :]
    width, height = struct.unpack("<HH", gif[6:10])
    return moved[:6] + struct.pack("<HH", width + left, height + top) + moved[10:]


@pytest.mark.parametrize("mode", ["P", "L"])
def test_the_area_outside_the_first_frame_of_a_gif_is_white(mode: str) -> None:
    data = with_first_frame_at(64, 32, encoded(Image.new("RGB", (64, 32), (40, 40, 40)).convert(mode), "GIF"))
    assert corners(decode(data).pixels) == "WWWK"


def test_the_default_image_of_an_animation_is_not_shown() -> None:
    """It is meant for programs without support for animations, and must not show through the first frame."""

    def filtered(image: Image.Image) -> bytes:
        rows = np.asarray(image)
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    def control(number: int, blend: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 64, 32, 0, 0, 1, 10, 0, blend))

    default, frame = Image.linear_gradient("L").resize((64, 32)).convert("RGBA"), quadrants().convert("RGBA")
    frame.paste(CLEAR, (32, 16, 64, 32))
    for blend in (0, 1):
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 32, 8, 6, 0, 0, 0))
        data += chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"IDAT", filtered(default)) + control(0, blend)
        without_frames = data + chunk(b"IEND", b"")
        data += chunk(b"fdAT", struct.pack(">I", 1) + filtered(frame)) + chunk(b"IEND", b"")
        assert corners(decode(data).pixels) == "RGBW"
        assert np.abs(decode(without_frames).pixels.astype(int) - np.asarray(default)[..., :3]).max() == 0


def test_a_large_animation_with_an_empty_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rgb, "_FRAME_PIXELS", 64 * 32 - 1)
    file = OPENERS["GIF"](animation("GIF", plain(CLEAR), quadrants().convert("RGBA")))
    file.load()
    assert corners(np.asarray(rgb.frame_with_content(file))) == "RGBW"
