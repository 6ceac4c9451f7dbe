"""Index folders on file systems without shared memory, where a journal replaces the log.

Most tests replace ``shares_memory``; if bindfs is available, some use a real file system.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.engine import open_index
from searchengine.index import database
from searchengine.index.catalog import Catalog
from searchengine.indexing import Summary, update_index
from searchengine.indexing.verify import verify
from tests.fakes import FakeExtractor, write_pictures

_KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 2")  # so that changes are in the file before the transaction ends
connection.execute("BEGIN IMMEDIATE")
connection.executemany("INSERT INTO labels VALUES (1, ?, ?)", ((i, "x" * 500) for i in range(10, 500)))
connection.execute("DELETE FROM images WHERE id > 1")
os._exit(9)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", a=1, b=2, c=3)
    return tmp_path / "photos"


@pytest.fixture
def no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "shares_memory", lambda folder: False)
    memmap = np.memmap

    def private(*arguments: Any, mode: str, **options: Any) -> Any:
        if mode != "c":
            raise OSError(errno.ENODEV, "No such device")
        return memmap(*arguments, mode="c", **options)

    monkeypatch.setattr(np, "memmap", private)


def update(photos: Path, index: Path) -> Summary:
    return update_index(photos, index, extractor=FakeExtractor())


def has_log(index: Path) -> bool:
    return (index / "catalog.sqlite").read_bytes()[18:20] == b"\2\2"


def check_use(photos: Path, index: Path) -> None:
    """Make an index, read it, update it while it is being read, and verify it."""
    assert update(photos, index).added == 3
    assert not has_log(index)
    with closing(open_index(index)) as reader:
        assert [hit.path for hit in reader.search([1.0] * 12, k=1)[0]] == ["a.png"]
        write_pictures(photos, d=4)
        assert update(photos, index).added == 1
        assert len(reader) == 4
        with pytest.raises(ValueError, match="read-only"):
            reader.features[0] = 0
    assert verify(index).sound


def test_an_index_without_a_log(photos: Path, tmp_path: Path, no_shared_memory: None) -> None:
    check_use(photos, tmp_path / "index")


def test_an_index_has_a_log_if_memory_can_be_shared(photos: Path, tmp_path: Path) -> None:
    update(photos, tmp_path / "index")
    assert has_log(tmp_path / "index")


def test_a_journal_replaces_a_log_that_was_left_behind(
    photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    index, moved = tmp_path / "index", tmp_path / "moved"
    update(photos, index)
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection:
        connection.execute("UPDATE manifest SET value = 'none' WHERE key = 'labels'")
        connection.commit()
        shutil.copytree(index, moved, ignore=shutil.ignore_patterns("*-shm"))  # the last change is only in the log
    request.getfixturevalue("no_shared_memory")
    write_pictures(photos, d=4)
    assert update(photos, moved).added == 1
    assert not has_log(moved)
    with closing(Catalog.open(moved)) as catalog:
        assert (catalog.get("labels"), catalog.count()) == ("none", 4)


def test_a_reader_never_sees_half_a_batch_of_a_killed_run(photos: Path, tmp_path: Path, no_shared_memory: None) -> None:
    file = tmp_path / "index" / "catalog.sqlite"
    update(photos, file.parent)
    assert subprocess.run([sys.executable, "-c", _KILLED, str(file)], check=False).returncode == 9
    assert file.with_name("catalog.sqlite-journal").stat().st_size > 0
    with closing(open_index(file.parent)) as reader:
        assert reader.ids.tolist() == [1, 2, 3]
        assert reader.labels == [None] * 3
    assert verify(file.parent).sound


def test_network_disks_are_recognised_by_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_file_system", lambda folder: "ext4")
    assert database.shares_memory(tmp_path)
    monkeypatch.setattr(database, "_file_system", lambda folder: "nfs4")
    assert not database.shares_memory(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="the type of a file system is read from /proc")
def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert database._file_system(Path("/proc")) == database._file_system(tmp_path / "link" / "self") == "proc"
    assert database._file_system(tmp_path) != "proc"
    assert database._file_system(tmp_path / "missing") == ""


@pytest.fixture
def without_shared_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder of a FUSE file system with direct I/O."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed")
    (tmp_path / "disk").mkdir()
    (tmp_path / "mount").mkdir()
    mounted = subprocess.run(["bindfs", "-o", "direct_io", tmp_path / "disk", tmp_path / "mount"], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield tmp_path / "mount"
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "mount"], check=True)


def test_a_real_file_system_without_shared_memory(photos: Path, without_shared_memory: Path) -> None:
    assert not database.shares_memory(without_shared_memory)
    check_use(photos, without_shared_memory / "index")


def test_an_index_from_another_disk_can_be_used(photos: Path, tmp_path: Path, without_shared_memory: Path) -> None:
    update(photos, tmp_path / "disk" / "index")
    assert has_log(tmp_path / "disk" / "index")
    with closing(open_index(without_shared_memory / "index")) as reader:
        assert len(reader) == 3
    assert update(photos, without_shared_memory / "index").unchanged == 3
    assert not has_log(tmp_path / "disk" / "index")
