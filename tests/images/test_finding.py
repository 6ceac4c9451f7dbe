"""Which files of a folder are considered: names are bytes, and a folder may hold anything."""

from __future__ import annotations

import inspect
import os
import socket
import sys
from pathlib import Path

import pytest

from searchengine.errors import IndexingError
from searchengine.images import LINKS_OUT, FoundFile, LeftOut, Unreadable, Walk


def make(root: Path, *names: str | bytes) -> None:
    """Make files of three bytes, and the folders they need."""
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"abc")


def paths(root: Path, *, exclude: tuple[str, ...] = (), skip: tuple[Path, ...] = ()) -> list[bytes]:
    return [file.path for file in Walk(root, exclude=exclude, skip=skip)]


def test_size_and_time(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_700_000_000_123_456_789))
    changed = (tmp_path / "a.jpg").stat().st_ctime_ns
    assert list(Walk(tmp_path)) == [FoundFile(b"a.jpg", 3, 1_700_000_000_123_456_789, changed)]


def test_an_empty_folder_and_empty_files(tmp_path: Path) -> None:
    assert paths(tmp_path) == []
    (tmp_path / "empty.jpg").touch()
    assert paths(tmp_path) == [b"empty.jpg"]


def test_the_order_is_that_of_whole_paths(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a/x.jpg", "a.jpg", "a-b/y.jpg", "a/b/z.jpg", "Z.jpg", "é.jpg", "a0.jpg")
    files = paths(tmp_path)
    assert files == sorted(files)
    assert len(files) == 8


def test_content_decides_unless_the_extension_is_well_known(tmp_path: Path) -> None:
    make(tmp_path, "photo", "photo.JPG", "photo.xyz", "photo.2023", "a.b.webp", "drawing.svg", "scan.tif")
    make(tmp_path, "notes.txt", "labels.JSON", "clip.mp4", "README", "Makefile", "album.zip", "thumbs.db", "x.tar.gz")
    make(tmp_path, ".hidden.jpg", ".cache/a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg")
    assert paths(tmp_path) == [
        b"a.b.webp",
        b"drawing.svg",
        b"photo",
        b"photo.2023",
        b"photo.JPG",
        b"photo.xyz",
        b"scan.tif",
    ]


def test_files_of_other_programs_are_left_out(tmp_path: Path) -> None:
    kinds = {
        "recycle bins": [
            "#recycle",
            "@Recycle",
            "$RECYCLE.BIN",
            "a/RECYCLER",
            ".Trash-1000",
            "lost+found",
            "Network Trash Folder",
        ],
        "snapshots": ["#snapshot", "@Recently-Snapshot", ".snapshot", ".zfs", "~snapshot", "@GMT-2024.01.01-00.00.00"],
        "thumbnails and previews": [
            "a/@eaDir",
            "a/@__thumb",
            "Thumbs",
            ".thumbnails",
            "A.photoslibrary/resources/derivatives",
            "B.aplibrary/Thumbnails",
            "C.migratedphotolibrary/Previews",
            "C.migratedphotolibrary/Thumbnails",
            "Catalog Previews.lrdata",
        ],
        "system files": ["__MACOSX", "System Volume Information", "Temporary Items", "a/@tmp"],
        "folders with .nomedia": ["private"],
        "hidden files and folders": [".cache", "a/.git"],
    }
    make(tmp_path, *(f"{folder}/1/a.jpg" for folders in kinds.values() for folder in folders))
    make(tmp_path, "private/.nomedia", "._a.jpg", "SYNOPHOTO_THUMB_M.jpg", ".hidden.jpg", ".DS_Store", ".notes.txt")
    kept = [
        "A.photoslibrary/originals/0/a.jpg",
        "C.migratedphotolibrary/Masters/a.jpg",
        "Derivatives/a.jpg",
        "recycle/a.jpg",
        "thumbs up.jpg",
    ]
    make(tmp_path, *kept)
    walk = Walk(tmp_path)
    assert [os.fsdecode(file.path) for file in walk] == kept
    assert {(os.fsdecode(item.path), item.kind) for item in walk.left_out} == {
        *((folder, kind) for kind, folders in kinds.items() for folder in folders),
        ("._a.jpg", "system files"),
        ("SYNOPHOTO_THUMB_M.jpg", "thumbnails and previews"),
        (".hidden.jpg", "hidden files and folders"),
    }
    everything = [os.fsdecode(file.path) for file in Walk(tmp_path, default_excludes=False)]
    assert len(everything) == len(kept) + sum(map(len, kinds.values())) + 3
    assert [file.path for file in Walk(tmp_path / "#recycle")] == [b"1/a.jpg"]  # asked for by name
    assert [file.path for file in Walk(tmp_path / "A.photoslibrary")] == [b"originals/0/a.jpg"]


ODD_NAMES = [
    b"with space.jpg",
    b"new\nline.jpg",
    b"quote\"'.jpg",
    b"back\\slash.jpg",
    "emoji \U0001f431.jpg".encode(),
    b"not utf-8 \xff\xfe.jpg",
    b"-rf.jpg",
    b"*?[a].jpg",
    b"\x01\x7f.jpg",
    "\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}.jpg".encode(),
    b"n" * 251 + b".jpg",
]


def test_odd_names(tmp_path: Path) -> None:
    make(tmp_path, *ODD_NAMES, *(b"folder \xff\n/" + name for name in ODD_NAMES))
    files = paths(tmp_path)
    assert sorted(files) == sorted(ODD_NAMES + [b"folder \xff\n/" + name for name in ODD_NAMES])
    assert all((tmp_path / os.fsdecode(path)).exists() for path in files)
    assert b"new\nline.jpg" not in paths(tmp_path, exclude=("new*line.jpg",))
    assert b"not utf-8 \xff\xfe.jpg" not in paths(tmp_path, exclude=("not utf-8*",))


def test_pipes_sockets_and_devices_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    (tmp_path / "to-pipe.jpg").symlink_to("pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.jpg")
        assert list(Walk(tmp_path)) == []


def test_links_to_files_are_followed_and_dead_ones_reported(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "images/inside.jpg").symlink_to("a.jpg")
    (tmp_path / "images/outside.jpg").symlink_to(tmp_path / "elsewhere/b.jpg")
    (tmp_path / "images/dead.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "images/circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "images/dead.txt").symlink_to("nowhere.txt")
    files = list(Walk(tmp_path / "images", follow_links=True))
    assert [(type(file), file.path) for file in files] == [
        (FoundFile, b"a.jpg"),
        (Unreadable, b"circle.jpg"),
        (Unreadable, b"dead.jpg"),
        (FoundFile, b"inside.jpg"),
        (FoundFile, b"outside.jpg"),
    ]
    walk = Walk(tmp_path / "images")
    assert [file.path for file in walk if isinstance(file, FoundFile)] == [b"a.jpg", b"inside.jpg"]
    assert walk.left_out == [LeftOut(b"outside.jpg", LINKS_OUT, is_folder=False)]
    reasons = [file.reason for file in files if isinstance(file, Unreadable)]
    assert reasons == ["too many levels of symbolic links", "no such file or directory"]


def test_links_to_folders_never_loop_nor_show_a_file_twice(tmp_path: Path) -> None:
    root, other = tmp_path / "images", tmp_path / "other"
    make(root, "a/1.jpg", ".secret/2.jpg")
    make(other, "3.jpg", "deep/4.jpg")
    for name, target in {
        "loop": ".",
        "a/up": "..",
        "again": "a",
        "revealed": ".secret",
        "other": str(other),
        "other2": str(other),
        "deep-first": str(other / "deep"),
    }.items():
        (root / name).symlink_to(target)
    (other / "back").symlink_to(root)
    (other / "self").symlink_to(other)
    walk = Walk(root)
    assert [file.path for file in walk] == [b"a/1.jpg"]
    assert [item.path for item in walk.left_out] == [b".secret", b"deep-first", b"other", b"other2"]
    followed = [file.path for file in Walk(root, follow_links=True)]
    assert followed == [b"a/1.jpg", b"deep-first/4.jpg", b"other/3.jpg"]
    linked = tmp_path / "link"
    linked.symlink_to(root)
    assert paths(linked) == paths(root)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.png", ["a.jpg", "sub/b.jpg", "sub/deep/d.jpg"]),
        ("sub", ["a.jpg", "c.png"]),
        ("sub/", ["a.jpg", "c.png"]),
        ("./sub/", ["a.jpg", "c.png"]),
        ("sub/*.jpg", ["a.jpg", "c.png"]),
        ("deep", ["a.jpg", "c.png", "sub/b.jpg"]),
        ("sub/deep/*", ["a.jpg", "c.png", "sub/b.jpg"]),
        ("**/a.jpg", ["c.png", "sub/b.jpg", "sub/deep/d.jpg"]),
        ("**/deep/d.jpg", ["a.jpg", "c.png", "sub/b.jpg"]),
        ("[ac].*", ["sub/b.jpg", "sub/deep/d.jpg"]),
        ("A.JPG", ["a.jpg", "c.png", "sub/b.jpg", "sub/deep/d.jpg"]),
    ],
)
def test_exclude(tmp_path: Path, pattern: str, left: list[str]) -> None:
    make(tmp_path, "a.jpg", "c.png", "sub/b.jpg", "sub/deep/d.jpg")
    assert [os.fsdecode(path) for path in paths(tmp_path, exclude=(pattern,))] == left


