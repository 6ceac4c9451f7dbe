"""Mutated image files, and the outcome of decoding them. Workers import this, so it does not import pytest."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from searchengine.errors import ImageError
from searchengine.images import decode, thumbnail
from searchengine.images.isolation import is_ordinary

_PNG = b"\x89PNG\r\n\x1a\n"


def mutants(files: Sequence[bytes], numbers: range, *, ordinary: bool) -> Iterator[bytes]:
    """Return the numbers of mutants that are decoded in this process, or of those that are decoded in a worker."""
    for number in numbers:
        chance = random.Random(number)
        data = mutated(chance.choice(files), chance)
        if is_ordinary(data) is ordinary:
            yield data


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change, remove, repeat or set to extremes a few bytes, or cut the file short."""
    file = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        at = chance.randrange(len(file) + 1)
        length = chance.choice((0, 1, 1, 2, 4, 50))
        new = chance.choice(
            (b"", b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", chance.randbytes(4), bytes(file[at : at + 64]))
        )
        file[at : at + length] = new
    if chance.random() < 0.1:
        del file[chance.randrange(len(file) + 1) :]
    return _with_checksums(bytes(file)) if chance.random() < 0.5 else bytes(file)


def _with_checksums(data: bytes) -> bytes:
    """Correct the checksums of a PNG, so that more of it is read; return other files unchanged."""
    if not data.startswith(_PNG):
        return data
    at, file = len(_PNG), bytearray(data)
    while at + 12 <= len(file):
        end = at + 8 + int.from_bytes(file[at : at + 4])
        if end + 4 <= len(file):
            file[end : end + 4] = struct.pack(">I", zlib.crc32(file[at + 4 : end]))
        at = end + 4
    return bytes(file)


def outcome(data: bytes) -> str:
    """Return "decoded" or the name of our exception. Other exceptions are raised."""
    try:
        decode(data, size=(24, 24), preview=32, max_pixels=1_000_000)
        thumbnail(data, max_side=32)
    except ImageError as error:
        return type(error).__name__
    return "decoded"


def outcomes(files: Sequence[bytes], numbers: range, *, ordinary: bool) -> Counter[str]:
    """Count the outcomes."""
    return Counter(map(outcome, mutants(files, numbers, ordinary=ordinary)))
