"""Filters on the pages, over an index of real files."""

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
from tests.web.conftest import JSON, ids_on, make_app, next_page
from tests.web.fake import FakeEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 8 pictures: 4 labelled cat, of which 2 are JPEGs, 3 labelled dog and 1 “a&b”."""
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


def chips(page: str) -> dict[str, str]:
    """Return the choices made, each with the address of the page without it."""
    part = re.search(r'<ul class="chips".*?</ul>', page, re.DOTALL)
    found = re.findall(r'<a class="chip" href="([^"]*)"[^>]*>([^<]*)<', part[0] if part else "")
    return {html.unescape(text): html.unescape(href) for href, text in found}


def form(page: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the action of the filter form, and the fields it would send now."""
    match = re.search(r'id="filters".*?<form action="([^"]*)"(.*?)</form>', page, re.DOTALL)
    assert match is not None
    fields = re.findall(r'<input type="(\w+)"[^>]*? name="(\w+)" value="([^"]*)"( checked)?', match[2])
    sent = [(name, html.unescape(text)) for kind, name, text, checked in fields if kind != "checkbox" or checked]
    return html.unescape(match[1]), [(name, text) for name, text in sent if text]


def options(page: str, name: str) -> list[str]:
    """Return the values of a facet with their counts."""
    found = re.findall(rf'name="{name}" value="([^"]*)".*?<span class="count">(\d+)</span>', page)
    return [f"{html.unescape(value)} {count}" for value, count in found]


def test_facets_choose_and_chips_remove(client: FlaskClient) -> None:
    page = client.get("/").text
    assert options(page, "label") == ["cat 4", "dog 3", "a&b 1"]
    assert not options(page, "folder")  # folders would only repeat the labels made from them
    page = client.get("/?folder=trips").text
    assert options(page, "folder") == ["trips 8", "trips/a&b 1", "trips/cat 4", "trips/dog 3"]
    page = client.get("/?label=cat").text
    assert options(page, "label") == ["cat 4", "dog 3", "a&b 1"]  # any other label may be added
    assert options(page, "format") == ["JPEG 2", "PNG 2"]
    page = client.get("/?label=cat&format=JPEG").text
    assert len(ids_on(page)) == 2
    assert chips(page) == {"cat": "/?format=JPEG", "JPEG": "/?label=cat"}
    assert form(page) == ("/", [("label", "cat"), ("format", "JPEG")])
    assert "Clear all" in page


def test_empty_fields_are_removed_from_the_address(client: FlaskClient) -> None:
    for address, clean in (
        ("/?label=cat&after=&min_width=", "/?label=cat"),
        ("/search?id=3&q=&image=&label=cat&before=", "/search?id=3&label=cat"),
        ("/search?q=&image=a.jpg&label=cat", "/?label=cat"),
        ("/search?q=&ids=", "/?ids="),
    ):
        answer = client.get(address)
        assert (answer.status_code, answer.location) == (302, clean)


@pytest.mark.parametrize("first", ["/?all=1", "/?folder=trips", "/?format=png&format=jpeg"])
def test_paging_through_the_collection_reaches_every_picture(client: FlaskClient, first: str) -> None:
    seen: list[int] = []
    address: str | None = first
    while address:
        page = client.get(address).text
        seen += ids_on(page)
        address = next_page(page)
    assert seen == list(range(1, 9))


def test_shuffled_pictures_link_to_all(client: FlaskClient) -> None:
    page = client.get("/").text
    assert len(ids_on(page)) == 3
    assert 'href="/?all=1"' in page


def test_the_page_after_the_last_picture(client: FlaskClient) -> None:
    page = client.get("/?cursor=999").text
    assert "No more pictures" in page
    assert "The index is empty" not in page


def test_values_that_no_picture_has(client: FlaskClient) -> None:
    page = html.unescape(client.get("/?label=unicorn&folder=nowhere&camera=Leica").text)
    assert ids_on(page) == []
    assert "No picture has the label “unicorn”. There are: cat, dog, a&b." in page
    assert "No picture has the folder “nowhere”. There are: trips, trips/cat, trips/dog, trips/a&b." in page
    assert "No picture has the camera “Leica”. None has one." in page
    assert "No picture matches this filter" in page


@pytest.mark.parametrize("wrong", ["after=yesterday", "min_width=0", "ids=x", "before=2024-13"])
def test_invalid_filters(client: FlaskClient, wrong: str) -> None:
    assert client.get(f"/?{wrong}").status_code == 400


def test_the_form_shows_the_filter(client: FlaskClient) -> None:
    page = client.get("/?label=a%26b&after=2020&min_width=2&label=%22%3E&max_height=900").text
    chosen = [("label", "a&b"), ("label", '">'), ("after", "2020-01-01"), ("min_width", "2"), ("max_height", "900")]
    assert sorted(form(page)[1]) == sorted(chosen)


def test_results_are_filtered_before_they_are_ranked(client: FlaskClient) -> None:
    page = client.get("/search?id=1&label=dog&format=PNG").text
    assert sorted(ids_on(page)) == [6, 7]
    assert "2 pictures" in page
    assert chips(page) == {"dog": "/search?id=1&format=PNG", "PNG": "/search?id=1&label=dog"}
    assert options(page, "label") == ["cat 2", "dog 2", "a&b 1"]
    assert sorted(ids_on(client.get("/search?id=1&label=cat&format=PNG").text)) == [2, 3]


def test_results_with_an_unknown_label(client: FlaskClient) -> None:
    answer = client.get("/search?id=1&label=unicorn", headers=JSON).get_json()
    assert (answer["hits"], answer["total"]) == ([], 0)
    assert answer["unknown"] == ["No picture has the label “unicorn”. There are: cat, dog, a&b."]
    page = html.unescape(client.get("/search?id=1&label=unicorn").text)
    assert answer["unknown"][0] in page
    assert "No picture matches this filter" in page


def test_every_form_keeps_the_whole_query(client: FlaskClient) -> None:
    parts = {"id": "1", "like": "2", "metric": "cosine", "label": "cat", "k": "3", "distinct": "1"}
    page = client.get("/search", query_string=parts).text
    address, fields = form(page)
    assert (address, dict(fields)) == ("/search", parts)
    bar = re.search(r'<form class="bar".*?</form>', page, re.DOTALL)
    assert bar is not None
    assert dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', bar[0])) == parts
    error = client.get("/search", query_string={**parts, "q": "a dog", "after": "someday"})
    assert error.status_code == 400
    asked = re.findall(r'<label>(\w+) <input [^>]*name="(\w+)" value="([^"]*)">', error.text)
    assert {name: text for _, name, text in asked} == {**parts, "q": "a dog", "after": "someday"}
    assert {label: name for label, name, _ in asked if label != name} == {"Text": "q"}
