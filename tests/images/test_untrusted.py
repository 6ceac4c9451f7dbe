"""Whatever the bytes, only the project's own exceptions are raised."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from searchengine.errors import DamagedImageError, ImageError, ImageTooLargeError
from searchengine.images import DecodedImage, decode, opening, sniff
from tests.images.mutants import mutated
from tests.images.pictures import HEIC, corners
from tests.images.seeds import seeds

FILES = seeds()
HEADS = [data[:12] for data in FILES.values()]


def decodes_or_says_why(data: bytes) -> None:
    try:
        assert isinstance(decode(data, max_pixels=1_000_000), DecodedImage)
        decode(data, at_least=(8, 8), max_pixels=1_000_000)
    except ImageError as error:
        message = str(error)
        assert message.endswith(".")
        assert len(message) < 400


def test_mutated_files() -> None:
    for number in range(200):
        chance = random.Random(number)
        decodes_or_says_why(mutated(chance.choice(list(FILES.values())), chance))


@settings(max_examples=150)
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

    monkeypatch.setitem(opening.OPENERS, "PNG", fail)
    with pytest.raises(expected, match="This PNG image") as caught:
        decode(FILES["PNG"])
    assert caught.value.__cause__ is raised
