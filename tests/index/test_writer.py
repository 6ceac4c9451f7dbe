"""The index folder on disk: commits, locks, backups, and damage."""

from __future__ import annotations

import errno
import gc
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from searchengine.errors import (
    IndexDamagedError,
    IndexingError,
    IndexLockedError,
    IndexNotFoundError,
    IndexVersionError,
)
from searchengine.files import is_locked
from searchengine.index.catalog import LOCK_NAME, Catalog
from searchengine.index.features import FeatureWriter
from searchengine.index.local import LocalIndex
from searchengine.index.storage import storage_of
from searchengine.index.types import Batch, Hit
from searchengine.index.writer import IndexWriter
from searchengine.indexing.verify import verify
from tests.index.contract.test_contract import MANIFEST, row


def add(writer: IndexWriter, **vectors: list[float]) -> None:
    images = [row(f"{name}.jpg") for name in vectors]
    writer.commit(Batch(stored=images, features=[np.array(v, dtype=np.float32) for v in vectors.values()]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def writer(folder: Path) -> Iterator[IndexWriter]:
    with IndexWriter.create(folder, MANIFEST, dimension=2) as writer:
        writer.set_roots([(1, bytes(folder.parent / "photos"), "photos")])
        yield writer


@pytest.fixture
def reading(folder: Path) -> Iterator[Callable[[], LocalIndex]]:
    opened: list[LocalIndex] = []

    def open_() -> LocalIndex:
        opened.append(LocalIndex.open(folder))
        return opened[-1]

    yield open_
    for index in opened:
        index.close()


def test_plain_numpy_can_read_the_rows(writer: IndexWriter, folder: Path, reading: Callable[[], LocalIndex]) -> None:
    add(writer, a=[0, 0], b=[3, 4])
    add(writer, c=[1, 1])
    plain = np.load(folder / "features.npy", mmap_mode="r")
    np.testing.assert_array_equal(plain, [[0, 0], [3, 4], [1, 1]])
    assert plain.dtype == np.float32


def test_rows_of_a_killed_run_are_overwritten(
    writer: IndexWriter, folder: Path, reading: Callable[[], LocalIndex]
) -> None:
    add(writer, a=[0, 0])
    writer.close()
    with closing(FeatureWriter(folder / "features.npy", 1, 2)) as features:
        features.append(np.full((7, 2), 9, dtype=np.float32))  # the run is killed before its commit
    with IndexWriter.open(folder) as reopened:
        assert reading().features.shape == (1, 2)
        add(reopened, b=[1, 2])
    np.testing.assert_array_equal(reading().features, [[0, 0], [1, 2]])


def test_ids_survive_compaction_and_are_not_reused(
    writer: IndexWriter, folder: Path, reading: Callable[[], LocalIndex]
) -> None:
    index = reading()
    add(writer, a=[0, 0], b=[1, 0], c=[2, 0], d=[3, 0])
    held = index.features
    writer.commit(Batch(removed=[1, 4]))
    assert [hit.id for hit in index.search([0, 0], 9)[0]] == [2, 3]
    np.testing.assert_array_equal(index.features, [[1, 0], [2, 0]])
    writer.compact_if_sparse()
    np.testing.assert_array_equal(held[3], [3, 0])  # a reader keeps the file that it has mapped
    assert index.ids.tolist() == [2, 3]
    assert [file.name for file in folder.glob("features*")] == ["features-2.npy"]
    add(writer, e=[9, 9])
    assert index.ids.tolist() == [2, 3, 5]
    assert index.paths == ["b.jpg", "c.jpg", "e.jpg"]
    assert verify(folder).sound


def test_errors_say_what_is_wrong_with_an_index(
    writer: IndexWriter, folder: Path, tmp_path: Path, reading: Callable[[], LocalIndex]
) -> None:
    with pytest.raises(IndexNotFoundError, match="searchengine index IMAGES"):
        LocalIndex.open(tmp_path / "nowhere")
    add(writer, a=[0, 0], b=[1, 1])
    writer.close()
    catalog = folder / "catalog.sqlite"
    whole = catalog.read_bytes()

    with sqlite3.connect(catalog) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(IndexVersionError, match="newer"):
        reading()

    catalog.write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    with pytest.raises(IndexDamagedError, match="--rebuild"):
        reading()
    assert not verify(folder).sound

    catalog.write_bytes(whole.replace(b"CREATE TABLE roots (", b"CREATE TABLE roots \xdf"))
    with pytest.raises(IndexDamagedError, match="names that are not text"):
        reading()
    assert not verify(folder).sound

    catalog.write_bytes(b"")
    with pytest.raises(IndexDamagedError, match="lost its catalog"):
        reading()

    catalog.write_bytes(whole)
    assert verify(folder).sound
    features = folder / "features.npy"
    rows = features.read_bytes()
    features.write_bytes(rows[:-9] + bytes([rows[-9] ^ 1]) + rows[-8:])
    result = verify(folder)
    assert "ids 1" in result.problems[0]
    assert "--rebuild" in str(result.repair)
    features.write_bytes(rows[:-1])
    with pytest.raises(IndexDamagedError, match="cut short"):
        reading()
    features.unlink()
    with pytest.raises(IndexDamagedError, match=r"features\.npy"):
        reading()


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    with storage_of(tmp_path).writing("noon"):
        assert is_locked(tmp_path / LOCK_NAME)
        with pytest.raises(IndexLockedError, match=r"process \d+ .* since noon"), storage_of(tmp_path).writing("later"):
            pass
    assert not is_locked(tmp_path / LOCK_NAME)
    with storage_of(tmp_path).writing("again"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_made_for_a_lock_are_removed_unless_they_were_used(tmp_path: Path) -> None:
    with storage_of(tmp_path / "a" / "index").writing("noon"):
        pass
    assert list(tmp_path.iterdir()) == []
    with storage_of(tmp_path / "a" / "index").writing("noon"):
        (tmp_path / "a" / "index" / "features.npy").touch()
    assert [file.name for file in (tmp_path / "a" / "index").iterdir()] == ["features.npy"]


def test_only_one_run_holds_the_lock_while_others_delete_and_make_it(tmp_path: Path) -> None:
    holders: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with suppress(IndexLockedError), storage_of(tmp_path / "index").writing("noon"):
                holders.append(1)
                most.append(len(holders))
                time.sleep(0.001)
                holders.pop()

    with ThreadPoolExecutor(6) as threads:
        for working in [threads.submit(work) for _ in range(6)]:
            working.result()
    assert len(most) > 20
    assert max(most) == 1


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_another_run_removes_a_folder_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    mkdir = Path.mkdir
    errors = [error(1, "just removed"), error(1, "just removed again")]

    def racing(*args: Any, **keywords: Any) -> None:
        if errors:
            raise errors.pop()
        mkdir(*args, **keywords)

    monkeypatch.setattr(Path, "mkdir", racing)
    with storage_of(tmp_path / "index").writing("noon"):
        assert not errors
        assert is_locked(tmp_path / "index" / LOCK_NAME)


@pytest.mark.parametrize("place", ["file", "file/index", "link", "/proc/index"])  # in /proc, nobody can make a folder
def test_a_folder_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(IndexingError, match="cannot be written"), storage_of(tmp_path / place).writing("noon"):
        pass


def test_the_backup_of_a_previous_index_is_not_used_for_a_new_one(folder: Path, writer: IndexWriter) -> None:
    add(writer, a=[1.0, 2.0])
    writer.back_up()
    writer.close()
    (folder / "catalog.sqlite").unlink()  # as a damaged one is set aside
    with IndexWriter.create(folder, MANIFEST, dimension=2) as second:
        second.set_roots([(1, bytes(folder.parent / "photos"), "photos")])
        add(second, b=[3.0, 4.0])  # as many commits as the first
        assert verify(folder).sound  # as after a run that was killed here
        second.back_up()
    assert verify(folder).sound
    with closing(Catalog.open(folder)) as catalog, closing(Catalog.open_backup(folder)) as copy:
        assert copy.revision == catalog.revision
        assert copy.places() == {(1, b"b.jpg")}


def test_a_reader_sees_ids_in_any_order(folder: Path, writer: IndexWriter, reading: Callable[[], LocalIndex]) -> None:
    for id_, name in ((101, "a"), (7, "b")):
        batch = Batch(stored=[row(f"{name}.jpg", id_=id_)], features=[np.ones(2, dtype=np.float32)])
        writer.commit(batch)
        if id_ == 101:
            index = reading()
            assert len(index) == 1
    assert index.paths == ["a.jpg", "b.jpg"]
    assert index.ids.tolist() == [101, 7]


def test_a_snapshot_that_sqlite_has_ended(folder: Path, writer: IndexWriter) -> None:
    with closing(Catalog.open(folder)) as catalog:
        with catalog.snapshot():
            catalog.change("ROLLBACK")  # as SQLite itself does if the disk cannot be read
        assert catalog.need_number("rows") == 0


def test_invalid_text_counts_as_damage_of_the_catalog_not_of_its_backup(folder: Path, writer: IndexWriter) -> None:
    add(writer, a=[1.0, 2.0], b=[3.0, 4.0])
    writer.back_up()
    assert verify(folder).sound
    writer.catalog.change("UPDATE images SET format = CAST(x'504EFF' AS TEXT) WHERE id = 1")
    verification = verify(folder)
    assert "UTF-8" in verification.problems[0]
    assert (verification.repair or "").endswith("--rebuild")


def test_a_matrix_that_is_a_pipe_is_refused_at_once(folder: Path, writer: IndexWriter) -> None:
    add(writer, a=[1.0, 2.0])
    (folder / "features.npy").unlink()
    os.mkfifo(folder / "features.npy")
    with pytest.raises(IndexingError, match="Not a regular file"):
        LocalIndex.open(folder)
    with pytest.raises(IndexingError, match="Not a regular file"):
        verify(folder)


def test_a_matrix_that_cannot_be_read_does_not_count_as_damaged(folder: Path, writer: IndexWriter) -> None:
    add(writer, a=[1.0, 2.0])
    (folder / "features.npy").unlink()
    (folder / "features.npy").mkdir()  # a file that even root cannot read
    with pytest.raises(IndexingError, match="cannot be read"):
        LocalIndex.open(folder)


def test_the_next_run_publishes_rows_that_a_killed_run_committed(
    folder: Path, writer: IndexWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, a=[1, 0])
    monkeypatch.setattr(FeatureWriter, "publish", lambda _: None)  # killed between commit and publish
    add(writer, b=[0, 1])
    writer.close()
    monkeypatch.setattr(FeatureWriter, "publish", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(IndexingError, match="is full"):
        IndexWriter.open(folder)
    gc.collect()  # fails if a file was left open
    monkeypatch.undo()
    assert len(np.load(folder / "features.npy")) == 1
    IndexWriter.open(folder).close()
    assert np.load(folder / "features.npy").tolist() == [[1, 0], [0, 1]]


def test_a_search_finds_others_if_the_nearest_are_removed_meanwhile(
    writer: IndexWriter, reading: Callable[[], LocalIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, near=[1, 0], far=[0, 1])
    index, hits = reading(), LocalIndex.hits

    def hits_after_a_removal(*arguments: Any) -> list[Hit]:
        if writer.count() == 2:
            writer.commit(Batch(removed=[1]))
        return hits(*arguments)

    monkeypatch.setattr(LocalIndex, "hits", hits_after_a_removal)
    assert [[hit.id for hit in found] for found in index.search(np.array([[1, 0]]), 1)] == [[2]]
