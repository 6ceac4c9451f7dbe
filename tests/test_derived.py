"""The store of derived data is read back unchanged, and refuses damaged or planted files."""

from __future__ import annotations

import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from searchengine import derived
from searchengine.derived import Cached, Derived
from searchengine.errors import IndexDamagedError, IndexingError, QueryError
from tests.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Sheet:
    format: Literal[1]
    fingerprint: str
    version: str
    shares: tuple[tuple[str, float], ...] = ()


SHEET = Sheet(1, "vgg16", "a", (("cat", 1), ("dög", 0.25)))
JSON = Derived("words.json", Sheet, command="searchengine words")
ARRAYS = Derived("arrays.npz", Sheet, command="searchengine arrays", columns=("ids", "shares"))
IDS = {"ids": np.array([3, 1, 2]), "shares": np.zeros(3)}


@pytest.mark.parametrize("kind", [JSON, ARRAYS])
def test_it_is_read_back(kind: Derived[Sheet], tmp_path: Path) -> None:
    assert kind.load(tmp_path) is None
    assert kind.identity(tmp_path) is None
    assert kind.save(tmp_path, SHEET, IDS if kind is ARRAYS else None) == tmp_path / kind.file
    kept = kind.load(tmp_path)
    assert kept is not None
    assert kept.sheet == SHEET
    assert {name: array.tolist() for name, array in kept.arrays.items()} == (
        {"ids": [3, 1, 2], "shares": [0, 0, 0]} if kept.arrays else {}
    )
    before = kind.identity(tmp_path)
    kind.save(tmp_path, SHEET, IDS)
    assert before != kind.identity(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [kind.file]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 1',
        '{"format": 2, "fingerprint": "vgg16", "version": "a"}',
        '{"format": 1, "fingerprint": 7, "version": "a"}',
        '{"format": 1, "fingerprint": "vgg16"}',
        '{"format": 1, "fingerprint": "vgg16", "version": "a", "shares": [["cat"]]}',
        '{"format": 1, "fingerprint": "vgg16", "version": "a", "shares": ' + "[" * 100_000,
    ],
)
def test_a_damaged_sheet_is_refused_with_the_command(text: str, tmp_path: Path) -> None:
    JSON.path(tmp_path).write_text(text)
    np.savez(ARRAYS.path(tmp_path), about=np.array(text), **IDS)
    for kind in (JSON, ARRAYS):
        with pytest.raises(
            IndexDamagedError, match=rf"{kind.file} cannot be read.*{kind.command} --index-dir {tmp_path}"
        ):
            kind.load(tmp_path)


def test_damaged_or_planted_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ARRAYS.save(tmp_path, SHEET, IDS)
    whole = file.read_bytes()
    about = np.array('{"format": 1, "fingerprint": "vgg16", "version": "a"}')
    planted: list[dict[str, Any]] = [
        {"about": about, "ids": np.array([print], dtype=object)},  # could only be unpickled
        {"about": about},
        {"about": about, "ids": IDS["ids"], "shares": np.zeros(2)},
        {"ids": IDS["ids"]},
    ]
    for arrays in planted:
        np.savez(file, **arrays)
        with pytest.raises(IndexDamagedError):
            ARRAYS.load(tmp_path)
    for cut in (0, 10, len(whole) // 2):
        file.write_bytes(whole[:cut])
        with pytest.raises(IndexDamagedError):
            ARRAYS.load(tmp_path)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ids.npy", b"\0" * 2**22)
    assert file.stat().st_size < 2**13
    monkeypatch.setattr(derived, "_MAX_BYTES", 2**20)
    with pytest.raises(IndexDamagedError):
        ARRAYS.load(tmp_path)
    JSON.path(tmp_path).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(IndexDamagedError):
        JSON.load(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexingError, match="is a file"):
        JSON.save(tmp_path / "file", SHEET)


def test_cached_computes_once_for_each_key() -> None:
    key, computed = [1], []
    cached = Cached(lambda: key[0], lambda: computed.append(key[0]) or len(computed))
    assert [cached.get(), cached.get()] == [1, 1]
    key[0] = 2
    assert [cached.get(), cached.get()] == [2, 2]
    assert computed == [1, 2]


def test_cached_in_background_serves_the_old_value_meanwhile() -> None:
    key, released = [1], threading.Event()

    def compute() -> int:
        if key[0] > 1:
            released.wait(10)
        if key[0] == 3:
            raise QueryError("three")
        return key[0] * 10

    cached = Cached(lambda: key[0], compute, in_background=lambda old, new: True)
    assert cached.get() == 10
    key[0] = 2
    assert [cached.get(), cached.get()] == [10, 10]
    released.set()
    wait_until(lambda: cached.get() == 20)
    key[0] = 3
    assert cached.get() == 20

    def fails() -> bool:
        try:
            cached.get()
        except QueryError:
            return True
        return False

    wait_until(fails)  # an error in the background reaches the next caller
    key[0] = 4
    assert cached.get() == 40
