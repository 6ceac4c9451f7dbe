"""Filters and cursors in each of their spellings, and the columns that filters use."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchengine.derived import Derived
from searchengine.engine import open_index
from searchengine.errors import QueryError
from searchengine.exchange import ImportOptions, import_features
from searchengine.index import column_reader
from searchengine.index.catalog import Catalog
from searchengine.index.column_reader import COLUMNS
from searchengine.index.filters import EVERYTHING, FIELDS, Cursor, Facets, FacetValue, Filter, unknown_choices
from searchengine.index.state import ROWS
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3).map(tuple)
SIDES = st.none() | st.integers(1, 2**63 - 1)
FILTERS = st.builds(
    Filter,
    labels=TEXTS,
    folders=TEXTS.filter(lambda folders: all(folder.strip("/") for folder in folders)),
    after=st.none() | st.dates(),
    before=st.none() | st.dates(),
    formats=TEXTS,
    cameras=TEXTS,
    min_width=SIDES,
    max_width=SIDES,
    min_height=SIDES,
    max_height=SIDES,
    ids=st.none() | st.lists(st.integers(0, 2**63 - 1), max_size=4).map(tuple),
)


@settings(max_examples=60)
@given(FILTERS)
def test_a_filter_survives_each_spelling(filter: Filter) -> None:
    assert Filter.from_fields(filter.to_fields()) == filter
    address = urlencode(filter.to_fields(), doseq=True)
    assert Filter.from_fields(parse_qs(address, keep_blank_values=True)) == filter
    assert Filter.from_json(json.loads(json.dumps(filter.to_fields()))) == filter
    assert set(filter.to_fields()) <= set(FIELDS)
    assert bool(filter) == (filter != EVERYTHING)


@settings(max_examples=60)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**63 - 1))
def test_a_cursor_survives_its_text(distance: float, id_: int) -> None:
    cursor = Cursor(distance, id_)
    assert Cursor.parse(str(cursor)) == cursor


def test_the_spellings_of_a_filter() -> None:
    filter = Filter(("dog",), ("trips",), date(2024, 1, 1), formats=("JPEG",), min_width=640, ids=(7, 3))
    address = "label=dog&folder=trips&after=2024-01-01&format=JPEG&min_width=640&ids=7%2C3"
    assert urlencode(filter.to_fields(), doseq=True) == address
    assert (
        Filter.from_fields(parse_qs("label=dog&folder=/trips/&after=2024&format=jpeg&min_width=640&ids=7,3&k=9"))
        == filter
    )
    assert (
        Filter.from_json(
            {
                "label": "dog",
                "folder": ["trips"],
                "after": "2024-01",
                "format": "Jpeg",
                "min_width": "640",
                "ids": [7, 3],
            }
        )
        == filter
    )
    assert filter.to_fields()["ids"] == ["7,3"]
    empty_form = {name: [""] for name in FIELDS if name != "ids"}
    assert Filter.from_fields(empty_form) == EVERYTHING
    assert Filter.from_fields({"ids": [""]}) == Filter(ids=())
    assert Filter(ids=())
    assert not EVERYTHING
    assert str(Cursor(0.1, 7)) == "0.1:7"


@pytest.mark.parametrize(
    ("text", "after", "before"),
    [
        ("2024-02-17", date(2024, 2, 17), date(2024, 2, 17)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2023", date(2023, 1, 1), date(2023, 12, 31)),
    ],
)
def test_a_day_a_month_or_a_year(text: str, after: date, before: date) -> None:
    filter = Filter.from_fields({"after": [text], "before": [text]})
    assert (filter.after, filter.before) == (after, before)


@pytest.mark.parametrize(
    "values",
    [
        {"after": "yesterday"},
        {"after": "2024-13"},
        {"after": "0000"},
        {"before": "2023-02-29"},
        {"before": "20240101"},
        {"min_width": "0"},
        {"min_width": "-1"},
        {"max_height": "9" * 30},
        {"max_width": "٣"},
        {"ids": "1,x"},
        {"ids": [-1]},
        {"ids": 2**63},
        {"folder": "/"},
        {"label": None},
        {"label": True},
        {"label": [["dog"]]},
        {"min_width": 1.5},
        {"colour": "red"},
        ["label"],
        None,
    ],
)
def test_invalid_filters_are_refused(values: object) -> None:
    with pytest.raises(QueryError):
        Filter.from_json(values)


@pytest.mark.parametrize("text", ["", "7", ":7", "x:7", "0.5:", "0.5:x", "nan:7", "inf:7", "0.5:-1", f"0.5:{2**63}"])
def test_invalid_cursors_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="first results"):
        Cursor.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        {"label": [str(number) for number in range(101)]},
        {"folder": ["trips"] * 101},
        {"ids": list(range(10_001))},
        {"ids": [",".join(["7"] * 10_001)]},
    ],
)
def test_too_many_values_are_refused(values: dict[str, list[str | int]]) -> None:
    with pytest.raises(QueryError, match="at most"):
        Filter.from_json(values)


class Forgetful(dict[Filter, object]):
    """A cache that another thread empties after every insertion."""

    def __setitem__(self, key: Filter, value: object) -> None:
        super().__setitem__(key, value)
        self.clear()


def test_only_a_few_masks_and_facets_are_cached(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.eye(9, dtype=np.float32))
    import_features(tmp_path / "features.npy", tmp_path / "index")
    with closing(open_index(tmp_path / "index")) as index:
        columns = index._known_columns()[1]
        for number in range(1, 200):
            assert index.count(Filter(ids=(number,))) == (number < 10)
            assert index.count(Filter(max_width=number)) == 0
            index.facets(Filter(max_width=number))
        # The caches do not grow with the number of filters, and never hold a filter with ids.
        assert (len(columns._passing) <= 32, len(columns._facets) <= 32) == (True, True)
        assert all(filter.ids is None for filter in columns._passing)
        shared = replace(columns, _passing=Forgetful(), _facets=Forgetful())  # type: ignore[arg-type]
        assert shared.passing(EVERYTHING).sum() == 9
        assert shared.facets(EVERYTHING).label == ()


def test_a_filter_is_answered_while_a_run_keeps_committing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "features.npy", np.eye(40, dtype=np.float32))
    import_features(tmp_path / "features.npy", tmp_path / "index")
    load, removed = column_reader.load, iter(range(1, 9))
    with closing(open_index(tmp_path / "index")) as index, closing(IndexWriter.open(tmp_path / "index")) as writer:

        def overtaken(*args: Any) -> Any:
            loaded = load(*args)
            writer.commit(Batch(removed=[next(removed)]))
            return loaded

        monkeypatch.setattr(column_reader, "load", overtaken)
        assert index.count(Filter(ids=tuple(range(1, 41)))) == 40
        assert index.count(Filter(ids=tuple(range(1, 41)))) == 39


def test_searches_continue_while_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "features.npy", np.eye(40, dtype=np.float32))
    import_features(tmp_path / "features.npy", tmp_path / "index")
    load, begun, go_on = column_reader.load, threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return load(*args)

    monkeypatch.setattr(column_reader, "load", slow)
    with closing(open_index(tmp_path / "index")) as index, ThreadPoolExecutor(2) as pool:
        counted = pool.submit(index.count, Filter(max_width=5))
        try:
            assert begun.wait(60)
            found = pool.submit(index.search, np.eye(40, dtype=np.float32)[3], 1)
            assert found.result(timeout=60)[0][0].id == 4
            assert not counted.done()
        finally:
            go_on.set()
        assert counted.result(timeout=60) == 0


def queries(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[object]:
    """Return a list that receives the arguments of each call of some methods of the catalog."""
    read: list[object] = []
    for name in names:
        method = getattr(Catalog, name)
        monkeypatch.setattr(Catalog, name, lambda *args, method=method: read.append(args[1:]) or method(*args))
    return read


def test_only_new_rows_are_read_after_images_were_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "features.npy", np.eye(40, dtype=np.float32))
    import_features(tmp_path / "features.npy", tmp_path / "index")
    read = queries(monkeypatch, "rows_from", "filter_columns", "rows_before")
    with closing(open_index(tmp_path / "index")) as index, closing(IndexWriter.open(tmp_path / "index")) as writer:
        assert index.count(Filter(ids=tuple(range(9)))) == 8
        assert read == [(None,), (0, 40)]
        writer.commit(Batch(removed=[3, 30]))
        assert index.count(Filter(ids=tuple(range(9)))) == 7
        assert read[2:] == [(40,), (40,)]  # the rows that still have an image, and new rows
        assert len(index) == 38


def test_only_some_of_many_values_are_listed() -> None:
    facets = Facets(label=tuple(FacetValue(f"label{number}", 1) for number in range(14)))
    (sentence,) = unknown_choices(facets, Filter(labels=("unicorn",)))
    assert sentence.endswith("label10, label11 and 2 more.")


# -- the copies that speed up opening a large index -------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of 40 images with labels, which counts as large."""
    monkeypatch.setattr(column_reader, "_LARGE", 1)
    labels = [str(number % 3) for number in range(40)]
    np.savez(tmp_path / "features.npz", features=np.eye(40, dtype=np.float32), labels=np.array(labels))
    import_features(tmp_path / "features.npz", tmp_path / "index")
    assert ROWS.identity(tmp_path / "index")
    assert COLUMNS.identity(tmp_path / "index")
    return tmp_path / "index"


