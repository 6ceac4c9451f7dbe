"""Rebuilds: images keep their ids, even after interruptions, and the old index stays in use meanwhile."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from searchengine.engine import open_index
from searchengine.errors import ExtractorMismatchError, IndexDamagedError, IndexingError
from searchengine.index.writer import IndexWriter
from searchengine.indexing import rebuild
from searchengine.indexing.verify import verify
from tests.fakes import OTHER_SPEC, SPEC, write_pictures
from tests.indexing.looking import Update, contents, ids


class Killed(BaseException):
    """Stands for a signal that kills the run."""


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, update: Update) -> None:
    """Kill a rebuild where it would call a function."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            update(rebuild=True)


def cut_short(index: Path) -> None:
    os.truncate(index / "features.npy", 150)


def test_another_extractor_is_refused_and_a_rebuild_keeps_ids(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2, c=3, d=4, e=5, f=6)
    update()
    (photos / "a.png").unlink()
    update()
    write_pictures(photos, g=7)
    update()
    (photos / "b.png").rename(photos / "z.png")
    with pytest.raises(ExtractorMismatchError, match="--rebuild"):
        update(spec=OTHER_SPEC)
    newer = replace(SPEC, weights="compact:other", input_size=(80, 80))  # the name is the same
    with pytest.raises(ExtractorMismatchError, match=r"but with other weights and input size, .*--rebuild"):
        update(spec=newer)
    index = open_index(tmp_path / "index")
    assert update(spec=OTHER_SPEC, rebuild=True).embedded == 6
    assert index.fingerprint == OTHER_SPEC.fingerprint  # the reader has switched to the new index
    index.close()
    assert ids(tmp_path / "index") == {"z.png": 2, "c.png": 3, "d.png": 4, "e.png": 5, "f.png": 6, "g.png": 7}
    write_pictures(photos, h=8)
    update(spec=OTHER_SPEC)
    assert ids(tmp_path / "index")["h.png"] == 8
    assert not (tmp_path / "index" / "rebuild").exists()
    assert verify(tmp_path / "index").sound


def test_a_rebuild_repairs_a_damaged_index_and_keeps_its_files(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2, c=3)
    update()
    cut_short(tmp_path / "index")
    with pytest.raises(IndexDamagedError):
        update()
    update(rebuild=True)
    assert verify(tmp_path / "index").sound
    assert ids(tmp_path / "index") == {"a.png": 1, "b.png": 2, "c.png": 3}
    assert list((tmp_path / "index").glob("damaged-*/features.npy"))


def test_a_rebuild_killed_at_its_end_does_not_leave_its_matrix_to_the_next(
    photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, b=1, c=2, d=3)
    update()
    killed_at(monkeypatch, rebuild, "discard", update)  # the new index is in place already
    write_pictures(photos, z=4)
    update()
    write_pictures(photos, a=5)
    update()
    whole = contents(tmp_path / "index")
    killed_at(monkeypatch, IndexWriter, "adopt", update)
    assert contents(tmp_path / "index") == whole
    assert verify(tmp_path / "index").sound


def test_ids_given_while_a_rebuild_was_unfinished_are_not_given_again(
    photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, b=1, c=2, d=3)
    update()
    killed_at(monkeypatch, IndexWriter, "adopt", update)
    write_pictures(photos, z=4)
    update()
    write_pictures(photos, a=5)
    update(rebuild=True)
    assert ids(tmp_path / "index") == {"b.png": 1, "c.png": 2, "d.png": 3, "z.png": 4, "a.png": 5}
    assert verify(tmp_path / "index").sound


def test_readers_of_a_damaged_index_switch_to_its_replacement(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2, c=3)
    update()
    reader = open_index(tmp_path / "index")
    assert len(reader) == 3
    features = tmp_path / "index" / "features.npy"
    features.unlink()  # the reader still has it
    write_pictures(photos, d=4, aa=5)
    with pytest.raises(IndexDamagedError):
        update()
    update(rebuild=True)
    assert sorted(reader.paths) == ["a.png", "aa.png", "b.png", "c.png", "d.png"]
    assert len(reader) == 5
    reader.close()


def test_an_empty_index_and_an_empty_folder_make_no_index(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1)
    update()
    (photos / "a.png").unlink()
    update(prune_all=True)
    assert update(rebuild=True).images == 0
    assert contents(tmp_path / "index") == {}
    write_pictures(photos, b=2)
    assert update(rebuild=True).images == 1
    assert ids(tmp_path / "index") == {"b.png": 2}


def test_a_copy_that_comes_first_does_not_take_the_id_of_its_original(
    photos: Path, update: Update, tmp_path: Path
) -> None:
    write_pictures(photos, m=1, n=2)
    update()
    write_pictures(photos, a=1)
    update(rebuild=True)
    assert ids(tmp_path / "index") == {"m.png": 1, "n.png": 2, "a.png": 3}


def test_a_sample_does_not_replace_the_whole_index(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2, c=3)
    assert update(rebuild=True, limit=2).images == 2  # there is nothing to lose yet
    update()
    before = contents(tmp_path / "index")
    with pytest.raises(IndexingError, match=r"--limit .* the 3 indexed images.* Nothing was changed"):
        update(rebuild=True, limit=2)
    assert contents(tmp_path / "index") == before


def test_labels_and_metric_of_a_damaged_index_are_kept(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2)
    (tmp_path / "labels.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    update(labels=str(tmp_path / "labels.csv"), metric="cosine")
    before = contents(tmp_path / "index")
    assert before["a.png"][1] == "cat"
    cut_short(tmp_path / "index")
    update(rebuild=True)
    assert contents(tmp_path / "index") == before
    index = open_index(tmp_path / "index")
    assert index.metric == "cosine"
    index.close()


def test_a_damaged_index_stays_until_its_replacement_is_complete(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2, c=3)
    update()
    cut_short(tmp_path / "index")
    (photos / "a.png").unlink()
    held = sorted(file.name for file in (tmp_path / "index").iterdir())
    with pytest.raises(IndexingError, match=r"1 of 3 indexed images .* Nothing was changed.*--prune"):
        update(rebuild=True)
    assert held == sorted(file.name for file in (tmp_path / "index").iterdir())
    with pytest.raises(IndexDamagedError):  # as before; not "there is no index"
        update()
    update(rebuild=True, prune=True)
    assert ids(tmp_path / "index") == {"b.png": 2, "c.png": 3}
    assert verify(tmp_path / "index").sound


def test_a_repair_killed_after_setting_the_old_index_aside_resumes(
    photos: Path, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(photos, b=1, c=2, d=3)
    update()
    cut_short(tmp_path / "index")
    write_pictures(photos, a=5)
    killed_at(monkeypatch, rebuild, "empty_like", update)
    assert update(rebuild=True).images == 4
    assert ids(tmp_path / "index") == {"b.png": 1, "c.png": 2, "d.png": 3, "a.png": 4}
    assert not (tmp_path / "index" / "rebuild").exists()
    assert verify(tmp_path / "index").sound


def test_the_backup_of_a_lost_catalog_gives_ids_to_a_plain_run(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, b=1, c=2)
    update()
    write_pictures(photos, a=3)
    update()
    for file in [*(tmp_path / "index").glob("catalog*"), *(tmp_path / "index").glob("features*")]:
        file.unlink()
    update()
    assert ids(tmp_path / "index") == {"b.png": 1, "c.png": 2, "a.png": 3}
