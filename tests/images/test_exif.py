"""The date and the camera of photos, read from the metadata of every format that has them."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from searchengine.images.metadata import Shot, exif_orientation, read_shot
from tests.images.pictures import encoded

SHOT = Shot("2024-05-17T12:34:56", "Canon EOS 5D")


def exif(taken: str = "2024:05:17 12:34:56", make: str = "Canon", model: str = "Canon EOS 5D") -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = 6
    data[0x010F], data[0x0110] = make, model
    data.get_ifd(0x8769)[0x9003] = taken
    return data


def saved(format_: str, data: Image.Exif | bytes = b"") -> bytes:
    return encoded(Image.new("RGB", (9, 7), "red"), format_, exif=data)


def shot_in(data: bytes) -> Shot:
    return read_shot(io.BytesIO(data))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_the_metadata_of_each_format(format_: str) -> None:
    assert shot_in(saved(format_, exif())) == SHOT
    assert shot_in(saved(format_)) == Shot()


def big_endian(*blocks: tuple[int, int, bytes]) -> bytes:
    """Return a TIFF structure of one directory, given (tag, type, four bytes) for each entry."""
    entries = b"".join(struct.pack(">HHI4s", tag, kind, 1, value) for tag, kind, value in blocks)
    return b"MM\0*" + struct.pack(">IH", 8, len(blocks)) + entries + bytes(4)


def test_camera_raw_files() -> None:
    block = exif().tobytes().removeprefix(b"Exif\0\0")
    assert shot_in(block) == SHOT  # as a TIFF, a NEF and a DNG begin
    assert shot_in(saved("TIFF", exif())).camera == SHOT.camera
    assert shot_in(b"FUJIFILMCCD-RAW ".ljust(200, b"\0") + saved("JPEG", exif())) == SHOT
    inner = Image.Exif()
    inner[0x9003] = "2023:01:02 03:04:05"
    outer = Image.Exif()
    outer[0x0110] = "EOS R5"
    cr3 = (
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom\0\0\0\0moov\0\0\0\0CMT1"
        + outer.tobytes().removeprefix(b"Exif\0\0")
        + b"\0\0\0\0CMT2"
        + inner.tobytes().removeprefix(b"Exif\0\0")
    )
    assert shot_in(cr3) == Shot("2023-01-02T03:04:05", "EOS R5")


def test_exif_data_across_two_reads() -> None:
    """WebP and HEIC files may have them far from the beginning, here where a read ends within their name."""
    block = b"Exif\0\0" + exif().tobytes().removeprefix(b"Exif\0\0")
    head = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"
    for at in range(2**20 - 12, 2**20 + 2):
        assert shot_in(head.ljust(at, b"\1") + block) == SHOT


class WatchedFile(io.BytesIO):
    """A file that counts its reads, and remembers how far they went."""

    reads = furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.reads, self.furthest = self.reads + 1, max(self.furthest, self.tell())
        return content


def test_nothing_behind_the_metadata_of_a_jpeg_is_read() -> None:
    for data, shot in ((saved("JPEG", exif()), SHOT), (saved("JPEG"), Shot())):
        file = WatchedFile(data + bytes(10_000_000))
        assert read_shot(file) == shot
        assert file.furthest < 50_000


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("2024:05:17 12:34:56", "2024-05-17T12:34:56"),
        ("2024-05-17T12:34:56", "2024-05-17T12:34:56"),
        ("2024:05:17", "2024-05-17T00:00:00"),
        ("0000:00:00 00:00:00", None),
        ("2024:02:30 12:00:00", None),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times(text: str, taken: str | None) -> None:
    assert shot_in(saved("JPEG", exif(text))).taken == taken


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("SONY  ", " DSC-RX100 ", "SONY DSC-RX100"),
        ("OLYMPUS IMAGING CORP.", "E-M1", "OLYMPUS E-M1"),
        ("EASTMAN KODAK COMPANY", "KODAK DC290", "KODAK DC290"),
        ("Canon", "", "Canon"),
        ("", "EOS\x01 5D", "EOS 5D"),
        ("", "", ""),
    ],
)
def test_cameras(make: str, model: str, camera: str) -> None:
    assert shot_in(saved("JPEG", exif(make=make, model=model))).camera == camera


@pytest.mark.parametrize("size", range(0, 200, 7))
def test_broken_blocks(size: int) -> None:
    block = exif().tobytes()
    assert exif_orientation(block) == 6
    assert exif_orientation(block[:size]) in (1, 6)
    taken = shot_in(block.removeprefix(b"Exif\0\0")[:size]).taken
    assert taken is None or taken[:10] == SHOT.taken[:10]  # type: ignore[index]


def test_a_directory_that_points_to_itself() -> None:
    assert shot_in(big_endian((0x8769, 4, struct.pack(">I", 8)))) == Shot()
    assert exif_orientation(big_endian((0x0112, 3, b"\0\3\0\0"))) == 3
    assert exif_orientation(big_endian((0x0112, 3, b"\0\x09\0\0"))) == 1


@settings(max_examples=100)
@given(
    st.sampled_from([b"\xff\xd8\xff\xe1\0\x40Exif\0\0", b"", b"RIFF\0\0\0\0WEBPEXIF\0\0\0\0"]), st.binary(max_size=200)
)
def test_random_metadata(head: bytes, data: bytes) -> None:
    for order in (b"II*\0", b"MM\0*"):
        assert shot_in(head + order + data).taken is None
        assert 1 <= exif_orientation(order + data) <= 8


def test_the_number_of_blocks_read_is_bounded() -> None:
    block = b"Exif\0\0II*\0\x08\0\0\0\0\0"
    file = WatchedFile(saved("WEBP") + block * 2000)
    assert read_shot(file) == Shot()
    assert file.reads < 100
