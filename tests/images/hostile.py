"""A folder of files that do not belong among photos, and of odd photos that do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tests.images.pictures import encoded, every_format, jpeg_of_size, orientation_exif, png, quadrants, tiff

Outcome = Literal["ok", "skipped", "ignored"]
Add = Callable[[str | bytes, bytes, Outcome], None]


def make_hostile(folder: Path) -> dict[bytes, Outcome]:
    """Fill an empty folder, and return the expected outcome of indexing each path (relative, ``/``-separated).

    ``"ok"``: an image that a search finds. ``"skipped"``: not an image, reported with a reason. ``"ignored"``: neither
    read nor reported. The folder also has pipes and circular links. No two ``"ok"`` files have the same content.
    """
    expected: dict[bytes, Outcome] = {}
    content: dict[bytes, bytes] = {}

    def add(name: str | bytes, data: bytes, outcome: Outcome) -> None:
        path = os.fsencode(name)
        content[path], expected[path] = data, outcome

    _add_odd_names(add)
    _add_odd_content(add)
    _add_cut_short(add)
    for path, data in content.items():
        file = folder / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    os.mkfifo(folder / "pipe.jpg")
    links: dict[str, tuple[str, Outcome]] = {
        "circle.jpg": ("circle.jpg", "skipped"),
        "dead link.jpg": ("nowhere.jpg", "skipped"),
        "loop": (".", "ignored"),
        "names/up": ("..", "ignored"),
        "to-pipe.jpg": ("pipe.jpg", "ignored"),
    }
    for name, (target, outcome) in links.items():
        (folder / name).symlink_to(target)
        expected[os.fsencode(name)] = outcome
    expected[b"pipe.jpg"] = "ignored"
    return expected


def numbered(number: int) -> bytes:
    """Make a small JPEG, different for each number."""
    return encoded(Image.new("RGB", (16, 12), (number * 7 % 256, number * 31 % 256, number * 101 % 256)), "JPEG")


def _add_odd_names(add: Add) -> None:
    names: list[str | bytes] = [
        "with space",
        " leading and trailing ",
        "new\nline",
        "tab\tand bell\a",
        "quote\"'s",
        "back\\slash",
        "emoji \U0001f431\U0001f3fd",
        "e\N{COMBINING ACUTE ACCENT} and \N{LATIN SMALL LETTER E WITH ACUTE}",
        "\N{RIGHT-TO-LEFT OVERRIDE}gpj",
        b"not utf-8 \xff\xfe",
        "-rf",
        "*?[a-z]{b}",
        "%2e%2e%2f",
        "<b>&amp;",
        "$(touch x);`y`",
        "n" * 245,
    ]
    for number, name in enumerate(names):
        add(b"names/" + os.fsencode(name) + b".jpg", numbered(number), "ok")
    add(b"folder \xff\n/inside.jpg", numbered(100), "ok")
    add("deep/" * 40 + "image.jpg", numbered(101), "ok")
    add("wrong ending.png", numbered(102), "ok")
    add("no ending", numbered(103), "ok")
    add("strange.ending", numbered(104), "ok")
    add("notes.txt", b"a text", "ignored")
    add(".hidden.jpg", numbered(105), "ignored")
    add(".hidden/image.jpg", numbered(106), "ignored")


def _add_odd_content(add: Add) -> None:
    for name, data in every_format().items():
        add(f"formats/{name.lower()}.image", data, "ok")
    image = quadrants()
    add("odd/1x1.png", encoded(Image.new("RGB", (1, 1), "red"), "PNG"), "ok")
    add("odd/1x30000.png", encoded(Image.new("RGB", (1, 30_000), "red"), "PNG"), "ok")
    add("odd/30000x1.jpg", encoded(Image.new("RGB", (30_000, 1), "red"), "JPEG"), "ok")
    add("odd/broken exif.jpg", encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\x08"), "ok")
    add("odd/endless exif.tif", tiff(1, b"\x80", bits=8, more=[(0x8769, 4, (10**9,))]), "ok")
    add("odd/turned.jpg", encoded(image, "JPEG", exif=orientation_exif(6)), "ok")
    add("odd/grey 16 bit.png", encoded(image.convert("L").convert("I;16"), "PNG"), "ok")
    add("odd/cmyk.jpg", encoded(image.convert("CMYK"), "JPEG"), "ok")
    add("odd/alpha.png", encoded(image.convert("RGBA"), "PNG"), "ok")
    add("bad/empty.jpg", b"", "skipped")
    add("bad/one byte.jpg", b"\xff", "skipped")
    add("bad/text.jpg", b"this is a text and no photo", "skipped")
    add("bad/page.jpg", b"<!DOCTYPE html><title>404</title>", "skipped")
    add("bad/drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "skipped")
    add("bad/postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "skipped")
    add("bad/zeros.jpg", bytes(5_000), "skipped")
    add("bad/50000x50000.png", png(50_000, 50_000, 1, 0, bytes(5_000_000)), "skipped")
    add("bad/50000x50000.jpg", jpeg_of_size(50_000, 50_000), "skipped")
    add("bad/header only.jpg", encoded(image, "JPEG")[:20], "skipped")
    add("bad/wrong checksum.png", encoded(image, "PNG").replace(b"IDAT", b"IDAX"), "skipped")


def _add_cut_short(add: Add) -> None:
    """Cut a photo at every tenth of its length; so much is missing that none can be indexed."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8))
    for name in ("JPEG", "PNG", "WEBP"):
        data = encoded(noise, name)
        for tenth in range(10):
            add(f"cut/{tenth}0 percent.{name.lower()}", data[: len(data) * tenth // 10], "skipped")