def answers(folder: Path) -> tuple[Facets, Facets, list[int]]:
    with closing(open_index(folder)) as index:
        hits = index.search(np.ones(40, dtype=np.float32), 60, filter=Filter(labels=("1", "new")))[0]
        return index.facets(), index.facets(Filter(labels=("1",))), [hit.id for hit in hits]


def test_a_large_index_opens_without_reading_its_rows(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = queries(monkeypatch, "rows_from", "filter_columns", "labelled_rows")
    opened = answers(kept)
    assert read == [(40,)]  # looks only for rows after the stored ones
    assert opened[2] == [*range(2, 41, 3)]
    ROWS.path(kept).unlink()
    COLUMNS.path(kept).unlink()
    assert answers(kept) == opened
    assert read[1:] == [(None,), (0, 40), (0, 40)]


def test_copies_are_stored_while_a_reader_reads_the_columns(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = column_reader.load

    def overtaken(*args: Any) -> Any:
        monkeypatch.undo()
        monkeypatch.setattr(column_reader, "_LARGE", 1)
        np.savez(kept / "more.npz", features=np.eye(40, dtype=np.float32), labels=np.array(["1"] * 40))
        import_features(kept / "more.npz", kept, ImportOptions(append=True))
        return load(*args)

    with closing(open_index(kept)) as index:
        monkeypatch.setattr(column_reader, "load", overtaken)
        assert index.count(Filter(labels=("1",))) == 13  # as of before the import
        assert index.count(Filter(labels=("1",))) == 53


def changed_since(folder: Path) -> None:
    with closing(IndexWriter.open(folder)) as writer, writer._committed():
        writer.catalog.set_labels(7, ("new",))
        writer.catalog.remove([2])
        writer.catalog.count_edit()


def cut_short(folder: Path) -> None:
    for kind in (ROWS, COLUMNS):
        kind.path(folder).write_bytes(kind.path(folder).read_bytes()[:-100])


def with_a_changed_byte(folder: Path) -> None:
    for kind in (ROWS, COLUMNS):
        data = bytearray(kind.path(folder).read_bytes())
        data[len(data) // 2] ^= 4
        kind.path(folder).write_bytes(data)


def of_fewer_rows(folder: Path) -> None:
    kinds: tuple[Derived[Any], ...] = (ROWS, COLUMNS)
    for kind in kinds:
        stored = kind.load(folder)
        assert stored is not None
        columns = {name: stored.arrays[name][:-1] for name in kind.columns}
        kind.save(folder, stored.sheet, {**stored.arrays, **columns})


def of_another_time_zone(folder: Path) -> None:
    stored = COLUMNS.load(folder)
    assert stored is not None
    days = {"day": stored.arrays["day"] + 1, "year": np.full(40, 1999, dtype=np.int32)}
    COLUMNS.save(folder, replace(stored.sheet, zone=1), {**stored.arrays, **days})


@pytest.mark.parametrize("spoil", [changed_since, cut_short, with_a_changed_byte, of_fewer_rows, of_another_time_zone])
def test_copies_that_do_not_match_are_ignored(kept: Path, spoil: Callable[[Path], None]) -> None:
    spoil(kept)
    opened = answers(kept)
    column_reader.keep(kept)
    assert answers(kept) == opened
    ROWS.path(kept).unlink()
    COLUMNS.path(kept).unlink()
    assert answers(kept) == opened
    assert (opened[2][:3] == [5, 7, 8]) == (spoil is changed_since)
