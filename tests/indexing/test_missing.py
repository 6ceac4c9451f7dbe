"""Missing images: nothing is removed because a disk is not mounted, or folders were swapped."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from searchengine.errors import IndexingError
from searchengine.index.writer import IndexWriter
from searchengine.indexing.missing import mounts_from_json, mounts_to_json
from tests.fakes import Sentences, picture, write_pictures
from tests.indexing.looking import Update, age, contents, ids

# -- folders that seem not to be mounted ------------------------------------------------------------------------------


def test_an_empty_mount_point_deletes_nothing(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(20)})
    update()
    before = ids(tmp_path / "index")
    photos.rename(tmp_path / "unmounted")
    photos.mkdir()
    for options in ({}, {"prune": True}, {"rebuild": True}, {"rebuild": True, "prune": True}):
        with pytest.raises(IndexingError, match=r"20 .*(Is its disk|may not be) mounted.*--prune-all"):
            update(**options)
    photos.rmdir()
    (tmp_path / "unmounted").rename(photos)
    assert update(prune=True).unchanged == 20
    assert ids(tmp_path / "index") == before


def test_a_small_folder_among_several_is_not_emptied(photos: Path, update: Update, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_pictures(photos, **{f"n{i}": i for i in range(20)})
    write_pictures(other, a=101, b=102)
    update(photos, other)
    for file in other.glob("*.png"):
        file.unlink()
    with pytest.raises(IndexingError, match=r"No image was found in .*other.*the index has 2 of it"):
        update(photos, other)
    done = update(photos, other, prune_all=True)
    assert (done.removed, done.images) == (2, 20)


def test_a_folder_that_has_lost_most_of_its_images(photos: Path, update: Update, progress: Sentences) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(10)})
    update(photos)
    for i in range(6):
        (photos / f"n{i}.png").unlink()
    for options in ({}, {"prune": True}):
        done = update(photos, **options)
        assert (done.removed, done.missing, done.images) == (0, 6, 10)
        assert "Its disk may not be mounted" in progress.text
        assert "--prune-all" in progress.text
    assert update(photos, prune_all=True).removed == 6


def test_a_disk_within_the_folder_that_is_not_mounted(
    photos: Path, update: Update, tmp_path: Path, progress: Sentences
) -> None:
    write_pictures(photos, **{f"n{i}": i for i in range(10)}, disk__a=101, disk__b=102)
    update(photos)
    with IndexWriter.open(tmp_path / "index") as writer:  # as after a run during which a disk was mounted there
        assert mounts_from_json(writer.manifest("mounts")).isdisjoint({bytes(photos / "disk")})
        writer.set({"mounts": mounts_to_json([bytes(photos / "disk")])})
    (photos / "disk" / "a.png").unlink()
    (photos / "n0.png").unlink()
    for options in ({}, {"prune": True}):
        done = update(photos, **options)
        assert done.missing == 1
        assert f"{photos / 'disk'} lacks 1 indexed image. It was a mount point and no longer is" in progress.text
    with pytest.raises(IndexingError, match=r"disk lacks 1 indexed image\..*--prune-all"):
        update(photos, rebuild=True)
    assert set(ids(tmp_path / "index")) == {*(f"n{i}.png" for i in range(1, 10)), "disk/a.png", "disk/b.png"}
    assert update(photos, prune_all=True).removed == 1
    (photos / "disk" / "b.png").unlink()
    assert update(photos).removed == 1  # the folder is no longer associated with a disk


# -- files left out by default ---------------------------------------------------------------------------------------


def test_images_of_an_older_index_that_are_now_left_out_are_kept(
    photos: Path, update: Update, tmp_path: Path, progress: Sentences
) -> None:
    write_pictures(
        photos, **{f"n{i}": i for i in range(20)}, **{"#recycle__a": 101, "Thumbs__1__b": 102, ".hidden__d": 104}
    )
    write_pictures(tmp_path / "elsewhere", c=103)
    (photos / "c.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    assert update(photos, default_excludes=False, follow_links=True).added == 24
    before = ids(tmp_path / "index")
    for _ in range(2):
        done = update(photos)
        assert (done.removed, done.missing, done.images) == (0, 4, 24)
        for kind in ("recycle bins", "hidden files and folders", "thumbnails and previews"):
            assert f"{kind} (1 folder)" in progress.text
        assert "Left out: links that lead out of the image folder (1 file): c.png. " in progress.text
        assert "4 indexed images are now left out by default" in progress.text
    with pytest.raises(IndexingError, match=r"4 indexed images are now left out by default .*--no-default-excludes"):
        update(photos, rebuild=True)
    assert ids(tmp_path / "index") == before
    assert update(photos, default_excludes=False, follow_links=True).unchanged == 24
    assert update(photos, prune=True).removed == 4
    assert update(photos).missing == 0


# -- folders in another order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", ["no", "away", "exchanged"])
def test_folders_are_recognised_by_their_content(
    photos: Path, update: Update, tmp_path: Path, moved: str, progress: Sentences
) -> None:
    other = tmp_path / "other"
    write_pictures(photos, **{f"n{i}": i for i in range(5)}, only=50)
    write_pictures(other, **{f"n{i}": 100 + i for i in range(5)})  # the same names
    update(photos, other)
    before = ids_by_level(tmp_path / "index")
    if moved == "exchanged":
        photos.rename(tmp_path / "p")
        other.rename(photos)
        (tmp_path / "p").rename(other)
        done = update(photos, other)
    else:
        if moved == "away":
            photos, other = photos.rename(tmp_path / "p"), other.rename(tmp_path / "o")
        done = update(other, photos, relocate=True)  # in the wrong order
    assert (done.unchanged, done.changed, done.moved) == (11, 0, 0)
    assert ("have swapped places" if moved == "exchanged" else "are in another order") in progress.text
    assert ids_by_level(tmp_path / "index") == before


def ids_by_level(folder: Path) -> dict[float, int]:
    """Return the id of each picture, by its grey level."""
    features = contents(folder)
    return {features[path][0][0]: id_ for path, id_ in ids(folder).items()}


def test_a_folder_without_any_indexed_image_is_not_its_new_place(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2)
    update(photos)
    write_pictures(tmp_path / "wrong", c=3)
    with pytest.raises(IndexingError, match=r"None of the images of .*photos is in .*wrong"):
        update(tmp_path / "wrong", relocate=True)
    assert ids(tmp_path / "index") == {"a.png": 1, "b.png": 2}


# -- files with unhelpful times or names ------------------------------------------------------------------------------


def replace_keeping_times(file: Path, colour: tuple[int, int, int]) -> None:
    before = file.stat()
    file.write_bytes(picture(colour))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def settle(tmp_path: Path) -> None:
    """Make the times of files trusted, as if they had been read well after their last change."""
    with IndexWriter.open(tmp_path / "index") as writer:
        writer.catalog.change("UPDATE images SET settled = 1")


def test_a_file_changed_with_its_size_and_mtime_kept(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1, b=2)
    age(photos)
    update()
    settle(tmp_path)
    assert update().unchanged == 2
    replace_keeping_times(photos / "a.png", (9, 9, 9))
    done = update()
    assert (done.changed, done.unchanged) == (1, 1)
    assert contents(tmp_path / "index")["a.png"][0][0] == 9.0


def test_a_broken_file_repaired_with_its_size_and_mtime_kept(photos: Path, update: Update) -> None:
    write_pictures(photos, a=1, b=2)
    (photos / "b.png").write_bytes(b"x" * (photos / "a.png").stat().st_size)
    age(photos)
    assert update().skipped == 1
    replace_keeping_times(photos / "b.png", (9, 9, 9))
    assert (update().added, update().skipped) == (1, 0)


def test_an_index_without_ctimes_records_them_without_reading(photos: Path, update: Update, tmp_path: Path) -> None:
    write_pictures(photos, a=1)
    age(photos)
    update()
    settle(tmp_path)
    with IndexWriter.open(tmp_path / "index") as writer:
        writer.catalog.change("UPDATE images SET ctime_ns = NULL")
    replace_keeping_times(photos / "a.png", (9, 9, 9))
    assert update().unchanged == 1  # its ctime is recorded from here on
    assert update(check_content=True).changed == 1
    with closing(IndexWriter.open(tmp_path / "index")) as writer:
        (known,) = writer.known().values()
    assert known.state.ctime_ns == (photos / "a.png").stat().st_ctime_ns


def test_a_rename_in_case_or_accents_only_keeps_the_id(photos: Path, update: Update, tmp_path: Path) -> None:
    decomposed = photos / "u\N{COMBINING DIAERESIS}.png"
    write_pictures(photos, IMG_1=1, Album__x=2, Album__y=2)
    decomposed.write_bytes(picture((3, 3, 3)))
    update()
    before = ids(tmp_path / "index")
    (photos / "IMG_1.png").rename(photos / "img_1.PNG")
    (photos / "img_1.PNG").write_bytes(picture((9, 9, 9)))  # and changed
    (photos / "Album").rename(photos / "album")
    decomposed.rename(photos / "ü.png")
    done = update()
    assert (done.changed, done.moved, done.added, done.removed) == (1, 3, 0, 0)
    assert ids(tmp_path / "index") == {
        "img_1.PNG": before["IMG_1.png"],
        "album/x.png": before["Album/x.png"],
        "album/y.png": before["Album/y.png"],
        "ü.png": before[decomposed.name],
    }
