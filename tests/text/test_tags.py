"""Tags as a filter, a facet, an export column and on the page, whether they are right or wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from searchengine import update_index
from searchengine.cli.main import main
from searchengine.engine import SearchEngine
from searchengine.index.columns import TAGS
from searchengine.index.filters import FacetValue, Filter
from searchengine.index.local import LocalIndex
from searchengine.query import Query
from searchengine.text.words import known_tags
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.fakes import FakeExtractor, write_pictures
from tests.text.conftest import IdealExtractor

SEEN = {"apple": "Granny Smith apple", "fish": "tench", "strawberry": "volcano"}


@pytest.fixture
def engine(folder: Path) -> Iterator[SearchEngine]:
    with closing(SearchEngine.open(folder)) as engine:
        yield engine


def stems(index: LocalIndex, *tags: str) -> set[str]:
    return {Path(record.path).stem for record in index.page(Filter(tags=tags))}


def test_a_run_keeps_the_tags_for_filters_and_facets(engine: SearchEngine) -> None:
    for stem, tag in SEEN.items():
        assert stem in stems(engine.index, tag)
    assert stems(engine.index, "tench", "volcano") == {"fish", "strawberry"}
    assert stems(engine.index, "flamingo") == set()
    facets = engine.index.facets(Filter(tags=("tench",)))
    assert FacetValue("volcano", 1) in facets.tag  # its own choice left out
    assert [(value.value, value.count) for value in facets.folder] == [("things", 1)]
    hits = engine.search(Query(text="laptop", filter=Filter(tags=("tench",))))
    assert [Path(hit.path).stem for hit in hits] == ["fish"]
    assert SEEN["apple"] in [tag.name for tag in engine.tags(1)]


def test_only_what_is_new_is_looked_at(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = LocalIndex.open(copy / "index")
    before = stems(index, "tench")
    rows = []
    whole = "searchengine.text.words.Words.recognised"
    from searchengine.text.words import Words

    seen = Words.recognised
    monkeypatch.setattr(whole, lambda self, features: rows.append(len(features)) or seen(self, features))
    write_pictures(copy / "images", new=0)
    update_index(copy / "images", copy / "index", extractor=IdealExtractor(), relocate=True)
    assert rows == [1]
    assert stems(index, "tench") == before | {"new"}
    update_index(copy / "images", copy / "index", extractor=IdealExtractor())
    assert rows == [1]
    (copy / "images" / "new.png").unlink()
    write_pictures(copy / "images", apple=0)
    update_index(copy / "images", copy / "index", extractor=IdealExtractor(), prune=True)
    assert stems(index, "tench") == before | {"apple"}
    assert stems(index, SEEN["apple"]) == set()
    index.close()


def test_damaged_tags_are_none_until_they_are_made_again(copy: Path) -> None:
    TAGS.path(copy / "index").write_bytes(b"nothing")
    with closing(LocalIndex.open(copy / "index")) as index:
        assert len(index.page(Filter())) == 4
        assert index.facets(Filter()).tag == ()
        assert stems(index, "tench") == set()
        TAGS.path(copy / "index").unlink()
        assert main(["words", "--index-dir", str(copy / "index")]) == 0
        assert "fish" in stems(index, "tench")


def test_tags_of_another_extractor_do_not_count(copy: Path) -> None:
    kept = TAGS.load(copy / "index")
    assert kept is not None
    write_pictures(copy / "others", a=1)
    update_index(copy / "others", copy / "other", extractor=FakeExtractor())
    TAGS.save(copy / "other", kept.sheet, kept.arrays)
    with closing(LocalIndex.open(copy / "other")) as index:
        assert index.facets(Filter()).tag == ()
        assert known_tags(index) == {}


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_exports_have_a_column_of_tags(folder: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / f"features{suffix}"
    assert main(["export", "--index-dir", str(folder), "--out", str(out)]) == 0
    if suffix == ".npz":
        with np.load(out) as arrays:
            tags = [json.loads(text) for text in arrays["tags"]]
    elif suffix == ".csv":
        csv.field_size_limit(10**7)
        with out.open(newline="") as rows:
            tags = [json.loads(row["tags"]) for row in csv.DictReader(rows)]
    else:
        tags = parquet.read_table(out)["tags"].to_pylist()
    with closing(LocalIndex.open(folder)) as index:
        assert dict(enumerate(tags, 1)) == {id_: known_tags(index).get(id_, []) for id_ in range(1, 5)}
    assert main(["import", str(out), "--index-dir", str(tmp_path / "again")]) == 0


def test_the_command_line_filters_by_tag(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--text", "laptop", "--tag", "tench", "--index-dir", str(folder), "--json"]) == 0
    assert [hit["path"] for hit in json.loads(capsys.readouterr().out)["hits"]] == ["things/fish.png"]


def test_the_page_says_that_the_network_may_be_wrong(folder: Path) -> None:
    with closing(ServedEngine(LocalIndex.open(folder))) as engine:
        client = create_app({"TESTING": True}, engine).test_client()
        page = client.get("/?tag=tench").text
        assert "fish.png" in page
        assert "apple.png" not in page
        assert "Seems to show" in page
        assert "It can be wrong." in page
        assert [tag["name"] for tag in client.get("/image/1/details").get_json()["tags"]][:1] == [SEEN["apple"]]


def test_an_index_without_words_has_no_field_for_them(tmp_path: Path, folder: Path) -> None:
    write_pictures(tmp_path / "images", a=1)
    update_index(tmp_path / "images", tmp_path / "index", extractor=FakeExtractor())
    for place, has_field in ((tmp_path / "index", False), (folder, True)):
        with closing(ServedEngine(LocalIndex.open(place))) as engine:
            page = create_app({"TESTING": True}, engine).test_client().get("/").text
            assert ('name="q"' in page) == has_field
