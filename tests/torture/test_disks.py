"""Full disks, read-only indexes, and image folders that disappear while they are read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.cli import main, offline_index
from searchengine.engine import open_index
from searchengine.errors import IndexingError
from searchengine.exchange.importing import import_features
from searchengine.indexing import IndexingOptions, Summary, update_index
from searchengine.indexing.verify import verify
from tests.fakes import FakeExtractor
from tests.torture.conftest import sizes
from tests.torture.disks import disk, mounted, read_only, resize
from tests.torture.looking import answers, contents
from tests.torture.photographs import write

STEPS = sizes("TORTURE_DISK_STEP_KB", 24, 4)  # kB; a page of the catalog has 4


class Long(FakeExtractor):
    """Makes features of 1 200 numbers, so that the matrix fills the disk."""

    dimension = 1200

    def embed(self, images: Any) -> Any:
        return np.repeat(super().embed(images), 100, axis=1)


def update(photos: Path, index: Path, load: type[FakeExtractor] = FakeExtractor, **options: Any) -> Summary:
    return update_index(
        [photos],
        index,
        extractor=load(),
        options=IndexingOptions(**{"batch_size": 4, "commit_seconds": 0.0, **options}),
    )


def grown_until_it_fits(folder: Path, run: Any, clean: Any, room: range) -> list[int]:
    """Run on larger and larger disks. Wherever it stops, the index is intact, and with room the command finishes."""
    stopped = []
    for kilobytes in room:
        with disk(folder, kilobytes) as place:
            index = place / "index"
            try:
                run(index)
            except IndexingError as error:
                if "is full" not in str(error) or "Make room, then run the same command again" not in str(error):
                    raise
                stopped.append(kilobytes)
                answers(index)
                resize(place, 20_000)
                run(index)
            assert contents(index) == clean
            assert answers(index) == len(clean.rows)
        if not stopped or stopped[-1] != kilobytes:
            return stopped
    raise AssertionError(f"it does not fit on a disk of {room[-1]} kB")


@pytest.mark.torture
@pytest.mark.parametrize("load", [pytest.param(FakeExtractor, id="catalog"), pytest.param(Long, id="matrix")])
@pytest.mark.parametrize("step", [48, pytest.param(8, marks=pytest.mark.longest)])
def test_full_disk(step: int, load: type[FakeExtractor], tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", range(60))
    update(photos, tmp_path / "clean", load)
    clean = contents(tmp_path / "clean")
    stopped = grown_until_it_fits(
        tmp_path / "disk", lambda index: update(photos, index, load), clean, range(4, 4000, step)
    )
    print(f"stopped by {len(stopped)} disks, of {stopped[0]} to {stopped[-1]} kB")
    assert len(stopped) > 200 // step


@pytest.mark.torture
@pytest.mark.parametrize("step", STEPS)
def test_full_disk_under_a_rebuild(step: int, tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", range(60))
    update(photos, tmp_path / "before", Long)
    clean = contents(tmp_path / "before")
    size = sum(file.stat().st_size for file in (tmp_path / "before").iterdir()) // 1024

    def rebuild(index: Path) -> None:
        if not index.exists():
            shutil.copytree(tmp_path / "before", index)
        update(photos, index, Long, rebuild=True)

    stopped = grown_until_it_fits(tmp_path / "disk", rebuild, clean, range(size + 20, 3000, step * 6))
    assert len(stopped) > 100 // step


@pytest.mark.torture
@pytest.mark.parametrize("step", STEPS)
def test_full_disk_under_an_import(step: int, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.random.default_rng(1).standard_normal((80, 900)).astype(np.float32))
    run = lambda index: import_features(tmp_path / "features.npy", index)  # noqa: E731
    run(tmp_path / "clean")
    stopped = grown_until_it_fits(tmp_path / "disk", run, contents(tmp_path / "clean"), range(4, 3000, step * 2))
    assert len(stopped) > 100 // step


def test_a_reader_on_a_full_disk(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", range(12))
    with disk(tmp_path / "disk", 2000) as place:
        update(photos, place / "index")
        (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free))
        assert shutil.disk_usage(place).free == 0
        assert answers(place / "index") == 12
        write(photos, range(100, 200))
        with pytest.raises(IndexingError, match="is full"):
            update(photos, place / "index")
        assert answers(place / "index") == 12


def test_a_read_only_index_answers_and_says_that_it_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write(tmp_path / "photos", range(12))
    update(photos, tmp_path / "index")
    write(photos, [50])
    with read_only(tmp_path / "index", tmp_path / "seen") as index:
        assert answers(index) == 12
        with pytest.raises(IndexingError, match=r"seen cannot be written to .*Read-only.*permissions"):
            update(photos, index)
        with pytest.raises(IndexingError, match="cannot be written to"):
            update(photos, index, rebuild=True)
        assert main(["verify", "--index-dir", str(index)]) == 0
        assert main(["info", "--index-dir", str(index)]) == 0
        assert main(["search", "--id", "3", "--index-dir", str(index)]) == 0
        assert offline_index([str(photos), "--index-dir", str(index)]) == 1
        assert "cannot be written to" in capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == [
        "backup.sqlite", "catalog.sqlite", "features.npy",
    ]  # fmt: skip


def test_a_new_index_where_nothing_can_be_written(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", range(3))
    (tmp_path / "folder").mkdir()
    with (
        read_only(tmp_path / "folder", tmp_path / "seen") as place,
        pytest.raises(IndexingError, match="cannot be written to"),
    ):
        update(photos, place / "index")


def test_a_reader_in_a_read_only_folder_follows_what_others_write_there(tmp_path: Path) -> None:
    """A container may mount the index read-only while the host adds to it."""
    photos = write(tmp_path / "photos", range(12))
    update(photos, tmp_path / "index")
    with read_only(tmp_path / "index", tmp_path / "seen") as seen:
        index = open_index(seen)
        assert len(index) == 12
        write(photos, range(40, 60))
        update(photos, tmp_path / "index")
        assert len(index) == 32
        for file in sorted(photos.rglob("*.png"))[:15]:
            file.unlink()
        update(photos, tmp_path / "index", prune=True)  # and compacts
        assert len(index) == 17
        assert index.search(index.feature(int(index.ids[0])), 3)[0][0].distance == 0.0
        update(photos, tmp_path / "index", rebuild=True)
        assert len(index.paths) == 17
        assert verify(seen).sound
        index.close()


def test_what_a_killed_run_left_is_read_where_nothing_can_be_written(forks: Any, tmp_path: Path) -> None:
    """All commits may still be only in the write-ahead log."""
    photos = write(tmp_path / "photos", range(30))
    for step in range(40, 400, 45):
        index = tmp_path / f"index-{step}"
        forks.run("update", photos=photos, index=index, crash_at=step)
        held = answers(shutil.copytree(index, tmp_path / f"copy-{step}"))
        with read_only(index, tmp_path / f"seen-{step}") as seen:
            assert answers(seen) == held
    assert held > 10


# -- image folders ----------------------------------------------------------------------------------------------------


class Meanwhile(FakeExtractor):
    """Calls a function when the first batch is embedded."""

    event: Any = None

    def embed(self, images: Any) -> Any:
        if Meanwhile.event is not None:
            event, Meanwhile.event = Meanwhile.event, None
            event()
        return super().embed(images)


def with_event(event: Any) -> type[FakeExtractor]:
    Meanwhile.event = event
    return Meanwhile


def test_an_image_folder_that_vanishes_half_way(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", range(60))
    update(photos, tmp_path / "clean")
    clean = contents(tmp_path / "clean")
    assert clean is not None
    index = tmp_path / "index"
    write(tmp_path / "some", range(10))
    with pytest.raises(IndexingError, match=r"photos does not exist. .*mounted.* Nothing was changed"):
        update(photos, index, with_event(lambda: photos.rename(tmp_path / "away")), threads=1)
    held = answers(index)
    assert 0 < held < 60
    with pytest.raises(IndexingError, match="does not exist"):
        update(photos, index, prune=True)
    photos.mkdir()  # the mount point without the disk
    with pytest.raises(IndexingError, match=rf"No image was found in .*the index has {held} of it"):
        update(photos, index)
    assert answers(index) == held
    photos.rmdir()
    (tmp_path / "away").rename(photos)
    update(photos, index)
    assert contents(index) == clean


def test_an_image_disk_that_is_unmounted_half_way(tmp_path: Path) -> None:
    index = tmp_path / "index"
    with disk(tmp_path / "photos", 4000) as photos:
        write(photos, range(60))
        update(photos, tmp_path / "clean")
        update(photos, index)
        write(photos, range(100, 160))
        unmount = ["umount", "--lazy", str(photos)]
        try:
            done = update(photos, index, with_event(lambda: subprocess.run(unmount, check=True)), threads=1)
        finally:
            mounted("-t", "tmpfs", "none", photos)  # an empty one, for ``disk`` to take away
        assert done.removed == 0  # though some of the old files, so young that they are read again, are missing
        assert done.added + done.vanished == 60
        assert done.vanished > 30
        held = answers(index)
        assert held == 60 + done.added
        with pytest.raises(IndexingError, match=rf"No image was found in .*the index has {held} of it"):
            update(photos, index)
        assert answers(index) == held  # told, and kept


def test_a_folder_that_goes_unreadable_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can read every folder, so its disk fails instead, as a broken disk would."""
    photos = write(tmp_path / "photos", range(60))
    index = tmp_path / "index"
    update(photos, index)
    before = contents(index)
    assert before is not None
    broken = os.fsencode(photos / "label3")
    scandir, opened = os.scandir, os.open

    def failing(path: Any = ".") -> Any:
        if os.fsencode(path).startswith(broken):
            raise OSError(5, "Input/output error")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        done = update(photos, index, prune=True)
        assert (done.removed, done.missing, done.skipped) == (0, 0, 1)
    now = contents(index)
    assert now is not None
    assert now.rows == before.rows
    assert now.skipped == {"label3"}
    write(photos, range(60), seconds_ago=30)  # all must be read again

    def unreadable(file: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(file, bytes) and file.startswith(broken):
            raise OSError(5, "Input/output error")
        return opened(file, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", unreadable)
        done = update(photos, index, prune=True)
        assert (done.removed, done.missing, done.skipped) == (0, 0, 10)
    now = contents(index)
    assert now is not None
    assert now.rows == before.rows
    assert update(photos, index).skipped == 0
    assert contents(index) == before
