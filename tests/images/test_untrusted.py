"""Whatever the bytes, only our own errors come out, and Pillow's warnings stay inside."""

from __future__ import annotations

import io
import logging
import threading
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from searchengine.errors import DamagedImageError, ImageError, ImageTooLargeError
from searchengine.images import DecodedImage, decode, opening, sniff, thumbnail
from searchengine.images.quiet import quiet
from tests.images.pictures import HEIC, corners, encoded, every_format, quadrants, tiff

FILES = every_format()
HEADS = [data[:12] for data in FILES.values()]


def decodes_or_says_why(data: bytes) -> None:
    try:
        assert isinstance(decode(data, max_pixels=1_000_000), DecodedImage)
        decode(data, at_least=(8, 8), max_pixels=1_000_000)
    except ImageError as error:
        message = str(error)
        assert message.endswith(".")
        assert len(message) < 400


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_mutated_files(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(list(FILES.values()))))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(file)))
        some = data.draw(st.binary(max_size=6))
        cut = data.draw(st.sampled_from([0, len(some), 1, 50]))
        file[at : at + cut] = some
    decodes_or_says_why(bytes(file))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(head=st.sampled_from([b"", *HEADS]), rest=st.binary(max_size=300))
def test_random_bytes(head: bytes, rest: bytes) -> None:
    decodes_or_says_why(head + rest)
    assert sniff(rest) is None or rest


def test_a_heic_that_kills_pi_heif_when_its_metadata_is_read() -> None:
    assert corners(decode(HEIC.replace(b"Exif\0", b"\xffxif\0")).pixels) == "BRWG"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (SyntaxError("broken"), DamagedImageError),
        (EOFError(), DamagedImageError),
        (OSError("cannot"), DamagedImageError),
        (RecursionError(), DamagedImageError),
        (MemoryError(), ImageTooLargeError),
        (Image.DecompressionBombError("bomb"), ImageTooLargeError),
    ],
)
def test_a_decoders_exception_is_translated_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[ImageError]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setitem(opening._FILES, "PNG", fail)
    with pytest.raises(expected, match="This PNG image") as caught:
        decode(FILES["PNG"])
    assert caught.value.__cause__ is raised


# Pillow warns of this one: its EXIF block is announced beyond the end of the file.
WARNED_OF = tiff(1, b"\x80", bits=8, more=[(0x8769, 4, 10**9)])


def test_pillow_would_warn() -> None:
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(_file(WARNED_OF)).load()


@pytest.mark.filterwarnings("always")
def test_no_warning_leaves_and_none_becomes_an_error() -> None:
    with warnings.catch_warnings(record=True) as seen:
        assert decode(WARNED_OF).pixels.tolist() == [[[128, 128, 128]]]
        thumbnail(WARNED_OF)
        assert not seen
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(WARNED_OF).pixels.tolist() == [[[128, 128, 128]]]


def test_other_threads_keep_their_warnings() -> None:
    inside, done = threading.Event(), threading.Event()

    def decoding() -> None:
        with quiet():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=decoding)
    thread.start()
    try:
        assert inside.wait(10)
        with pytest.warns(UserWarning, match="Corrupt EXIF"):
            Image.open(_file(WARNED_OF)).load()
    finally:
        done.set()
        thread.join()


def test_pillow_prints_nothing_as_a_last_resort(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(TiffImagePlugin, "MAX_SAMPLESPERPIXEL", 0)  # at which Pillow logs an error
    with pytest.raises(DamagedImageError):
        decode(encoded(quadrants(), "TIFF"))
    assert capsys.readouterr() == ("", "")


def _file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)
