"""Animations of which the first frame is empty."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from searchengine.images import decode, thumbnail
from tests.images.pictures import corners, encoded, quadrants

ANIMATED = ["GIF", "PNG", "WEBP", "AVIF"]
CLEAR = (0, 0, 0, 0)


def animation(format_: str, *frames: Image.Image) -> bytes:
    return encoded(frames[0], format_, save_all=True, append_images=frames[1:], duration=100)


def plain(colour: tuple[int, ...]) -> Image.Image:
    return Image.new("RGBA", (64, 32), colour)


@pytest.mark.parametrize("format_", ANIMATED)
@pytest.mark.parametrize("empty", [CLEAR, (0, 0, 0, 255), (255, 255, 255, 255), (10, 10, 200, 255)])
def test_an_empty_first_frame_is_passed_over(format_: str, empty: tuple[int, ...]) -> None:
    faint = plain(empty)
    faint.paste(tuple(min(value + 8, 255) for value in empty), (0, 0, 9, 9))
    data = animation(format_, plain(empty), faint, quadrants().convert("RGBA"), plain((200, 40, 40, 255)))
    assert corners(decode(data).pixels) == "RGBW"
    assert corners(decode(thumbnail(data)).pixels) == "RGBW"


@pytest.mark.parametrize("format_", ANIMATED)
def test_a_frame_of_one_colour_is_better_than_none(format_: str) -> None:
    data = animation(format_, plain(CLEAR), plain((200, 40, 40, 255)))
    assert np.abs(decode(data).pixels[16, 32].astype(int) - (200, 40, 40)).max() < 10
    data = animation(format_, plain((200, 40, 40, 255)), plain((40, 40, 200, 255)))
    assert np.abs(decode(data).pixels[16, 32].astype(int) - (200, 40, 40)).max() < 10


@pytest.mark.parametrize("format_", ANIMATED)
def test_nothing_but_empty_frames_and_frames_that_cannot_be_read(format_: str) -> None:
    assert decode(animation(format_, plain(CLEAR), plain(CLEAR))).pixels.min() > 250
    assert decode(encoded(plain(CLEAR), format_)).pixels.min() > 250


def test_only_so_many_frames_are_looked_at() -> None:
    frames = [plain((i % 2, 0, 0, 255)) for i in range(80)]
    assert corners(decode(animation("GIF", *frames, quadrants().convert("RGBA"))).pixels) == "KKKK"
