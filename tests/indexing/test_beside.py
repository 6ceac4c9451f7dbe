"""A reader, and a second run, beside a run. Killed runs are in tests/torture."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from searchengine.engine import open_index
from searchengine.errors import IndexDamagedError, IndexLockedError, IndexNotFoundError
from searchengine.index.local import LocalIndex
from searchengine.indexing import update_index
from searchengine.indexing.verify import verify
from tests.fakes import FakeExtractor, picture

COUNT = 120


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        (folder / f"{i:03d}.png").write_bytes(picture((i, 2 * i % 256, 7)))
    return folder


def check(index: Path) -> int:
    """Check that the index answers, each row is right, and it verifies; return the number of its images."""
    try:
        opened = open_index(index)
    except IndexNotFoundError:
        return 0
    try:
        for path, row in zip(opened.paths, opened.features, strict=True):
            i = int(path[:3])
            np.testing.assert_array_equal(row, [i, 2 * i % 256, 7] * 4)
        if len(opened):
            assert opened.search(opened.features[:1], 3)[0][0].distance == 0.0
        assert verify(index).sound
        return len(opened)
    finally:
        opened.close()


@pytest.mark.slow
def test_a_reader_follows_a_run_and_is_never_wrong(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    command = [sys.executable, "-m", "tests.indexing.slow_run", str(photos), str(index)]
    run = subprocess.Popen(command)
    opened: LocalIndex | None = None
    counts, during = set(), False
    while run.poll() is None:
        if opened is None:
            try:
                opened = open_index(index)
            except IndexNotFoundError:
                continue
        status = opened.status()
        if status.run is not None:
            during = during or status.run.active
            assert status.run.total == COUNT
        count = len(opened)  # the next search covers at least this many
        hits = opened.search(np.array([5.0, 10.0, 7.0] * 4), 3)[0]
        counts.add(count)
        if count > 6:
            assert hits[0].distance == 0.0
    assert run.returncode == 0
    assert opened is not None
    assert during
    assert len(counts) > 3  # the index was seen to grow
    assert len(opened) == COUNT
    opened.close()


def test_two_runs_at_once(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(FakeExtractor):
        def embed(self, images: object) -> object:  # type: ignore[override]
            inside.set()
            assert go_on.wait(20)
            return super().embed(images)  # type: ignore[arg-type]

    first = threading.Thread(target=update_index, args=([photos], index), kwargs={"extractor": Waiting()})
    first.start()
    assert inside.wait(20)
    with pytest.raises(IndexLockedError, match=r"Another run .*: process \d+ on "):
        update_index([photos], index, extractor=FakeExtractor())
    go_on.set()
    first.join()
    assert check(index) == COUNT


@pytest.mark.parametrize("how", ["in place", "by another file"])
def test_a_truncated_matrix_is_detected_and_recovers(how: str, photos: Path, tmp_path: Path) -> None:
    """Otherwise reading the mapped file beyond its end would end the process with a bus error."""
    update_index(photos, tmp_path / "index", extractor=FakeExtractor())
    with closing(LocalIndex.open(tmp_path / "index")) as index:
        matrix = next((tmp_path / "index").glob("features*.npy"))
        whole, query = matrix.read_bytes(), index.feature(index.ids[-1])
        hits = index.search(query, 3)
        os.truncate(matrix, 300)
        for look in (lambda: index.search(query, 3), lambda: index.feature(5), lambda: index.records([5])):
            with pytest.raises(IndexDamagedError, match="cut short"):
                look()
        if how == "in place":
            matrix.write_bytes(whole)
        else:
            other = tmp_path / "other.npy"
            other.write_bytes(whole)
            other.replace(matrix)
        assert index.search(query, 3) == hits