def test_several_patterns(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.png", "c.gif")
    assert paths(tmp_path, exclude=("*.png", "c.*")) == [b"a.jpg"]


def test_skipped_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "index/b.jpg", "index-2/c.jpg")
    (tmp_path / "link").symlink_to("index")
    assert paths(tmp_path, skip=(tmp_path / "index", tmp_path / "not there")) == [b"a.jpg", b"index-2/c.jpg"]
    assert paths(tmp_path, skip=(tmp_path / "link",)) == [b"a.jpg", b"index-2/c.jpg"]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    scandir = os.scandir

    def failing(folder: bytes) -> object:
        if folder.endswith(b"/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    files = list(Walk(tmp_path))
    assert [file.path for file in files] == [b"a/1.jpg", b"b", b"c/3.jpg"]
    assert files[1] == Unreadable(b"b", "permission denied")


def test_folders_may_nest_deeper_than_recursion(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(200):
        folder /= "d"
        folder.mkdir()
    (folder / "a.jpg").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)
    try:
        files = paths(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert files == [b"d/" * 200 + b"a.jpg"]


def test_a_root_that_cannot_be_searched_is_an_error_at_once(tmp_path: Path) -> None:
    make(tmp_path, "file.jpg")
    with pytest.raises(IndexingError, match="does not exist"):
        Walk(tmp_path / "missing")
    with pytest.raises(IndexingError, match="is not a folder"):
        Walk(tmp_path / "file.jpg")
