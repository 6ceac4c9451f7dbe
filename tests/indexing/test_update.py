"""Incremental runs: each kind of change is recognised, and the result equals that of a run from scratch."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.cli.main import main
from searchengine.engine import open_index
from searchengine.errors import IndexingError
from searchengine.images import sniff
from searchengine.index.storage import storage_of
from searchengine.index.writer import IndexWriter
from searchengine.indexing import IndexingOptions, model, reading, update_index
from searchengine.indexing.model import RunExtractor
from searchengine.indexing.run import update_with
from searchengine.indexing.verify import verify
from tests.fakes import FakeExtractor, FakeRecipe, Sentences, picture, write_pictures
from tests.indexing.looking import Update, age, contents, ids


def test_each_row_belongs_to_its_path(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, **{f"n{i:02d}": i * 7 for i in range(20)})
    done = update()
    assert (done.added, done.embedded, done.images, done.skipped) == (20, 20, 20, 0)
    assert contents(tmp_path / "index") == {f"n{i:02d}.png": ([i * 7.0] * 12, None) for i in range(20)}
    assert verify(tmp_path / "index").sound


def test_each_kind_of_change_is_recognised(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=10, b=20, c=30, d=40, e=50, f=60)
    age(photos)
    update()
    before = ids(tmp_path / "index")
    (photos / "a.png").write_bytes(picture((99, 99, 99)))  # changed
    (photos / "sub").mkdir()
    (photos / "b.png").rename(photos / "sub" / "moved.png")
    (photos / "c.png").unlink()
    shutil.copy(photos / "d.png", photos / "twin.png")
    write_pictures(photos, new=77)
    done = update()
    assert done.to_dict() | {"seconds": 0} == {
        "added": 2, "changed": 1, "moved": 1, "removed": 1, "unchanged": 3, "skipped": 0, "missing": 0,
        "vanished": 0, "dated": 0, "embedded": 2, "images": 7, "seconds": 0,
    }  # fmt: skip
    after = ids(tmp_path / "index")
    assert after["a.png"] == before["a.png"]
    assert after["sub/moved.png"] == before["b.png"]
    assert after["new.png"] > max(before.values())
    assert contents(tmp_path / "index")["twin.png"] == ([40.0] * 12, None)
    assert contents(tmp_path / "index")["sub/moved.png"] == ([20.0] * 12, "sub")
    fresh = update(index="fresh")
    assert fresh.added == 7
    assert contents(tmp_path / "fresh") == contents(tmp_path / "index")


def test_a_run_with_nothing_to_do_loads_no_model(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2)
    age(photos)
    update()

    def no_model() -> FakeExtractor:
        raise AssertionError("loaded")

    done = update_with(
        RunExtractor(FakeRecipe(loads=no_model), print), [photos], storage_of(tmp_path / "index"), IndexingOptions()
    )
    assert (done.unchanged, done.embedded) == (2, 0)


def test_a_file_changed_within_the_same_instant_is_read_again(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=10)
    update()
    stamp = (photos / "a.png").stat()
    other = picture((11, 11, 11))
    assert len(other) == stamp.st_size  # same size, same mtime, other content
    (photos / "a.png").write_bytes(other)
    os.utime(photos / "a.png", ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    assert update().changed == 1
    assert contents(tmp_path / "index")["a.png"][0][0] == 11.0


def test_equal_content_is_embedded_once(photos: Path, update: Update, tmp_path: Path) -> None:
    for i in range(10):
        (photos / f"{i}.png").write_bytes(picture((i % 2 * 50, 0, 0)))
    done = update()
    assert (done.added, done.embedded) == (10, 2)
    assert contents(tmp_path / "index")["3.png"][0][:3] == [50.0, 0.0, 0.0]


def test_random_changes_give_the_same_index_as_a_rebuild(photos: Path, update: Update, tmp_path: Path) -> None:
    chance = random.Random(5)
    write_pictures(photos, **{f"n{i}": i for i in range(30)})
    update()
    for _ in range(6):
        for _ in range(5):
            files = sorted(photos.rglob("*.png"))
            file = chance.choice(files)
            level = chance.randrange(256)
            {
                "change": lambda file=file, level=level: file.write_bytes(picture((level, 1, 2))),
                "move": lambda file=file, level=level: file.rename(photos / f"m{level}.png"),
                "delete": file.unlink,
                "add": lambda level=level: write_pictures(photos, **{f"sub__x{level}": level}),
            }[chance.choice(["change", "move", "delete", "add"])]()
        age(photos) if chance.random() < 0.5 else None
        update()
        assert verify(tmp_path / "index").sound
        assert contents(tmp_path / "index").keys() == {str(f.relative_to(photos)) for f in photos.rglob("*.png")}
    update(index="fresh")
    assert contents(tmp_path / "index") == contents(tmp_path / "fresh")


def test_more_than_a_fifth_is_not_removed_without_prune(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2, c=3, d=4)
    update()
    (photos / "a.png").unlink()
    done = update()
    assert (done.missing, done.removed, done.images) == (1, 0, 4)
    done = update(prune=True)
    assert (done.missing, done.removed, done.images) == (0, 1, 3)


def test_a_missing_folder_deletes_nothing(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2)
    update()
    photos.rename(tmp_path / "unmounted")
    with pytest.raises(IndexingError, match="does not exist"):
        update(prune=True)
    with pytest.raises(IndexingError, match="--relocate"):
        update(tmp_path / "unmounted")
    assert ids(tmp_path / "index") == {"a.png": 1, "b.png": 2}
    age(tmp_path / "unmounted")
    done = update(tmp_path / "unmounted", relocate=True)
    assert (done.unchanged, done.embedded) == (2, 0)


def test_limit_removes_nothing(photos: Path, update: Update) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(10)})
    assert update(limit=4).images == 4
    (photos / "n0.png").unlink()
    done = update(limit=2)
    assert (done.images, done.removed, done.unchanged) == (4, 0, 2)
    assert update().images == 9


def test_limit_keeps_broken_images(photos: Path, update: Update) -> None:
    write_pictures(photos, a=1, b=2, c=3, d=4, e=5)
    age(photos)
    update()
    (photos / "a.png").write_bytes(b"no image any more")
    done = update(limit=1)
    assert (done.skipped, done.removed, done.images) == (1, 0, 5)
    assert update().images == 4


def test_content_that_a_batch_has_overwritten_is_read_again(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, **{f"n{i}": i + 1 for i in range(6)})
    age(photos)
    update()
    write_pictures(photos, a=50, b=51)  # a batch, together with the first of the others
    write_pictures(photos, **{f"n{i}": i for i in range(6)})  # each has the previous content of another
    assert update(commit_seconds=0).changed == 6
    assert contents(tmp_path / "index") == {
        "a.png": ([50.0] * 12, None),
        "b.png": ([51.0] * 12, None),
        **{f"n{i}.png": ([i + 0.0] * 12, None) for i in range(6)},
    }
    assert verify(tmp_path / "index").sound


def test_without_room_for_a_compaction_the_run_ends_well(
    photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise IndexingError("The disk is full.")

    write_pictures(photos, a=1, b=2, c=3)
    update()
    (photos / "a.png").unlink()
    monkeypatch.setattr("searchengine.index.writer._copy_rows", full)
    assert update(prune=True).images == 2
    index = open_index(tmp_path / "index")
    assert index.status().run is None
    index.close()
    monkeypatch.undo()
    update()
    assert [file.name for file in (tmp_path / "index").glob("features*")] == ["features-2.npy"]


def test_an_index_in_the_folder_of_its_photos(photos: Path, update: Update) -> None:
    write_pictures(photos, a=1, b=2)
    update(photos, index="photos")
    reader = open_index(photos)  # meanwhile SQLite keeps its log beside the catalog
    write_pictures(photos, c=3)
    assert update(photos, index="photos").to_dict().items() >= {"added": 1, "skipped": 0, "images": 3}.items()
    assert update(photos, index="photos").to_dict().items() >= {"unchanged": 3, "skipped": 0}.items()
    reader.close()


def test_other_files_in_the_index_folder_are_kept(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2)
    update()
    mine = tmp_path / "index" / "features-of-mine.npy"
    mine.write_bytes(b"mine")
    (photos / "a.png").unlink()
    update(prune=True)  # compacts
    update(rebuild=True)
    assert mine.read_bytes() == b"mine"


def test_unusable_files_are_skipped_by_name_and_retried_when_they_change(
    photos: Path, update: Update, tmp_path: Path
) -> None:
    write_pictures(photos, good=1)
    (photos / "text.jpg").write_text("no image")
    (photos / "empty.png").write_bytes(b"")
    (photos / "cut.png").write_bytes(picture((1, 2, 3), (300, 300))[:60])
    for _ in range(2):
        assert (update().skipped, update().images) == (3, 1)
    index = open_index(tmp_path / "index")
    assert {path for path, _ in index.skipped()} == {"text.jpg", "empty.png", "cut.png"}
    (photos / "text.jpg").write_bytes(picture((5, 5, 5)))
    (photos / "empty.png").unlink()
    done = update()
    assert (done.added, done.skipped, done.images) == (1, 1, 2)
    assert {path for path, _ in index.skipped()} == {"cut.png"}
    index.close()


def test_long_features_are_reported_when_the_index_is_created(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_LONG_FEATURE", 0)
    write_pictures(photos, a=1, b=2)
    for rebuild, said in ((False, True), (False, False), (True, True)):
        remarks = Sentences()
        update_index(photos, tmp_path / "index", extractor=FakeExtractor(), progress=remarks, rebuild=rebuild)
        assert any("numbers: 2 images take" in remark for remark in remarks.said) == said


def test_an_index_made_with_an_older_decoding(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"

    def run(**options: Any) -> tuple[dict[str, Any], list[str]]:
        remarks = Sentences()
        return update_index(
            photos, index, extractor=FakeExtractor(), progress=remarks, **options
        ).to_dict(), remarks.said

    def info() -> str:
        assert main(["info", "--index-dir", str(index)]) == 0
        return capsys.readouterr().err

    write_pictures(photos, good=1)
    (photos / "scan.ppm").write_bytes(picture((1, 2, 3), kind="PPM"))
    age(photos)
    with monkeypatch.context() as before:
        before.setattr(reading, "sniff", lambda head: None if head.startswith(b"P6") else sniff(head))
        assert run()[0]["skipped"] == 1
    assert run()[0]["skipped"] == 1  # it is not read again
    assert "decoded differently" not in info()
    with closing(IndexWriter.open(index)) as writer:
        writer.set({"decoding": None, "refused_by": None})
    done, said = run()
    assert done.items() >= {"added": 1, "skipped": 0, "unchanged": 1}.items()
    assert any("index with --rebuild" in remark for remark in said)
    assert run()[1] == []
    assert "decoded differently" in info()
    run(rebuild=True)
    assert "decoded differently" not in info()


def test_nothing_usable_leaves_no_index(photos: Path, update: Update, tmp_path: Path) -> None:
    (photos / "text.jpg").write_text("no image")
    assert update().images == 0
    assert not (tmp_path / "index" / "catalog.sqlite").exists()


def test_labels_follow_folders_and_the_recorded_choice(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, cats__tabby=1, dogs__rex=2, loose=3)
    age(photos)
    update()
    assert {path: label for path, (_, label) in contents(tmp_path / "index").items()} == {
        "cats/tabby.png": "cats",
        "dogs/rex.png": "dogs",
        "loose.png": None,
    }
    update(labels="none")
    assert {label for _, label in contents(tmp_path / "index").values()} == {None}
    done = update(labels="folder")
    assert done.embedded == 0
    assert contents(tmp_path / "index")["cats/tabby.png"][1] == "cats"


def test_several_folders(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1)
    other = tmp_path / "scans"
    write_pictures(other, a=2)
    update(photos, other)
    assert contents(tmp_path / "index") == {
        "photos/a.png": ([1.0] * 12, "photos"),
        "scans/a.png": ([2.0] * 12, "scans"),
    }
    with pytest.raises(IndexingError, match="was not given"):
        update(photos)
    with pytest.raises(IndexingError, match="is inside"):
        update(tmp_path, photos)


def test_moved_folders_of_the_same_name_are_distinguished(update: Update, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "img", tmp_path / "b" / "img"
    write_pictures(first, m=1)
    write_pictures(second, m=2)
    update(first, second)
    for folder in (first, second):
        folder.parent.rename(folder.parent.with_name(f"new-{folder.parent.name}"))
    moved = [tmp_path / "new-a" / "img", tmp_path / "new-b" / "img"]
    update(*moved, relocate=True)
    assert contents(tmp_path / "index") == {"img/m.png": ([1.0] * 12, "img"), "img-2/m.png": ([2.0] * 12, "img")}


def test_a_folder_whose_name_is_not_text(update: Update, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_pictures(folder, a=1)
    update(folder)
    assert update(folder).unchanged == 1
    assert list(contents(tmp_path / "index")) == ["a.png"]


def test_features_of_a_broken_model_are_refused(photos: Path, tmp_path: Path) -> None:
    class Broken(FakeExtractor):
        def embed(self, images: Any) -> Any:
            return super().embed(images) * np.float32("nan")

    write_pictures(photos, a=1)
    with pytest.raises(IndexingError, match="NaN"):
        update_index([photos], tmp_path / "index", extractor=Broken())
