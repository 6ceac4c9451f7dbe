"""Approximate search finds nearly all that exact search finds, and ranks it by the same distances."""

from __future__ import annotations

import csv
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.analyse.neighbours import NeighboursOptions, write_neighbours
from searchengine.errors import SearchEngineError
from searchengine.index import building
from searchengine.index.approximate import Structure
from searchengine.index.filters import EVERYTHING, Cursor, Filter
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT, MANHATTAN
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from tests.fakes import Sentences
from tests.index.contract.test_contract import row
from tests.index.structured import DIMENSION, added, both, built, features, filled, places

ROWS = 6000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that is large enough for several lists, with a structure; tests must not change it."""
    folder = filled(tmp_path_factory.mktemp("large"), features(ROWS))
    built(folder)
    return folder


@pytest.mark.parametrize("metric", [EUCLIDEAN, COSINE, INNER_PRODUCT])
@pytest.mark.parametrize("filter", [EVERYTHING, Filter(labels=("even",)), Filter(labels=("rare",))])
def test_it_finds_almost_all_and_measures_exactly(large: Path, metric: str, filter: Filter) -> None:
    approximate, exact = both(large)
    sheet = approximate.approximation(metric)
    assert sheet is not None
    assert sheet.recall >= 0.99
    assert sheet.factory == "IVF75,PQ48x4fs"
    found = 0
    for query in 3 * features(20, seed=1):  # longer than the features
        hits, expected = (each.search(query, 20, metric, filter=filter)[0] for each in (approximate, exact))
        assert places(hits) == sorted(places(hits))
        assert len(hits) == 20
        found += len({*places(hits)} & {*places(expected)})  # to the last digit
    assert found / (20 * 20) >= 0.98


@pytest.mark.parametrize(
    ("rows", "dimension", "factories"),
    [
        (10**6, 1280, ["PCA256,IVF4096,SQ8", "PCA512,IVF4096,SQ8"]),
        (10**6, 4096, ["PCA256,IVF4096,SQ8", "PCA512,IVF4096,SQ8", "PCA1024,IVF4096,SQ8"]),
        (10**6, 256, ["IVF4096,PQ128x4fs", "IVF4096,SQ8"]),
        (10**6, 97, ["IVF4096,PQ97x4fs", "IVF4096,SQ8"]),
        (300, 4096, ["IVF3,SQ8"]),
        (32, 96, ["IVF1,PQ48x4fs", "IVF1,SQ8"]),
        (31, 96, ["IVF1,SQ8"]),
        (10**7, 4096, ["PCA104,IVF16384,SQ8"]),  # with a byte each, it stays within a gigabyte
    ],
)
def test_short_features_are_coded_and_long_ones_reduced(rows: int, dimension: int, factories: list[str]) -> None:
    assert building._factories(rows, dimension) == factories


def test_calibration_tries_cheaper_settings_first() -> None:
    tries = building._by_cost(4096, 244 * 256, 1280, widest=False)
    assert tries[:3] == [(16, 4), (23, 4), (32, 4)]
    assert tries.index((64, 16)) < tries.index((16, 32))  # measuring 320 rows costs more than reading 48 lists
    assert max(tries) == (1024, 32)
    assert {nprobe for nprobe, _ in building._by_cost(4096, 244 * 256, 1280, widest=True)} >= {16, 4096}
    assert building._by_cost(1, 3000, 96, widest=True) == [(1, 4), (1, 8), (1, 16), (1, 32)]


def test_principal_components_find_as_much(tmp_path: Path) -> None:
    vectors = np.zeros((2000, 400), np.float32)
    vectors[:, :96] = features(2000)
    folder = filled(tmp_path / "wide", vectors)
    sheet = built(folder)
    assert sheet.factory.startswith("PCA256,")
    assert sheet.recall >= 0.99
    approximate, exact = both(folder)
    hits, expected = (places(index.search(vectors[:50], 20)[0]) for index in (approximate, exact))
    assert hits == expected


def test_pages_continue_to_the_end(large: Path) -> None:
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


def test_images_that_were_added_removed_or_changed_since(small: Path) -> None:
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


def test_neighbours_of_a_whole_set_agree_with_exact_ones(small: Path, tmp_path: Path) -> None:
    added(small, features(50, seed=9), removed=[3])
    says, tables = Sentences(), []
    for name, exact in (("quick", False), ("exact", True)):
        with closing(LocalIndex.open(small, exact=exact)) as index:
            write_neighbours(index, tmp_path / name, NeighboursOptions(k=5), says)
        with (tmp_path / name / "neighbours.csv").open() as opened:
            tables.append({(row["id"], row["neighbour"], row["distance"]) for row in csv.DictReader(opened)})
    assert len(says.said) == 1
    assert says.said[0].startswith("By quick search, which finds ")
    assert len(tables[0]) == len(tables[1]) == 349 * 5
    assert len(tables[0] & tables[1]) >= 0.98 * 349 * 5  # to the last digit


def test_a_metric_that_ranks_differently_is_exact_and_reports_its_cost(large: Path) -> None:
    approximate, exact = both(large)
    assert approximate.approximation(MANHATTAN) is None
    query = features(1, seed=3)[0]
    assert places(approximate.search(query, 9, MANHATTAN)[0]) == places(exact.search(query, 9, MANHATTAN)[0])
    structure = Structure.open(large)
    assert structure is not None
    slow = Structure.of_sheet(large, replace(structure.sheet, recall=0.99478, exact_seconds={MANHATTAN: 2.34}))
    state = approximate.state()
    assert (
        slow.remark(state, MANHATTAN)
        == "Searching by Manhattan distance compares every picture, which takes about 2.3 s."
    )
    assert slow.remark(state, COSINE) == (
        "Quick search: it finds 99.4 % of what a comparison with every picture would find."
    )
    assert exact.search_remark(COSINE) is None


@pytest.mark.parametrize("query", [np.zeros(DIMENSION), np.full(DIMENSION, 1e30), np.full(DIMENSION, 1e-40)])
def test_extreme_queries_give_the_exact_results(large: Path, query: NDArray[np.float64]) -> None:
    approximate, exact = both(large)
    assert len(approximate.search(query, 9)[0]) == 9
    if not 0 < np.abs(query).max() < 1:  # the tiny query underflows, so any direction is as good
        assert places(approximate.search(query, 9)[0]) == places(exact.search(query, 9)[0])


def test_features_of_extreme_length_have_no_structure(tmp_path: Path) -> None:
    folder = filled(tmp_path / "index", np.full((5, 4), 1e30, np.float32), normalized="0")
    with pytest.raises(SearchEngineError, match="stay exact"):
        built(folder)
