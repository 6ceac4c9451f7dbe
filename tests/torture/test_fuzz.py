"""Mutated files of every kind: the decoder raises only its own exceptions, in bounded memory."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from searchengine.processes import CallFailedError, Limits, Pool
from tests.images.mutants import outcomes
from tests.images.seeds import seeds
from tests.torture.conftest import sizes

_THREADS = 2  # as many as the server lets decode at a time
_MEMORY = 1_500  # MiB that this process may take
# As the product has it for one image of a million pixels. A call for each would take several times as long.
_BATCH, _LIMITS = 200, Limits(seconds=10, memory=212 * 2**20)


@pytest.mark.torture
@pytest.mark.parametrize("inputs", sizes("TORTURE_IMAGES_MUTATED", 6_000, 500_000))
def test_mutated_files_of_every_kind(inputs: int) -> None:
    """Decodes ordinary files in this process and all others in workers, which have no workers themselves."""
    files, seen, workers = list(seeds().values()), Counter[str](), Pool(_THREADS)

    def batch(start: int) -> Counter[str]:
        numbers = range(start, min(start + _BATCH, inputs))
        ordinary = outcomes(files, numbers, ordinary=True)
        try:
            return ordinary + workers.call(outcomes, files, numbers, ordinary=False, limits=_LIMITS)
        except (CallFailedError, MemoryError):  # one crashes its decoder or takes too much: each in a call of its own
            return ordinary + outcomes(files, numbers, ordinary=False)

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again: other tests ran in this process before
    with ThreadPoolExecutor(_THREADS) as pool:
        for counts in pool.map(batch, range(0, inputs, _BATCH)):
            seen += counts
            if seen.total() % 10_000 == 0:
                print(dict(seen), flush=True)
    workers.close()
    assert seen.total() == inputs
    assert seen["decoded"] > 0.1 * inputs
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    assert int(peak[1]) < _MEMORY * 1024
