"""kill -9 at any moment: the index opens, searches and verifies; the same command finishes it; readers never notice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from searchengine.engine import open_index
from searchengine.errors import IndexLockedError, IndexNotFoundError
from searchengine.index.local import LocalIndex
from searchengine.index.verify import verify
from searchengine.indexing import IndexingOptions, update_index
from tests.fakes import SPEC, FakeExtractor, picture

COUNT = 120


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        (folder / f"{i:03d}.png").write_bytes(picture((i, 2 * i % 256, 7)))
    return folder


def start(photos: Path, index: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.indexing.slow_run", str(photos), str(index), *flags],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    return run


def kill(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.communicate()


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
@pytest.mark.parametrize("flags", [(), ("--rebuild",)], ids=["update", "rebuild"])
def test_killed_at_random_moments(photos: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    chance = random.Random(11)
    index = tmp_path / "index"
    if flags:
        update_index([photos], index, spec=SPEC, load=FakeExtractor)
    seen = []
    for _ in range(12):
        run = start(photos, index, *flags)
        time.sleep(chance.uniform(0.0, 0.25))
        kill(run)
        seen.append(check(index))
    assert seen == sorted(seen)  # nothing is ever lost
    run = start(photos, index, *flags)
    assert run.wait(60) == 0
    run.communicate()
    assert check(index) == COUNT
    assert not (index / "rebuild").exists()
    opened = open_index(index)
    assert opened.status().run is None
    assert sorted(opened.ids.tolist()) == list(range(1, COUNT + 1))
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--rebuild",)], ids=["update", "rebuild"])
def test_crashed_around_each_write_flush_and_commit(photos: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for i in range(6):
        (few / f"{i:03d}.png").write_bytes((photos / f"{i:03d}.png").read_bytes())
    for step in range(200):
        index = tmp_path / f"index-{step}"
        if flags:
            update_index([few], index, spec=SPEC, load=FakeExtractor)
        run = start(few, index, *flags, CRASH_AT=str(step), SLOW="0")
        status = run.wait(60)
        run.communicate()
        held = check(index)
        if status == 0:
            assert held == 6
            break
        assert status == 9
        assert held == 6 or not flags  # the old index answers until the new one is whole
        update_index([few], index, spec=SPEC, load=FakeExtractor, options=IndexingOptions(rebuild=bool(flags)))
        assert check(index) == 6
        opened = open_index(index)
        assert sorted(opened.ids.tolist()) == [1, 2, 3, 4, 5, 6]
        assert opened.status().run is None
        opened.close()
    assert step > 20  # it was counted down to the end of a run, not stopped by something else


@pytest.mark.slow
def test_a_reader_follows_a_run_and_is_never_wrong(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    run = start(photos, index)
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
        hits = opened.search(np.array([5.0, 10.0, 7.0] * 4), 3)[0]
        counts.add(len(opened))
        if len(opened) > 6:
            assert hits[0].distance == 0.0
    run.communicate()
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

    first = threading.Thread(target=update_index, args=([photos], index), kwargs={"spec": SPEC, "load": Waiting})
    first.start()
    assert inside.wait(20)
    with pytest.raises(IndexLockedError, match=r"Another run .*: process \d+ on "):
        update_index([photos], index, spec=SPEC, load=FakeExtractor)
    go_on.set()
    first.join()
    assert check(index) == COUNT
