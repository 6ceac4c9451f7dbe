"""Several indexes in one application: their addresses, links between them, and comparisons."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine.engine import SearchEngine
from searchengine.errors import IndexDamagedError
from searchengine.extractors import ExtractorSpec
from searchengine.index.types import ImageRecord
from searchengine.indexing import update_index
from searchengine.settings import load_settings
from searchengine.web import create_app
from searchengine.web.choices import metric_groups
from searchengine.web.compare import shared_ranks, why_alike
from searchengine.web.engines import names_of, open_engines
from tests.fakes import FakeExtractor, write_pictures
from tests.web.conftest import JSON, picture
from tests.web.fake import FakeEngine


@pytest.fixture
def two(collection: Path, tmp_path: Path) -> dict[str, FakeEngine]:
    """Two indexes of the same pictures; the second has raw features, and its ids are in reverse order."""
    unit, raw = FakeEngine(collection, name="unit"), FakeEngine(collection, name="raw", normalized=False)
    raw.index.count_backwards()
    return {"unit": unit, "raw": raw}


@pytest.fixture
def client(two: dict[str, FakeEngine], tmp_path: Path) -> FlaskClient:
    config = {"TESTING": True, "CACHE_DIR": tmp_path / "cache", "MAX_UPLOAD_MB": 1}
    return create_app(config, *two.values()).test_client()


def tabs(page: str) -> dict[str, str]:
    nav = re.search(r'<nav class="menu" id="indexes".*?</nav>', page, re.DOTALL)
    assert nav is not None
    return {name: html.unescape(href) for href, name in re.findall(r'href="([^"]+)"[^>]*>([^<]+)<', nav[0])}


def test_a_filter_is_kept_in_another_index_except_its_ids(client: FlaskClient) -> None:
    page = client.get("/search?id=3&label=red&label=a%26b&ids=3,4&distinct=1").text
    assert tabs(page)["raw"] == "/i/raw/search?id=43&label=red&label=a%26b&distinct=1"


def test_each_index_has_its_addresses(client: FlaskClient, two: dict[str, FakeEngine]) -> None:
    first, second = client.get("/").text, client.get("/i/raw/").text
    assert tabs(first) == tabs(second) == {"unit": "/", "raw": "/i/raw/"}
    assert 'aria-current="true"' in first
    for page, prefix in ((first, ""), (second, "/i/raw")):
        assert f'action="{prefix}/search"' in page
        assert re.findall(r'src="([^"]+)/thumbnails/', page) == ([] if not prefix else [prefix] * 45)
    hits = client.get("/i/raw/search?id=45", headers=JSON).get_json()["hits"]
    assert hits[0]["path"] == two["unit"].index.record(1).path
    # The first index also has addresses by name, so that links still work when the order changes.
    assert (
        client.get("/i/unit/search?id=1", headers=JSON).get_json()
        == client.get("/search?id=1", headers=JSON).get_json()
    )
    assert client.get("/i/none/").status_code == 404
    # Styles and scripts are the same for all.
    assert re.findall(r'"([^"]+)/static/', first + second) == []
    assert client.get("/i/raw/images/45", buffered=True).data == client.get("/images/1", buffered=True).data


def test_links_to_the_same_picture_in_another_index(client: FlaskClient, two: dict[str, FakeEngine]) -> None:
    assert tabs(client.get("/search?id=3&k=5").text) == {"unit": "/search?id=3&k=5", "raw": "/i/raw/search?id=43&k=5"}
    assert tabs(client.get("/i/raw/search?id=43").text) == {"unit": "/search?id=3", "raw": "/i/raw/search?id=43"}
    two["raw"].index.forget(43)
    page = client.get("/search?id=3").text
    assert tabs(page)["raw"] == "/i/raw/"
    assert "It cannot be searched with this picture" in page


def test_links_to_another_index_keep_the_upload(client: FlaskClient) -> None:
    page = client.post("/search", data={"image": picture(), "k": "4"}).text
    addresses = [html.unescape(address) for address in re.findall(r'href="([^"]+upload=[^"]+)"', page)]
    key = re.findall(r'data-key="(\w+)"', page)[0]
    assert f"/i/raw/search?upload={key}&k=4" in addresses
    assert f"/search?upload={key}&k=4&metric=manhattan" in addresses
    assert f"/compare?upload={key}&k=4&left=unit&right=raw" in addresses
    for address in addresses:
        path, _, query = address.partition("?")
        fields = dict(part.split("=") for part in query.split("&") if part)
        assert client.post(path, data={"image": picture(), **fields}).status_code == 200
        assert f'data-upload="{key}"' in client.get(address).text  # a script fills it by sending the file


def test_metrics(client: FlaskClient) -> None:
    body = client.get("/search?id=1&metric=manhattan&k=3", headers=JSON).get_json()
    assert body["metric"] == "manhattan"
    assert client.get("/search?id=1", headers=JSON).get_json()["metric"] == "euclidean"
    page = client.get("/search?id=1&metric=cosine&k=5").text
    assert "give the same order" in page
    assert "metric=cosine" in page.split('<ul class="grid" id="grid">')[1]  # and it is kept
    for address in ("/search?id=1&metric=hamming", "/compare?id=1&left_by=hamming"):
        answer = client.get(address)
        assert answer.status_code == 400
        assert "There is no metric" in answer.text
    assert client.get("/i/raw/search?id=1&metric=inner-product").status_code == 200


def test_side_by_side_marks_shared_pictures(client: FlaskClient, two: dict[str, FakeEngine]) -> None:
    body = client.get("/compare?id=3&k=10", headers=JSON).get_json()
    left, right = ({hit["path"] for hit in side["hits"]} for side in body["sides"])
    assert [side["index"] for side in body["sides"]] == ["unit", "raw"]
    assert body["shared"] == len(left & right) > 0
    assert not body["rank_alike"]
    page = client.get("/compare?id=3&k=10").text
    assert len(re.findall('class="tile[^"]* shared"', page)) == 2 * body["shared"]
    ids = re.findall(r'<li class="tile[^>]* id="(\w+)"', page)
    assert len(ids) == len(set(ids)) == 20
    assert 'src="/i/raw/thumbnails/' in page
    assert 'href="/i/raw/compare?' in page
    # Every rank shown is the rank on the other side.
    sides = [[hit["path"] for hit in side["hits"]] for side in body["sides"]]
    galleries = [part.split("</ul>")[0] for part in page.split('<ul class="grid"')[1:]]
    for gallery, other, mine in zip(galleries, reversed(sides), sides, strict=True):
        for card, path in zip(gallery.split("<li ")[1:], mine, strict=True):
            place = re.search(r"Number (\d+) on the other side", card)
            assert (int(place[1]) if place else None) == (other.index(path) + 1 if path in other else None)


def test_side_by_side_by_an_upload(client: FlaskClient) -> None:
    data = {"image": picture("blue"), "left": "raw", "left_by": "cosine", "right": "unit", "k": "45"}
    page = client.post("/compare", data=data).text
    assert "cosine distance ignores" in page
    assert "The same 45 pictures" in page
    assert "<option selected>raw</option>" in page
    body = client.post("/compare", data={**data, "image": picture("blue")}, headers=JSON).get_json()
    assert body["rank_alike"]
    assert body["query"]["upload"] == "blue.png"


def test_indexes_of_different_pictures_do_not_rank_alike(client: FlaskClient, two: dict[str, FakeEngine]) -> None:
    address = "/compare?id=3&k=1&right=raw&right_by=cosine"
    body = client.get(address, headers=JSON).get_json()
    assert body["rank_alike"]
    two["raw"].index.forget(body["sides"][1]["hits"][0]["id"])
    assert not client.get(address, headers=JSON).get_json()["rank_alike"]
    assert "ranks alike" not in client.get(address).text


def test_a_picture_in_one_index_only(client: FlaskClient, two: dict[str, FakeEngine]) -> None:
    two["raw"].index.forget(43)
    sides = client.get("/compare?id=3&k=5", headers=JSON).get_json()["sides"]
    assert sides[1]["error"] is None  # searched by its file
    assert len(two["raw"].queries) == 1
    two["unit"].index.change(3, file=Path("/nowhere/at/all.png"))
    sides = client.get("/compare?id=3&k=5", headers=JSON).get_json()["sides"]
    assert "it has no file to search with" in sides[1]["error"]
    page = client.get("/compare?id=3&k=5")
    assert page.status_code == 200
    assert "it has no file to search with" in page.text


def test_one_index_can_be_compared_by_two_metrics(collection: Path, tmp_path: Path) -> None:
    engine = FakeEngine(collection)
    client = create_app({"TESTING": True, "CACHE_DIR": tmp_path}, engine).test_client()
    page = client.get("/search?id=1").text
    assert "indexes" not in page
    assert "/compare?id=1&amp;left=index&amp;right=index&amp;right_by=manhattan" in page
    sides = client.get("/compare?id=1&k=5", headers=JSON).get_json()["sides"]
    assert [side["metric"] for side in sides] == ["euclidean", "manhattan"]
    assert "give the same order" in client.get("/compare?id=1&right=index&right_by=cosine").text


def test_healthz_covers_all(client: FlaskClient, two: dict[str, FakeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    body = client.get("/healthz").get_json()
    assert (body["status"], body["images"]) == ("ok", 45)
    assert [one["name"] for one in body["indexes"]] == ["unit", "raw"]
    assert "indexes" not in client.get("/i/raw/healthz").get_json()

    def fail() -> None:
        raise IndexDamagedError("A file of the index is damaged.")

    monkeypatch.setattr(two["raw"].index, "status", fail)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.get_json()["error"] == "raw: A file of the index is damaged."
    assert answer.get_json()["indexes"][0]["status"] == "ok"
    assert client.get("/i/unit/healthz").status_code == 200


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (IndexDamagedError("A file of the index is damaged."), "A file of the index is damaged."),
        (PermissionError(13, "Permission denied", "/a/features.npy"), "/a/features.npy cannot be used: Permission"),
        (OSError(5, "Input/output error"), "A file cannot be used: Input/output error. Check"),
    ],
)
def test_an_unreadable_index_does_not_affect_the_others(
    client: FlaskClient, two: dict[str, FakeEngine], error: Exception, sentence: str
) -> None:
    class Unreadable:
        def __getattr__(self, name: str) -> None:
            raise error

    two["raw"].index = Unreadable()  # type: ignore[assignment]
    for address in ("/", "/search?id=1", "/i/unit/"):
        page = client.get(address)
        assert page.status_code == 200, address
        assert "This index cannot be read at the moment" in page.text
    for address in ("/i/raw/", "/i/raw/search?id=1", "/i/raw/images/1", "/i/raw/map", "/i/raw/healthz"):
        page = client.get(address, headers={"Accept": "text/html"})
        assert page.status_code == 503, address
        assert sentence in page.text
        assert client.get(address, headers={"Accept": "application/json"}).get_json()["error"].startswith(sentence)
    assert client.get("/i/raw/nowhere").status_code == 404


def test_a_failing_error_page_still_shows_the_message(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchengine.web.error_pages.render_template", lambda *_, **__: 1 / 0)
    page = client.get("/search?id=<b>")
    assert page.status_code == 400
    assert "must be a whole number" in page.text


def test_behind_a_proxy_under_a_prefix(two: dict[str, FakeEngine], tmp_path: Path) -> None:
    client = create_app({"TESTING": True, "CACHE_DIR": tmp_path, "PROXIES": 1}, *two.values()).test_client()
    for address in ("/", "/i/raw/search?id=1", "/i/raw/compare?id=1"):
        page = client.get(address, headers={"X-Forwarded-Prefix": "/photos"}).text
        addresses = re.findall(r'\s(?:href|src|action|data-health)="([^"#][^"]*)"', page)
        assert len(addresses) > 20
        assert [found for found in addresses if not found.startswith("/photos/")] == []
        assert not any("/photos/i/raw/photos" in found or "/i/raw/i/" in found for found in addresses)
    # Without a trusted proxy, anybody can set the header.
    client = create_app({"TESTING": True, "CACHE_DIR": tmp_path}, *two.values()).test_client()
    assert "/evil" not in client.get("/", headers={"X-Forwarded-Prefix": "/evil"}).text


def test_names() -> None:
    assert names_of([Path("/a/coco"), Path("/b/holiday photos")]) == ["coco", "holiday-photos"]
    assert names_of([Path("/a/index"), Path("/b/index"), Path("/c/b/index")]) == ["a-index", "b-index", "b-index-2"]
    assert names_of([Path("/a/é ü")]) == ["index"]


def test_folders_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    folders = load_settings(environ={"SEARCHENGINE_INDEX_DIR": f"{a}:{b}:{a}"}).index_dir
    assert folders == (a, b)
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert load_settings(environ={"SEARCHENGINE_INDEX_DIR": str(odd)}).index_dir == (odd,)
    assert load_settings(environ={}).index_dir == (Path("index"),)


def test_equal_extractors_are_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []

    class Held:
        def __init__(self, engine: SearchEngine) -> None:
            self.spec = engine.spec

    def load(engine: SearchEngine) -> object:
        loaded.append(Held(engine))
        return loaded[-1]

    monkeypatch.setattr(SearchEngine, "_load", load)
    for name in ("a", "b"):
        write_pictures(tmp_path / "in", grey=100)
        update_index([tmp_path / "in"], tmp_path / name, extractor=FakeExtractor())
    settings = load_settings(environ={"SEARCHENGINE_INDEX_DIR": f"{tmp_path / 'a'}:{tmp_path / 'b'}"})
    one, other = open_engines(settings)
    assert loaded == []  # not before a search by a picture
    assert one.extractor() is other.extractor()
    assert one.extractor() is other.extractor()
    assert len(loaded) == 1
    one.close()
    other.close()


def record(id_: int, path: str, content_hash: str | None) -> ImageRecord:
    return ImageRecord(id_, path, None, (), None, None, None, None, None, content_hash)


def test_shared_ranks() -> None:
    left = [record(1, "a", "aa"), record(2, "b", "bb"), record(3, "c", None), record(4, "b2", "bb")]
    right = [record(9, "b2", "bb"), record(8, "x", "aa"), record(7, "c", "cc"), record(6, "a", "zz")]
    assert shared_ranks(left, right) == ([2, 1, 3, None], [2, 1, 3, None])
    assert shared_ranks(left, left) == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert shared_ranks([], []) == ([], [])


def test_why_alike() -> None:
    unit = ExtractorSpec("vgg16", "fc2", "none", "l2", "imagenet", (224, 224), full_decode=True)
    raw, other = replace(unit, normalize="none"), replace(unit, layer="fc1")
    assert why_alike((unit, "euclidean"), (unit, "cosine"))
    assert why_alike((unit, "euclidean"), (raw, "cosine"))
    assert why_alike((raw, "cosine"), (unit, "inner-product"))
    assert not why_alike((unit, "euclidean"), (raw, "euclidean"))
    assert not why_alike((unit, "manhattan"), (raw, "cosine"))
    assert not why_alike((raw, "euclidean"), (raw, "cosine"))
    assert not why_alike((unit, "cosine"), (other, "cosine"))
    assert metric_groups(normalized=True) == [["euclidean", "cosine", "inner-product"], ["manhattan"]]
    assert metric_groups(normalized=False) == [["euclidean"], ["cosine"], ["manhattan"], ["inner-product"]]
