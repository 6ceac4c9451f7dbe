"""Approximate search: what it finds is measured exactly, and whatever is wrong with it, answers are those of before."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.analyse.neighbours import NeighboursOptions, write_neighbours
from searchengine.cli import main
from searchengine.errors import MissingPackageError, SearchEngineError
from searchengine.index import building
from searchengine.index.filters import EVERYTHING, Cursor, Filter
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT, MANHATTAN
from searchengine.index.structure import STRUCTURE, Structure, StructureSheet, structures
from searchengine.index.types import Batch, Hit
from searchengine.index.writer import IndexWriter
from searchengine.indexing import update_index
from searchengine.progress import Quiet
from tests.fakes import FakeExtractor, write_pictures
from tests.index.contract.test_contract import MANIFEST, row
from tests.waiting import wait_until

DIMENSION = 96
ROWS = 6000


class Sentences(Quiet):
    """What is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def features(count: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, d) of length 1, around forty points."""
    centres = np.random.default_rng(7).standard_normal((40, DIMENSION))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(40, size=count)] + 0.7 * random.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(folder: Path, vectors: NDArray[np.float32], **manifest: str) -> Path:
    """An index with an image for each vector; every second one is labelled even, and every hundredth rare."""
    with IndexWriter.create(folder, {**MANIFEST, "normalized": "1", **manifest}, dimension=vectors.shape[1]) as writer:
        writer.set_roots([(1, b"/photos", "photos")])
    return added(folder, vectors)


def added(folder: Path, vectors: NDArray[np.float32], removed: list[int] | None = None) -> Path:
    with IndexWriter.open(folder) as writer:
        first = writer.catalog.last_id() + 1
        images = [
            row(f"{n}.jpg", *("even",) * (n % 2 == 0), *("rare",) * (n % 100 == 0))
            for n in range(first, first + len(vectors))
        ]
        writer.commit(Batch(stored=images, features=list(vectors), removed=removed or []))
    return folder


def built(folder: Path) -> StructureSheet:
    with closing(LocalIndex.open(folder, exact=True)) as index:
        return building.build(folder, index.state())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for lists, and with a structure; not to be changed."""
    folder = filled(tmp_path_factory.mktemp("large"), features(ROWS))
    built(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Of 300 images, with a structure."""
    folder = filled(tmp_path / "small", features(300))
    built(folder)
    return folder


def both(folder: Path) -> tuple[LocalIndex, LocalIndex]:
    return LocalIndex.open(folder), LocalIndex.open(folder, exact=True)


def places(hits: list[Hit]) -> list[tuple[float, int]]:
    return [(hit.distance, hit.id) for hit in hits]


# -- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [EUCLIDEAN, COSINE, INNER_PRODUCT])
@pytest.mark.parametrize("filter", [EVERYTHING, Filter(labels=("even",)), Filter(labels=("rare",))])
def test_almost_all_is_found_and_measured_exactly(large: Path, metric: str, filter: Filter) -> None:
    approximate, exact = both(large)
    sheet = approximate.approximation(metric)
    assert sheet is not None
    assert sheet.recall >= 0.99
    assert sheet.factory == "IVF75,SQ8"
    found = 0
    for query in 3 * features(20, seed=1):  # also of another length
        hits, expected = (each.search(query, 20, metric, filter=filter)[0] for each in (approximate, exact))
        assert places(hits) == sorted(places(hits))
        assert len(hits) == 20
        found += len({*places(hits)} & {*places(expected)})  # to the last digit
    assert found / (20 * 20) >= 0.98


def test_components_are_taken_where_there_are_enough_images() -> None:
    assert building._choices(10**6, 1280) == [256, 512]
    assert building._choices(10**6, 4096) == [256, 512, 1024]
    assert building._choices(10**6, 256) == [None]
    assert building._choices(300, 4096) == [None]
    assert building._choices(10**7, 4096) == [104]  # a byte each, within a gigabyte
    assert building._factory(10**6, 256) == "PCA256,IVF4096,SQ8"
    assert building._factory(30, None) == "IVF1,SQ8"


def test_what_costs_less_is_tried_first() -> None:
    sheet = StructureSheet(
        1, "", "PCA256,IVF4096,SQ8", "", 0, 0, "", 10**6, 0, nprobe=1, depth=1, deepest=1, recall=0, queries=0,
        exact_seconds={},
    )  # fmt: skip
    tries = building._by_cost(sheet, 1280, widest=False)
    assert tries[:3] == [(16, 4), (23, 4), (32, 4)]
    assert tries.index((64, 16)) < tries.index((16, 32))  # to measure 320 rows costs more than 48 lists
    assert max(tries) == (1024, 32)
    assert {nprobe for nprobe, _ in building._by_cost(sheet, 1280, widest=True)} >= {16, 4096}
    assert building._by_cost(replace(sheet, factory="IVF1,SQ8"), 96, widest=True) == [(1, 4), (1, 8), (1, 16), (1, 32)]


def test_components_find_as_much(tmp_path: Path) -> None:
    vectors = np.zeros((2000, 400), np.float32)
    vectors[:, :96] = features(2000)
    folder = filled(tmp_path / "wide", vectors)
    sheet = built(folder)
    assert sheet.factory.startswith("PCA256,")
    assert sheet.recall >= 0.99
    approximate, exact = both(folder)
    hits, expected = (places(index.search(vectors[:50], 20)[0]) for index in (approximate, exact))
    assert hits == expected


def test_pages_go_on_until_the_end(large: Path) -> None:
    approximate, exact = both(large)
    query = features(1, seed=2)[0]
    expected = [hit.id for hit in exact.search(query, ROWS)[0]]
    seen: list[int] = []
    after = None
    while hits := approximate.search(query, 500, after=after)[0]:
        seen += [hit.id for hit in hits]
        after = Cursor(hits[-1].distance, hits[-1].id)
    assert len(seen) == len(set(seen))
    assert len(set(seen) & set(expected)) >= 0.99 * ROWS


def test_thousands_of_copies_come_in_the_order_of_ids(tmp_path: Path) -> None:
    vectors = features(3000)
    vectors[500:2900] = vectors[500]
    folder = filled(tmp_path / "index", vectors)
    built(folder)
    approximate, exact = both(folder)
    hits, expected = (places(index.search(vectors[500], 30)[0]) for index in (approximate, exact))
    assert hits == expected


def test_rows_come_go_and_change(small: Path) -> None:
    approximate, exact = both(small)
    query = features(1, seed=5)[0]
    gone = [hit.id for hit in approximate.search(query, 30)[0]]
    near = (query + 0.01 * features(40, seed=6)).astype(np.float32)
    added(small, near, removed=gone)
    with IndexWriter.open(small) as writer:
        changed = row("7.jpg", content="another", id_=7, replaces=True)
        writer.commit(Batch(stored=[changed], features=[query]))
    assert approximate.approximation() is not None
    hits = approximate.search(query, 60)[0]
    assert places(hits) == places(exact.search(query, 60)[0])
    assert hits[0].id == 7
    assert {hit.id for hit in hits} >= set(range(301, 341))
    assert not {hit.id for hit in hits} & (set(gone) - {7})
    with IndexWriter.open(small) as writer:
        writer.compact()  # another matrix
    assert approximate.approximation() is None
    assert places(approximate.search(query, 60)[0]) == places(hits)


def test_neighbours_of_the_whole_set_are_those_of_searches(small: Path, tmp_path: Path) -> None:
    says, tables = Sentences(), []
    for name, exact in (("quick", False), ("exact", True)):
        with closing(LocalIndex.open(small, exact=exact)) as index:
            write_neighbours(index, tmp_path / name, NeighboursOptions(k=5), says)
        with (tmp_path / name / "neighbours.csv").open() as opened:
            tables.append({(row["id"], row["neighbour"], row["distance"]) for row in csv.DictReader(opened)})
    assert len(says.said) == 1
    assert says.said[0].startswith("By quick search, which finds ")
    assert len(tables[0]) == len(tables[1]) == 300 * 5
    assert len(tables[0] & tables[1]) >= 0.98 * 300 * 5  # to the last digit


def test_the_metrics_that_rank_otherwise_stay_exact_and_say_what_they_cost(large: Path) -> None:
    approximate, exact = both(large)
    assert approximate.approximation(MANHATTAN) is None
    query = features(1, seed=3)[0]
    assert places(approximate.search(query, 9, MANHATTAN)[0]) == places(exact.search(query, 9, MANHATTAN)[0])
    structure = Structure.open(large)
    assert structure is not None
    slow = Structure.of_sheet(large, replace(structure.sheet, recall=0.99478, exact_seconds={MANHATTAN: 2.34}))
    state = approximate.state()
    assert slow.remark(state, MANHATTAN) == "By Manhattan distance, every picture is compared, which takes about 2.3 s."
    assert slow.remark(state, COSINE) == (
        "Quick search: it finds 99.4 % of what a comparison with every picture would find."
    )
    assert exact.search_remark(COSINE) is None


@pytest.mark.parametrize("query", [np.zeros(DIMENSION), np.full(DIMENSION, 1e30), np.full(DIMENSION, 1e-40)])
def test_odd_queries_are_answered_as_by_exact_search(large: Path, query: NDArray[np.float64]) -> None:
    approximate, exact = both(large)
    assert len(approximate.search(query, 9)[0]) == 9
    if not 0 < np.abs(query).max() < 1:  # else all directions are as good
        assert places(approximate.search(query, 9)[0]) == places(exact.search(query, 9)[0])


def test_features_that_are_too_long_have_no_structure(tmp_path: Path) -> None:
    folder = filled(tmp_path / "index", np.full((5, 4), 1e30, np.float32), normalized="0")
    with pytest.raises(SearchEngineError, match="stay exact"):
        built(folder)


# -- what is kept -----------------------------------------------------------------------------------------------------


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
    "damage",
    [
        cut_short,
        flip_a_bit,
        of_another_index,
        without_its_file,
        a_sheet_of_nonsense,
        a_sheet_that_names_another_file,
        a_sheet_without_candidates,
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
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
    building.keep_up(small, "on", progress)
    assert any("Building" in sentence for sentence in progress.said)
    wait_until(lambda: approximate.approximation() is not None)  # a thread may open it
    assert len(structures(small)) == 1


def test_auto_builds_where_exact_search_takes_long_and_again_when_a_fifth_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path / "index", features(300))

    def made() -> str | None:
        building.keep_up(folder, "auto")
        kept = STRUCTURE.load(folder)
        return None if kept is None else kept.sheet.file

    assert made() is None
    monkeypatch.setattr(building, "_SMALL_BYTES", 0)
    assert made() is None  # it was measured
    monkeypatch.setattr(building, "TOO_LONG", 0.0)
    first = made()
    assert first is not None
    assert made() == first
    added(folder, features(60, seed=1))
    assert made() == first
    added(folder, features(30, seed=2))
    assert made() not in (None, first)
    building.keep_up(folder, "off")
    assert LocalIndex.open(folder).approximation() is not None


def test_another_takes_its_place_while_it_answers(small: Path) -> None:
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
        patched.setattr(building, "_calibrated", fail)  # its file is there, and no sheet names it
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
        building.keep_up(small, "on")
    progress = Sentences()
    building.keep_up(small, "auto", progress)
    assert [*filter(lambda sentence: "searchengine[ann]" in sentence, progress.said)]


# -- by commands ------------------------------------------------------------------------------------------------------


def test_a_run_builds_it_and_commands_say_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "in", **{f"p{level}": level for level in range(0, 250, 5)})
    folder = tmp_path / "index"
    update_index(tmp_path / "in", folder, extractor=FakeExtractor())
    assert STRUCTURE.load(folder) is None
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", str(folder))
    update_index(tmp_path / "in", folder, extractor=FakeExtractor(), ann="on")
    assert main(["info"]) == 0
    assert "quick: finds 100 % of what exact search finds (IVF1,SQ8)" in capsys.readouterr().out
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


def test_a_run_that_wants_it_says_at_once_that_faiss_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "in", a=1)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'searchengine\[ann\]'"):
        update_index(tmp_path / "in", tmp_path / "index", extractor=FakeExtractor(), ann="on")
    assert not (tmp_path / "index").exists()
    assert update_index(tmp_path / "in", tmp_path / "index", extractor=FakeExtractor()).images == 1
