"""Search by words from the engine, the command line and the page. The picture called strawberry shows a volcano."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine import update_index
from searchengine.cli.main import main
from searchengine.engine import SearchEngine
from searchengine.errors import QueryError
from searchengine.extractors.source import Head
from searchengine.index.filters import Filter
from searchengine.index.local import LocalIndex
from searchengine.query import LIKED, START, Example, Query
from searchengine.text.words import HEAD, HeadSheet
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.fakes import FakeExtractor, write_pictures
from tests.text.conftest import LITE, IdealExtractor


@pytest.fixture
def engine(folder: Path) -> Iterator[SearchEngine]:
    with closing(SearchEngine.open(folder)) as engine:
        yield engine


def names(engine: SearchEngine, query: Query) -> list[str]:
    return [Path(hit.path).stem for hit in engine.search(query)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a green apple", "apple"),
        ("laptop", "computer"),
        ("tench", "fish"),
        ("a volcano", "strawberry"),
        ("erupting mountain", "strawberry"),
    ],
)
def test_what_a_text_means_comes_first(engine: SearchEngine, text: str, first: str) -> None:
    results = engine.search(Query(text=text))
    assert [hit.rank for hit in results] == [1, 2, 3, 4]
    assert Path(results[0].path).stem == first
    assert results.doubt is None
    assert (results.metric, results.ranked_by, results.total) == ("cosine", "the words", 4)


def test_images_with_that_name_come_first(engine: SearchEngine) -> None:
    results = engine.search(Query(text="Strawberry"))  # it shows a volcano
    assert Path(results[0].path).stem == "strawberry"
    assert results.doubt is None
    assert names(engine, Query(text="things"))[:2] in (["fish", "strawberry"], ["strawberry", "fish"])
    distances = [hit.distance for hit in results][1:]
    assert distances == sorted(distances)


@pytest.mark.parametrize("text", ["strawberry", "things", "laptop"])
@pytest.mark.parametrize("distinct", [False, True])
def test_pages_hold_each_image_once_in_the_order_of_all(engine: SearchEngine, text: str, distinct: bool) -> None:
    whole = names(engine, Query(text=text, distinct=distinct))
    pages, cursor = [], None
    while True:
        results = engine.search(Query(text=text, k=1, cursor=cursor, distinct=distinct))
        pages += [Path(hit.path).stem for hit in results]
        cursor = results.cursor
        if cursor is None:
            break
    assert pages == whole
    assert len(whole) == 4


def test_filters_apply(engine: SearchEngine) -> None:
    for text in ("laptop", "apple", "things"):
        assert set(names(engine, Query(text=text, filter=Filter(folders=("things",))))) == {"fish", "strawberry"}
    ids = tuple(hit.id for hit in engine.search(Query(text="laptop")))[:1]
    assert names(engine, Query(text="things", filter=Filter(ids=ids))) == ["computer"]


def test_words_and_pictures_both_count(engine: SearchEngine) -> None:
    fish = next(hit.id for hit in engine.search(Query(text="fish")))
    for sign in (START, LIKED):
        best = names(engine, Query((Example(fish, sign=sign),), text="a green apple"))[:2]
        assert "apple" in best
    assert engine.search(Query((Example(fish),), text="laptop")).ranked_by == "the words and Euclidean distance"


def test_a_subject_that_no_image_shows_is_reported(engine: SearchEngine) -> None:
    assert engine.search(Query(text="flamingo")).doubt == "No image seems to show “flamingo”. These come nearest."
    assert "knows nothing like" in str(engine.search(Query(text="quarterly tax report")).doubt)


def test_an_index_without_words_says_why(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", a=1)
    update_index(tmp_path / "images", tmp_path / "index", extractor=FakeExtractor())
    assert not (tmp_path / "index" / "words.npz").exists()
    with (
        closing(SearchEngine.open(tmp_path / "index")) as engine,
        pytest.raises(QueryError, match="no model 'fake'"),
    ):
        engine.search(Query(text="dog"))


def test_an_index_of_a_model_that_is_gone_keeps_its_words(head: Head, tmp_path: Path) -> None:
    extractor = IdealExtractor()
    extractor.spec = replace(LITE, model="gone")
    write_pictures(tmp_path / "images", apple=237, fish=0)
    update_index(tmp_path / "images", tmp_path / "index", extractor=extractor)
    sheet = HeadSheet(1, "2024-05-17T12:00:00", extractor.spec.fingerprint)
    HEAD.save(tmp_path / "index", sheet, {"weights": head.weights, "bias": head.bias})
    with closing(SearchEngine.open(tmp_path / "index")) as engine:
        assert engine.knows_words
        assert names(engine, Query(text="a tench")) == ["fish", "apple"]


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--text", "laptop", "--index-dir", str(folder), "-k", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["doubt"], answer["hits"][0]["path"]) == ("laptop", None, "computer.png")
    assert main(["search", "--text", "flamingo", "--index-dir", str(folder)]) == 0
    assert "No image seems to show “flamingo”" in capsys.readouterr().err
    liking = ["recommend", "--text", "laptop", "--like", "1", "--index-dir", str(folder), "--json"]
    assert main(liking) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["liked"]) == ("laptop", [1])
    assert main(["words", "--index-dir", str(folder)]) == 0
    assert "4 images can be searched" in capsys.readouterr().out


def test_tags_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tags", "--index-dir", str(folder), "--json"]) == 0
    seen = {row["path"]: row["tags"][0]["name"] for row in json.loads(capsys.readouterr().out)}
    assert seen["computer.png"] in ("laptop computer", "notebook computer")
    assert seen["things/strawberry.png"] == "volcano"
    assert main(["tags", "2", "--index-dir", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("2  computer.png  ")
    assert main(["tags", "99", "--index-dir", str(folder)]) == 1


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(folder: Path) -> Iterator[FlaskClient]:
    with closing(ServedEngine(LocalIndex.open(folder))) as engine:
        yield create_app({"TESTING": True}, engine).test_client()


def test_the_page(client: FlaskClient) -> None:
    assert 'name="q"' in client.get("/").text
    page = client.get("/search?q=laptop")
    assert page.status_code == 200
    assert 'value="laptop"' in page.text
    assert page.text.index("computer.png") < page.text.index("apple.png")
    assert "No image seems to show" in client.get("/search?q=flamingo").text
    more = client.get("/search?q=laptop&k=1")
    assert "q=laptop" in more.text
    judged = client.get("/search?q=laptop&like=1")
    assert "Ranked by your words and likes" in judged.text
    assert judged.status_code == 200
    assert "“laptop”" in judged.text
    hostile = client.get("/search", query_string={"q": "<script>alert(1)</script>"})
    assert "<script>alert" not in hostile.text


@pytest.mark.parametrize(
    ("words", "sentence"), [("x" * 600, "at most 500 characters"), ("%20", "There is nothing to search for")]
)
def test_refused_words_can_be_edited(client: FlaskClient, words: str, sentence: str) -> None:
    page = client.get(f"/search?q={words}")
    assert page.status_code == 400
    assert sentence in page.text
    assert 'name="q"' in page.text


def test_a_picture_and_words(client: FlaskClient) -> None:
    page = client.get("/search?id=1&q=laptop").text
    assert re.search("<title>Like .+ and “laptop”", page)
    assert "looks like yours." in page
    assert "Pictures with this name or label come first" not in page
    assert "Pictures with this name or label come first" in client.get("/search?q=laptop").text


def test_json(client: FlaskClient) -> None:
    answer = client.get("/search?q=laptop&k=2", headers={"Accept": "application/json"}).get_json()
    assert (answer["text"], answer["doubt"], answer["query"]) == ("laptop", None, None)
    assert next(hit["path"] for hit in answer["hits"]) == "computer.png"
    same = client.post("/search", json={"text": "laptop", "k": 2}).get_json()
    assert same["hits"] == answer["hits"]
