"""The structure for approximate search: when it is built, and that damage to it leaves searches exact."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from searchengine.cli import main
from searchengine.errors import MissingPackageError
from searchengine.index import building
from searchengine.index.approximate import STRUCTURE, structures
from searchengine.index.local import LocalIndex
from searchengine.indexing import update_index
from tests.fakes import FakeExtractor, Sentences, write_pictures
from tests.index.structured import added, both, built, features, filled, places
from tests.waiting import wait_until

# -- the files --------------------------------------------------------------------------------------------------------


def cut_short(folder: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(folder: Path, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def of_another_index(folder: Path, file: Path) -> None:
    other = filled(folder.parent / "other", features(300, seed=9))
    built(other)
    for each in (STRUCTURE.path(other), *structures(other)):
        (folder / each.name).write_bytes(each.read_bytes())


def without_its_file(folder: Path, file: Path) -> None:
    file.unlink()


def a_sheet_of_nonsense(folder: Path, file: Path) -> None:
    STRUCTURE.path(folder).write_text('{"format": 1}')


def a_sheet_that_names_another_file(folder: Path, file: Path) -> None:
    STRUCTURE.path(folder).write_text(STRUCTURE.path(folder).read_text().replace(file.name, "../catalog.sqlite"))


def a_sheet_without_candidates(folder: Path, file: Path) -> None:
    sheet = STRUCTURE.path(folder)
    sheet.write_text(re.sub(r'"depth": *[0-9]+', '"depth": 0', sheet.read_text()))


@pytest.mark.parametrize(
    ("damage", "is_open"),
    [
        (cut_short, False),
        (flip_a_bit, False),
        (of_another_index, False),
        (of_another_index, True),
        (without_its_file, False),
        (without_its_file, True),
        (a_sheet_of_nonsense, False),
        (a_sheet_of_nonsense, True),
        (a_sheet_that_names_another_file, False),
        (a_sheet_without_candidates, False),
    ],
)
def test_a_damaged_or_foreign_structure_is_ignored_and_built_again(
    small: Path, damage: Callable[[Path, Path], None], is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    approximate, exact = both(small)
    query = features(1, seed=4)[0]
    if is_open:
        assert approximate.approximation() is not None
    damage(small, structures(small)[0])
    assert places(approximate.search(query, 20)[0]) == places(exact.search(query, 20)[0])
    if not is_open:
        assert approximate.approximation() is None
        assert damage is of_another_index or "searchengine ann" in caplog.text
    progress = Sentences()
    building.update_structure(small, "on", progress)
    assert any("Building" in sentence for sentence in progress.said)
    wait_until(lambda: approximate.approximation() is not None)  # it may be opened by a thread
    assert len(structures(small)) == 1


def test_auto_builds_if_exact_search_is_slow_and_again_when_a_fifth_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path / "index", features(300))

    def made() -> str | None:
        building.update_structure(folder, "auto")
        kept = STRUCTURE.load(folder)
        return None if kept is None else kept.sheet.file

    assert made() is None
    monkeypatch.setattr(building, "_SMALL_BYTES", 0)
    assert made() is None  # exact search was timed, and is quick
    monkeypatch.setattr(building, "TOO_LONG", 0.0)
    first = made()
    assert first is not None
    assert made() == first
    added(folder, features(60, seed=1))
    assert made() == first
    added(folder, features(30, seed=2))
    assert made() not in (None, first)
    building.update_structure(folder, "off")
    assert LocalIndex.open(folder).approximation() is not None


def test_a_new_structure_replaces_the_old_one_during_searches(small: Path) -> None:
    index = LocalIndex.open(small)
    first = index.approximation()
    second = built(small)
    assert first is not None
    assert first != second
    query = features(1, seed=4)[0]
    wait_until(lambda: len(index.search(query, 20)[0]) == 20 and index.approximation() == second)


def test_a_build_that_fails_leaves_the_old_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = STRUCTURE.load(small)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(building, "calibrate", fail)  # leaves a file that no sheet names
        with pytest.raises(KeyboardInterrupt):
            built(small)
    assert len(structures(small)) == 2
    assert STRUCTURE.load(small) == before
    assert LocalIndex.open(small).approximation() is not None
    built(small)
    assert len(structures(small)) == 1


def test_without_faiss_searches_are_exact(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    approximate, exact = both(small)
    query = features(1, seed=4)[0]
    assert places(approximate.search(query, 20)[0]) == places(exact.search(query, 20)[0])
    with pytest.raises(MissingPackageError, match=r"searchengine\[ann\]"):
        building.update_structure(small, "on")
    progress = Sentences()
    building.update_structure(small, "auto", progress)
    assert [*filter(lambda sentence: "searchengine[ann]" in sentence, progress.said)]


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_run_builds_it_and_commands_report_its_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "in", **{f"p{level}": level for level in range(0, 250, 5)})
    folder = tmp_path / "index"
    update_index(tmp_path / "in", folder, extractor=FakeExtractor())
    assert STRUCTURE.load(folder) is None
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", str(folder))
    update_index(tmp_path / "in", folder, extractor=FakeExtractor(), ann="on")
    assert main(["info"]) == 0
    assert "approximate: finds 100 % of the exact results (IVF1,PQ6x4fs)" in capsys.readouterr().out
    assert main(["search", "--id", "7", "--json"]) == 0
    quick = json.loads(capsys.readouterr().out)
    assert quick["remark"].startswith("Quick search: it finds 100 %")
    monkeypatch.setenv("SEARCHENGINE_ANN", "off")
    assert main(["search", "--id", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**quick, "remark": None}
    monkeypatch.delenv("SEARCHENGINE_ANN")
    update_index(tmp_path / "in", folder, extractor=FakeExtractor(), rebuild=True)  # another matrix
    assert LocalIndex.open(folder).approximation() is None
    assert main(["ann"]) == 0
    assert LocalIndex.open(folder).approximation() is not None
    assert main(["ann", "--remove"]) == 0
    assert "searches are exact" in capsys.readouterr().out
    assert not structures(folder)


def test_a_run_that_needs_faiss_fails_at_once_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "in", a=1)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'searchengine\[ann\]'"):
        update_index(tmp_path / "in", tmp_path / "index", extractor=FakeExtractor(), ann="on")
    assert not (tmp_path / "index").exists()
    assert update_index(tmp_path / "in", tmp_path / "index", extractor=FakeExtractor()).images == 1
