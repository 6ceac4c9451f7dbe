"""Samples are spread evenly over the index, and a larger sample includes a smaller one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from searchengine.index.local import LocalIndex
from tests.analyse.filled import fill


def index_of(folder: Path, count: int, gone: range = range(0)) -> LocalIndex:
    return fill(folder, np.zeros((count, 2), np.float32), gone=gone)


def ids_of(index: LocalIndex, n: int) -> list[int]:
    return [record.id for record in index.sample(n)]


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000])
def test_a_sample_is_even_by_id_and_part_of_a_larger_one(count: int, tmp_path: Path) -> None:
    index = index_of(tmp_path, count)
    before: set[int] = set()
    for n in (0, 1, 2, 3, 10, 30, 60, 61, 120, 240, 500, 999, 1000, 5000):
        ids = ids_of(index, n)
        assert len(ids) == min(n, count)
        assert ids == sorted(ids)
        assert before <= set(ids)
        if ids:
            gaps = [following - id_ for id_, following in pairwise([0, *ids, count + 1])]
            assert max(gaps) <= 4 * count / len(ids) + 1
        before = set(ids)


def test_removed_images_leave_no_gap(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index", 100)
    index_of(tmp_path / "index", 0, gone=range(1, 81))
    assert ids_of(index, 50) == list(range(81, 101))
    index_of(tmp_path / "index", 0, gone=range(81, 101))
    assert ids_of(index, 5) == []
