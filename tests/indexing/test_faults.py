"""Disks and models that fail temporarily: failed files are tried again, and nothing counts as deleted."""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from searchengine.errors import DecoderUnavailableError, ExtractorError, IndexingError
from searchengine.files import open_regular
from searchengine.images import isolation
from searchengine.index.storage import storage_of
from searchengine.index.writer import IndexWriter
from searchengine.indexing import IndexingOptions, reading
from searchengine.indexing.model import RunExtractor
from searchengine.indexing.run import update_with
from tests.fakes import FakeExtractor, FakeRecipe, write_pictures
from tests.indexing.looking import Update, age, contents, ids


class Faulty(io.BufferedReader):
    """An open file on a disk that has just failed."""

    def read(self, *_: Any) -> bytes:
        raise OSError(5, "Input/output error")


def opening(monkeypatch: pytest.MonkeyPatch, open_: Callable[[bytes, int], Any]) -> None:
    """Open photos with ``open_``, which is given a file and how many were opened before."""
    numbers = itertools.count()
    monkeypatch.setattr(reading, "open_regular", lambda file: open_(file, next(numbers)))


def breaking(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Make the disk fail after it has read some files."""

    def opened(file: bytes, number: int) -> Any:
        return open_regular(file) if number < after else Faulty(open_regular(file).detach())

    opening(monkeypatch, opened)


def going(monkeypatch: pytest.MonkeyPatch, photos: Path, *, after: int) -> None:
    """Unmount the disk after some files, which leaves its mount point, an empty folder."""

    def opened(file: bytes, number: int) -> Any:
        if number == after:
            photos.rename(photos.with_name("away"))
            photos.mkdir()
        return open_regular(file)

    opening(monkeypatch, opened)


def becoming_pipes(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """After some files, turn each photo into a named pipe just before it is opened."""

    def opened(file: bytes, number: int) -> Any:
        if number >= after:
            os.unlink(file)  # noqa: PTH108  (a path of bytes)
            os.mkfifo(file)
        return open_regular(file)

    opening(monkeypatch, opened)


def test_files_that_were_temporarily_unreadable_are_read_again(
    photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, a=1, b=2, c=3)
    age(photos)
    with monkeypatch.context() as patch:
        breaking(patch, after=1)
        done = update(threads=1)
        assert (done.added, done.skipped) == (1, 2)
    assert (update().added, update().images) == (2, 3)


def test_a_photo_that_becomes_a_pipe_is_skipped_without_waiting(
    photos: Path, update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, a=1, b=2, c=3)
    becoming_pipes(monkeypatch, after=1)
    done = update(threads=1)
    assert (done.added, done.skipped) == (1, 2)


@pytest.mark.parametrize("fault", ["breaks", "is taken out"])
def test_an_index_is_not_replaced_by_the_rest_of_its_photos(
    fault: str, photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(10)})
    update()
    before, ids_before = contents(tmp_path / "index"), ids(tmp_path / "index")
    with monkeypatch.context() as patch:
        breaking(patch, after=5) if fault == "breaks" else going(patch, photos, after=5)
        with pytest.raises(IndexingError, match=r"5 of 10 indexed images .* old index was not changed.*--prune"):
            update(rebuild=True, threads=1)
    assert contents(tmp_path / "index") == before
    if fault == "is taken out":
        photos.rmdir()
        photos.with_name("away").rename(photos)
    assert update(rebuild=True).embedded == 5  # it resumes
    assert (contents(tmp_path / "index"), ids(tmp_path / "index")) == (before, ids_before)


def test_with_prune_the_rest_of_the_photos_replaces_the_index(
    photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(10)})
    update()
    breaking(monkeypatch, after=5)
    assert update(rebuild=True, prune=True, threads=1).images == 5


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), FileNotFoundError(2, "No such file", "m.h5")]
)
def test_a_model_that_cannot_be_loaded_is_not_blamed_on_the_images(
    error: OSError, photos: Path, update: Update, tmp_path: Path
) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(6)})
    update()
    before = contents(tmp_path / "index")
    write_pictures(photos, n0=200, more=201)
    attempts = []

    def load() -> FakeExtractor:
        attempts.append(1)
        raise error

    with pytest.raises(ExtractorError, match=rf"fake.* cannot be loaded \({error.strerror}"):
        update_with(
            RunExtractor(FakeRecipe(loads=load), print), [photos], storage_of(tmp_path / "index"), IndexingOptions()
        )
    assert len(attempts) == 1
    assert contents(tmp_path / "index") == before
    done = update()
    assert (done.added, done.changed, done.removed, done.skipped) == (1, 1, 0, 0)


def test_a_new_image_among_many_touched_files_does_not_delay_commits(
    photos: Path, update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, **{f"n{i:02}": i for i in range(30)})
    update()
    age(photos)
    write_pictures(photos, a=100)
    commits = []
    commit: Callable[..., int] = IndexWriter.commit

    def counted(self: IndexWriter, *arguments: Any) -> int:
        commits.append(1)
        return commit(self, *arguments)

    monkeypatch.setattr(IndexWriter, "commit", counted)
    update(batch_size=32, commit_seconds=0.0)
    assert len(commits) > 20


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_without_a_decoding_process_no_image_is_skipped(
    python: str, photos: Path, update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8), "red").save(photos / "scan.tif")  # decoded in a process of its own
    images = update().images
    Image.new("RGB", (9, 9), "blue").save(photos / "scan.tif")
    isolation._POOL.close()
    with monkeypatch.context() as without:
        without.setattr(sys, "executable", python)
        with pytest.raises(DecoderUnavailableError, match="No process can be started to decode images"):
            update()
    summary = update()
    assert (summary.images, summary.changed, summary.skipped, summary.removed) == (images, 1, 0, 0)


def test_an_image_whose_decoding_is_killed_is_tried_again(
    photos: Path, update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel does so when memory runs out; here it happens on the first call of the pool."""
    Image.new("RGB", (8, 8), "red").save(photos / "scan.tif")  # decoded in a process of its own
    write_pictures(photos, **{f"n{i}": i for i in range(9)})  # enough that one may be removed
    images = update().images
    Image.new("RGB", (9, 9), "blue").save(photos / "scan.tif")
    age(photos)
    call = isolation._POOL.call
    with monkeypatch.context() as killing:
        command = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        killing.setattr(isolation._POOL, "call", lambda *_, limits, **__: call(exec, command, limits=limits))
        summary = update()
        assert (summary.images, summary.skipped, summary.removed) == (images, 1, 0)
    summary = update()
    assert (summary.images, summary.changed, summary.skipped, summary.removed) == (images, 1, 0, 0)
