"""The filter on the pages, over an index of real files."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine import open_index, update_index
from tests.fakes import FakeExtractor, picture
from tests.web.conftest import make_app
from tests.web.fake import FakeEngine
from tests.web.test_pages import JSON, ids_on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 pictures: 4 labelled cat, of which 2 are JPEGs; 3 labelled dog and 1 “a&b”."""
    folder = tmp_path_factory.mktemp("filtering")
    for number, (label, kind) in enumerate(
        [("cat", "PNG"), ("cat", "PNG"), ("cat", "JPEG"), ("cat", "JPEG"), ("dog", "PNG"), ("dog", "PNG"),
         ("dog", "JPEG"), ("a&b", "PNG")]
    ):  # fmt: skip
        file = folder / "photos" / "trips" / label / f"{number}.{kind.lower()}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture((30 * number, 90, 10), kind=kind))
    update_index(folder / "photos", folder / "index", extractor=FakeExtractor())
    return folder


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[FlaskClient]:
    engine = FakeEngine(tmp_path)
    with closing(open_index(folder / "index")) as index:
        engine.index = index  # type: ignore[assignment]
        yield make_app(engine, tmp_path, SAMPLE=3).test_client()


def links(page: str, name: str) -> dict[str, str]:
    """The links of a list: text -> address."""
    part = re.search(rf'aria-label="{name}">(.*?)</(?:ul|nav)>', page, re.DOTALL)
    found = re.findall(r'<a href="([^"]*)"[^>]*>(.*?)</a>', part[1] if part else "", re.DOTALL)
    return {
        " ".join(re.sub("<span aria-hidden.*|<[^>]*>", "", text).split()): html.unescape(href) for href, text in found
    }


def test_facets_choose_and_chips_remove(client: FlaskClient) -> None:
    page = client.get("/").text
    assert list(links(page, "label")) == ["cat 4", "dog 3", "a&amp;b 1"]
    page = client.get(links(page, "label")["a&amp;b 1"]).text
    assert len(ids_on(page)) == 1
    page = client.get(links(client.get("/").text, "label")["cat 4"]).text
    assert list(links(page, "label")) == ["cat 4", "dog 3", "a&amp;b 1"]  # any other may be added
    assert list(links(page, "format")) == ["JPEG 2", "PNG 2"]
    page = client.get(links(page, "format")["JPEG 2"]).text
    assert len(ids_on(page)) == 2
    assert list(links(page, "Chosen")) == ["label cat", "format JPEG"]
    page = client.get(links(page, "Chosen")["label cat"]).text
    assert len(ids_on(page)) == 3
    assert list(links(page, "Chosen")) == ["format JPEG"]
    assert client.get(links(page, "format")["JPEG 3"]).text.count('class="chips"') == 0


@pytest.mark.parametrize("first", ["/?all=1", "/?folder=trips", "/?format=png&format=jpeg"])
def test_the_first_page_goes_on_to_the_last_picture(client: FlaskClient, first: str) -> None:
    seen: list[int] = []
    address: str | None = first
    while address:
        page = client.get(address).text
        seen += ids_on(page)
        more = re.search(r'<p class="more"><a class="button" href="([^"]+)"', page)
        address = html.unescape(more[1]) if more else None
    assert seen == list(range(1, 9))


def test_a_sample_leads_to_all(client: FlaskClient) -> None:
    page = client.get("/").text
    assert len(ids_on(page)) == 3
    assert 'href="/?all=1"' in page


def test_what_follows_the_last_of_all(client: FlaskClient) -> None:
    page = client.get("/?cursor=999").text
    assert "No more pictures" in page
    assert "The index is empty" not in page


def test_what_no_picture_has(client: FlaskClient) -> None:
    page = html.unescape(client.get("/?label=unicorn&folder=nowhere&camera=Leica").text)
    assert ids_on(page) == []
    assert "No picture has the label “unicorn”. There are: cat, dog, a&b." in page
    assert "No picture has the folder “nowhere”. There are: trips, trips/cat, trips/dog, trips/a&b." in page
    assert "No picture has the camera “Leica”. None has one." in page
    assert "No picture passes this filter" in page


@pytest.mark.parametrize("wrong", ["after=yesterday", "min_width=0", "ids=x", "before=2024-13"])
def test_what_is_no_filter(client: FlaskClient, wrong: str) -> None:
    assert client.get(f"/?{wrong}").status_code == 400


def test_the_form_says_what_is_chosen(client: FlaskClient) -> None:
    page = client.get("/?label=a%26b&after=2020&min_width=2&label=%22%3E").text
    for part in (
        '<input type="hidden" name="label" value="a&amp;b">',
        '<input type="hidden" name="label" value="&#34;&gt;">',
        'name="after" value="2020-01-01"',
        'name="min_width" value="2"',
    ):
        assert part in page


def test_results_are_filtered_before_they_are_ranked(client: FlaskClient) -> None:
    page = client.get("/search?id=1&label=dog&format=PNG").text
    assert sorted(ids_on(page)) == [6, 7]
    assert "2 of 2" in page
    assert list(links(page, "Chosen")) == ["label dog", "format PNG"]
    page = client.get(links(page, "Chosen")["label dog"]).text
    assert len(ids_on(page)) == 5
    assert list(links(page, "label")) == ["cat 2", "dog 2", "a&amp;b 1"]
    assert sorted(ids_on(client.get(links(page, "label")["cat 2"]).text)) == [2, 3]


@pytest.mark.parametrize("query", ["id=4", "id=4&label=cat&label=dog", "id=4&copies=1&metric=cosine", "id=4&label=cat"])
def test_results_go_on_to_the_last_picture(client: FlaskClient, query: str) -> None:
    whole = client.get(f"/search?{query}&k=100", headers=JSON).get_json()
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        answer = client.get(f"/search?{query}&k=2&cursor={cursor}", headers=JSON).get_json()
        seen += [hit["id"] for hit in answer["hits"]]
        cursor = answer["cursor"]
    assert seen == [hit["id"] for hit in whole["hits"]]
    assert len(seen) == whole["total"]


def test_results_without_a_label_that_exists(client: FlaskClient) -> None:
    answer = client.get("/search?id=1&label=unicorn", headers=JSON).get_json()
    assert (answer["hits"], answer["total"]) == ([], 0)
    assert answer["unknown"] == ["No picture has the label “unicorn”. There are: cat, dog, a&b."]
    page = html.unescape(client.get("/search?id=1&label=unicorn").text)
    assert answer["unknown"][0] in page
    assert "No picture passes this filter" in page


def test_the_form_of_results_keeps_the_query(client: FlaskClient) -> None:
    page = client.get("/search?id=1&metric=cosine&label=cat&k=3").text
    form = re.search(r'<form class="fields" action="/search".*?</form>', page, re.DOTALL)
    assert form is not None
    fields = re.findall(r'name="(\w+)" value="([^"]*)"', form[0])
    assert {("id", "1"), ("metric", "cosine"), ("label", "cat"), ("k", "3")} <= set(fields)
