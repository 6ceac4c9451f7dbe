"""Ordinary images are decoded in this process, others in a worker, with the same result and within limits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from searchengine.errors import DamagedImageError, DecodingKilledError, ImageTooLargeError
from searchengine.images import decode, isolation, thumbnail
from searchengine.images.decoding import ImageSource
from searchengine.images.isolation import given_up_when, is_ordinary, without_fill_bytes
from searchengine.processes import Limits
from tests.images import misbehaving
from tests.images.pictures import encoded, every_format, jpeg_of_size, png, quadrants

FILES = every_format()
PROGRESSIVE = encoded(quadrants(), "JPEG", progressive=True)
TIFF = FILES["TIFF"]


def with_scans(data: bytes, count: int) -> bytes:
    """Make a progressive JPEG with more scans by repeating its last one."""
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def of_size(data: bytes, width: int, height: int) -> bytes:
    """Change the size in the header of a JPEG."""
    frame = re.search(rb"\xff[\xc0\xc2]", data)
    assert frame is not None
    at = frame.start() + 5
    return data[:at] + height.to_bytes(2) + width.to_bytes(2) + data[at + 4 :]


def with_chunks(data: bytes, name: bytes, count: int) -> bytes:
    """Add chunks with wrong checksums after the header of a PNG."""
    return data[:33] + (b"\0\0\0\0" + name + b"\0\0\0\0") * count + data[33:]


ORDINARY = {
    "photo": FILES["JPEG"],
    "large photo": jpeg_of_size(8000, 6000),
    "progressive": of_size(PROGRESSIVE, 6000, 4000),
    "progressive with a film behind it": PROGRESSIVE + b"\xff\xda" * 1000,
    "cut in its header": FILES["PNG"][:20],
    "screenshot": FILES["PNG"],
    "screenshot with a profile": with_chunks(FILES["PNG"], b"iCCP", 1),
    "text": b"a text",
    "nothing": b"",
}
OTHERS = {
    **{name: data for name, data in FILES.items() if name not in ("JPEG", "PNG")},
    "huge photo": jpeg_of_size(9000, 9000),
    "huge progressive": of_size(PROGRESSIVE, 7000, 7000),
    "arithmetic": FILES["JPEG"].replace(b"\xff\xc0", b"\xff\xc9"),
    "many scans": of_size(with_scans(PROGRESSIVE, 100), 2000, 2000),
    "scans one by one": of_size(FILES["JPEG"].replace(b"\x03\x01\x00\x02\x11", b"\x01\x01\x00"), 6000, 6000)
    + b"\xff\xda" * 20,
    "many comments": FILES["JPEG"][:2] + b"\xff\xfe\0\2" * 3000 + FILES["JPEG"][2:],
    "padding": FILES["JPEG"][:2] + b"\xff" * 100 + FILES["JPEG"][2:],
    "many bytes of padding between scans": PROGRESSIVE.replace(b"\xff\xda", b"\xff" * 300_000 + b"\xff\xda"),
    "metadata of megabytes": FILES["JPEG"][:2] + (b"\xff\xe1\xff\xff" + bytes(65_533)) * 70 + FILES["JPEG"][2:],
    "no header": FILES["JPEG"][:4],
    "huge screenshot": png(8000, 8000, 8, 2, b""),
    "rows of a pixel": png(1, 20_000_000, 8, 0, b""),
    "16 bits": png(4, 4, 16, 2, b""),
    "many chunks": with_chunks(FILES["PNG"], b"tEXt", 30_000),
    "many packed chunks": with_chunks(FILES["PNG"], b"zTXt", 60),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary(name: str) -> None:
    assert is_ordinary(ORDINARY[name])
    assert misbehaving.process(ORDINARY[name]) == os.getpid()


@pytest.mark.parametrize("name", OTHERS)
def test_not_ordinary(name: str) -> None:
    assert not is_ordinary(OTHERS[name])
    assert misbehaving.process(OTHERS[name]) != os.getpid()


@pytest.mark.parametrize("name", sorted(FILES))
def test_both_ways_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for ordinary in (True, False):
        monkeypatch.setattr(isolation, "is_ordinary", lambda _, ordinary=ordinary: ordinary)
        results.append((decode(FILES[name], size=(5, 7), preview=9), thumbnail(FILES[name])))
    (local, small_local), (isolated, small_isolated) = results
    np.testing.assert_array_equal(local.pixels, isolated.pixels)
    np.testing.assert_array_equal(local.preview, isolated.preview)
    assert (local.width, local.height, local.format) == (isolated.width, isolated.height, isolated.format)
    assert small_local == small_isolated
    assert not isolated.pixels.flags.writeable


def test_an_image_that_crashes_its_decoder_is_damaged() -> None:
    with pytest.raises(DamagedImageError, match=r"This TIFF image is damaged: .* \(signal 6\)"):
        misbehaving.crash(TIFF)


def test_limits_can_be_narrowed_in_a_call() -> None:
    with pytest.raises(ImageTooLargeError, match="too large to be decoded here"):
        misbehaving.devour_after_its_header(TIFF)
    with pytest.raises(ImageTooLargeError, match=r"^This TIFF image takes too long to decode\. Use a smaller copy\.$"):
        misbehaving.spin_after_its_header(TIFF)
    assert decode(TIFF).format == "TIFF"  # the next call has its own limits


def test_a_jpeg_2000_has_room_for_its_decoder() -> None:
    """JPEG 2000 takes twice as much memory as other formats."""
    flat = encoded(Image.new("RGBA", (5000, 5000)), "JPEG2000")
    assert decode(flat, size=(8, 8), max_pixels=80_000_000).width == 5000


@pytest.mark.parametrize(
    ("data", "megapixels"),
    [
        (jpeg_of_size(8000, 6000), [0, 48]),
        (png(4, 4, 16, 2, b""), [0, 0]),
        (FILES["WEBP"], [100, 0]),  # its decoder allocates the pixels when it opens the file
    ],
)
def test_limits_follow_the_header(data: bytes, megapixels: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Limits] = []
    monkeypatch.setattr(isolation, "limit_call", given.append)
    ImageSource(data, max_pixels=100_000_000)
    assert [limits.seconds for limits in given] == [10 + number // 4 for number in megapixels]
    assert [limits.memory > 500 * 2**20 for limits in given] == [number > 40 for number in megapixels]


def test_slow_decoding_is_given_up_when_others_wait() -> None:
    with given_up_when(lambda seconds: seconds > 0), pytest.raises(DecodingKilledError, match="and others wait"):
        misbehaving.spin(TIFF, max_pixels=1000)


def test_memory_is_bounded() -> None:
    with pytest.raises(ImageTooLargeError, match="This TIFF image is too large to be decoded here"):
        misbehaving.devour(TIFF)


def test_images_within_the_limits_are_decoded() -> None:
    side = 1000
    dark = np.random.default_rng(0).integers(0, 900, (side, side * 3)).astype(">u2")
    wide = png(side, side, 16, 2, b"".join(b"\0" + row.tobytes() for row in dark))
    frames = [Image.effect_noise((side, side), 90).convert("RGBA") for _ in range(2)]
    animation = encoded(Image.new("RGBA", (side, side)), "WEBP", save_all=True, append_images=frames, method=0)
    for data in (wide, animation, png(4, 4, 16, 2, bytes(4 * 25)) + bytes(150 * 2**20)):
        assert decode(data, size=(8, 8), max_pixels=side**2).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize(
    "changed",
    [
        lambda data: data,
        lambda data: data.replace(b"\xff\xc2", b"\xff\xca"),  # arithmetic coding
        lambda data: data[:2] + b"\xff\xfe\0\2" * 3000 + data[2:],
        lambda data: data[:2] + b"\xff" * 100 + data[2:],
        lambda data: data[:-2] + b"\xff\x01\xff\xff" + data[data.index(b"\xff\xda") :],  # a marker that has no length
    ],
)
def test_a_jpeg_of_endless_scans_is_refused(changed: Callable[[bytes], bytes]) -> None:
    bomb = changed(of_size(with_scans(PROGRESSIVE, 20_000), 4000, 4000))
    with pytest.raises(ImageTooLargeError, match="more than 31 scans"):
        decode(bomb)


@pytest.mark.parametrize(
    "shredded",
    [
        FILES["JPEG"][:2] + b"\xff\xfe\0\2" * 200_000 + FILES["JPEG"][2:],
        FILES["JPEG"].replace(b"\xff\xda", b"\xff\xdd\0\4\0\1" * 200_000 + b"\xff\xda"),
        with_chunks(FILES["PNG"], b"xxXx", 200_000),
        FILES["PNG"].replace(FILES["PNG"][33:41], (b"\0\0\0\0IDAT\x35\xaf\6\x1e") * 200_000 + FILES["PNG"][33:41]),
    ],
    ids=["JPEG of comments", "JPEG of restart intervals", "PNG of chunks", "PNG of empty pixels"],
)
def test_a_file_of_endless_pieces_is_refused(shredded: bytes) -> None:
    with pytest.raises(ImageTooLargeError, match="more than 100000 pieces"):
        decode(shredded)


@pytest.mark.parametrize("marker", [b"\xff\xc0", b"\xff\xc4", b"\xff\xda", b"\xff\xd9"])
def test_fill_bytes_are_skipped(marker: bytes) -> None:
    """A marker may follow any number of fill bytes. Similar bytes in metadata are kept."""
    profile = FILES["JPEG"][:2] + b"\xff\xe2\x40\0" + b"\xff" * 16_382 + FILES["JPEG"][2:]
    padded = profile.replace(marker, b"\xff" * 2_000_000 + marker, 1)
    assert without_fill_bytes(padded) == profile.replace(marker, b"\xff" + marker, 1)
    np.testing.assert_array_equal(decode(padded).pixels, decode(FILES["JPEG"]).pixels)


def test_an_icon_of_endless_entries_is_refused() -> None:
    with pytest.raises(DamagedImageError, match="its list of pictures does not end"):
        decode(b"icns" + (800_008).to_bytes(4) + b"xxxx\0\0\0\x08" * 100_000)


def test_a_small_jpeg_may_have_many_scans() -> None:
    decoded = decode(with_scans(PROGRESSIVE, 300))
    np.testing.assert_array_equal(decoded.pixels, decode(PROGRESSIVE).pixels)


def test_a_video_after_a_photo_does_not_count_as_scans() -> None:
    photo = encoded(Image.new("RGB", (4000, 2000), "red"), "JPEG", progressive=True)
    decoded = decode(photo + b"\xff\xda" * 1000, at_least=(8, 8))
    assert decoded.pixels[9, 9].tolist() == [254, 0, 0]
