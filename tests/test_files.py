"""Files are replaced in one step, and locks are held by one process at a time."""

from __future__ import annotations

import csv
import io
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchengine import files
from searchengine.errors import IndexingError

_DEAD = 2**22 + 1  # no process has this number


def _write_half(file: Path) -> None:
    with files.replacing(file) as part:
        part.write_text("half")
        raise OSError("no room")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "made" / "a.txt"
    files.replace_text(file, "Ä")
    with pytest.raises(OSError, match="no room"):
        _write_half(file)
    assert file.read_text(encoding="utf-8") == "Ä"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe", "folder"])
def test_anything_but_a_regular_file_is_refused_without_blocking(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a whole path may be too long for a socket
    file = tmp_path / "photo.jpg"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(file.name)
    elif kind == "folder":
        file.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe")
        file.symlink_to("/dev/zero" if kind == "device" else "pipe")
    for read in (files.open_regular, files.read_regular):
        with pytest.raises(OSError, match=re.escape(str(file))):
            read(file)


def test_a_photo_is_read_unless_it_is_huge(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"abc")
    assert files.read_regular(os.fsencode(file)) == b"abc"
    with file.open("r+b") as opened:
        opened.truncate(files.MAX_PHOTO_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(OSError, match="too large"):
        files.read_regular(file)


@pytest.mark.parametrize("durable", [True, False])
def test_only_durable_files_are_flushed(durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    files.replace_bytes(tmp_path / "a", b"1", durable=durable)
    assert len(flushed) == (2 if durable else 0)


def test_only_leftovers_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    left = tmp_path / f".a-1.npz.3.{_DEAD}.part"
    others = [tmp_path / f".b.npz.3.{_DEAD}.part", tmp_path / f".a-1.npz.3.{os.getpid()}.part", tmp_path / ".a.part"]
    for file in (left, *others):
        file.touch()
    files.replace_bytes(tmp_path / "a", b"")
    assert left.exists()
    with files.output_file(tmp_path / "a-1.npz") as part:
        part.touch()
    assert not left.exists()
    assert all(file.exists() for file in others)


def test_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    texts = [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: files.replace_text(tmp_path / "a", text), texts))
    assert (tmp_path / "a").read_text() in texts
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_an_unwritable_output_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, reason in ((tmp_path, "is a folder"), (tmp_path / "file" / "a" / "b", "file is a file")):
        with pytest.raises(IndexingError, match=reason), files.output_file(place):
            pass


_HOLD = """
import sys
from pathlib import Path
from searchengine import files
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_lock_is_held_by_one_process_and_leaves_no_file_behind(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), files.locked(lock):
            pass
        waited = []

        def let_go() -> None:
            waited.append(True)
            holder.communicate("\n")

        with files.locked(lock, on_wait=let_go):
            assert lock.exists()
    assert waited == [True]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_free_after_its_holder_was_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        holder.wait()
        with files.locked(lock):
            pass


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, b"\xff", "", "1" * 5000, "{", "[" * 100_000 + "]" * 100_000]
)
def test_invalid_or_deep_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (each has its own words)
        files.parse_json(text)


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-cat", "'-cat"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        (' "=1', "' \"=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-inf", "'-inf"),
        ("'=1", "''=1"),  # an apostrophe of its own in front
        ("''-", "'''-"),
        ("a;=2+2", "a;'=2+2"),
        ("a;=2;'=3;b", "a;'=2;''=3;b"),
        ('a;"=2"', 'a;\'"=2"'),
        ("a; @x\t+1|-1\n=1\r\n=2", "a;' @x\t'+1|'-1\n'=1\r\n'=2"),
        ("'tis; b", "'tis; b"),
        ("cat, -dog", "cat, -dog"),
        ("x=1", "x=1"),
        ("-1", "-1"),
        ("+1.5e-3", "+1.5e-3"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula_and_each_is_restored(text: str, guarded: str, tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as opened:
        write = files.csv_writer(opened)
        write([text, -0.5, 7])
    with (tmp_path / "a.csv").open(newline="") as opened:
        ((cell, *numbers),) = csv.reader(opened)
    assert cell == guarded
    assert files.unguarded(cell) == text
    assert numbers == ["-0.5", "7"]


@given(st.text(st.sampled_from("a;\t\r\n|'\"=- ,"), max_size=12))
def test_no_separator_turns_part_of_a_cell_into_a_formula(text: str) -> None:
    opened = io.StringIO(newline="")
    files.csv_writer(opened)([7, text, "b"])
    written = opened.getvalue()
    ((_, cell, _),) = csv.reader(io.StringIO(written, newline=""))
    assert files.unguarded(cell) == text
    for separator in ";\t|":
        rows = csv.reader(io.StringIO(written, newline=""), delimiter=separator)
        assert not [part for row in rows for part in row if part.lstrip(' "').startswith(("=", "-"))]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (9960, "10 kB"), (5.53e8, "553 MB"), (6.4e13, "64000 GB")],
)
def test_a_size_in_words(size: float, text: str) -> None:
    assert files.file_size(size) == text
