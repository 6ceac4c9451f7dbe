"""Beside a run: a reader that follows it, and another run that must wait. Runs that are killed: tests/torture."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from searchengine.engine import open_index
from searchengine.errors import IndexLockedError, IndexNotFoundError
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
    """The index answers, each row is right, and it verifies; gives how many images it holds."""
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
        count = len(opened)  # what is searched next is that or more
        hits = opened.search(np.array([5.0, 10.0, 7.0] * 4), 3)[0]
        counts.add(count)
        if count > 6:
            assert hits[0].distance == 0.0
    assert run.returncode == 0
    assert opened is not None
    assert during
    assert len(counts) > 3  # it was seen to grow
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
