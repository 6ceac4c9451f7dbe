"""Mutated files of every kind through the decoder: nothing but our own errors, in bounded memory."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from searchengine.errors import ImageError
from searchengine.images import decode, thumbnail
from tests.images.seeds import seeds
from tests.torture.conftest import sizes

_THREADS = 2  # as many as the server lets decode at a time
_MEMORY = 1_500  # MiB that this process may take; what its workers take is bounded where they are


def mutated(data: bytes, chance: random.Random) -> bytes:
    """With a few bytes changed, removed, repeated or set to extremes, or cut short."""
    file = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(file) + 1)
        length = chance.choice((0, 1, 1, 2, 4, 50))
        new = chance.choice(
            (b"", b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", chance.randbytes(4), bytes(file[at : at + 64]))
        )
        file[at : at + length] = new
    return bytes(file[: chance.randrange(len(file) + 1)] if chance.random() < 0.1 else file)


def read(data: bytes) -> str:
    """What became of it."""
    try:
        decode(data, size=(24, 24), preview=32, max_pixels=1_000_000)
        thumbnail(data, max_side=32)
    except ImageError as error:
        return type(error).__name__
    return "decoded"


@pytest.mark.torture
@pytest.mark.parametrize("inputs", sizes("TORTURE_IMAGES_MUTATED", 2_000, 500_000))
def test_mutated_files_of_every_kind(inputs: int) -> None:
    files, outcomes = list(seeds().values()), dict[str, int]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again: other tests ran in this process before
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, inputs, 1000):
            chances = [random.Random(number) for number in range(start, min(start + 1000, inputs))]
            for outcome in pool.map(lambda chance: read(mutated(chance.choice(files), chance)), chances):
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(outcomes)
    assert sum(outcomes.values()) == inputs
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    assert int(peak[1]) < _MEMORY * 1024
