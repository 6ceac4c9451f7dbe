"""Queries of browsers and programs: parts of a picture, paging, JSON, copies, predicted labels."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from tests.web.conftest import JSON, encoded, ids_on, make_app, next_page, picture
from tests.web.fake import COLOURS, FakeEngine, colour_classifier, draw_collection


def halves() -> bytes:
    """Return a picture that is red on the left and blue on the right."""
    image = Image.new("RGB", (200, 100), COLOURS["red"])
    image.paste(COLOURS["blue"], (100, 0, 200, 100))
    return encoded(image)


def posted(client: FlaskClient, **fields: str) -> Any:
    return client.post(
        "/search", data={"image": (io.BytesIO(halves()), "halves.png"), **fields}, headers=JSON
    ).get_json()


def test_search_by_a_part_of_an_upload(client: FlaskClient) -> None:
    for box, colour in (("0,0,.5,1", "red"), ("0.5,0.25,0.5,0.5", "blue")):
        answer = posted(client, box=box, k="3")
        assert [hit["label"] for hit in answer["hits"]] == [colour] * 3
        assert answer["query"]["box"] == [float(side) for side in box.split(",")]
    page = client.post("/search", data={"image": (io.BytesIO(halves()), "halves.png"), "box": "0,0,.5,1"}).text
    assert 'data-box="0.0,0.0,0.5,1.0"' in page
    assert "#part{--left:0.0;--top:0.0;--wide:0.5;--high:1.0}" in page  # the chip shows the part
    key = hashlib.sha256(halves()).hexdigest()[:16]
    assert f'href="/search?upload={key}&amp;box=0.0,0.0,0.5,1.0&amp;metric=manhattan"' in page
    # An upload replaces a picture of the index, so the box of that picture does not apply.
    assert "box" not in posted(client, id="3", box="0,0,.5,1")["query"]


def test_search_by_a_part_of_an_indexed_picture(tmp_path: Path) -> None:
    draw_collection(tmp_path / "in", 16)
    (tmp_path / "in" / "a.png").write_bytes(halves())
    engine = FakeEngine(tmp_path / "in")
    client = make_app(engine, tmp_path).test_client()
    (id_,) = (record.id for record in engine.index.sample(99) if record.path == "a.png")
    answer = client.get(f"/search?id={id_}&box=.5,0,.5,1&k=2", headers=JSON).get_json()
    assert [hit["label"] for hit in answer["hits"]] == ["blue", "blue"]
    page = client.get(f"/search?id={id_}&box=.5,0,.5,1").text
    assert 'data-box="0.5,0.0,0.5,1.0"' in page
    (tmp_path / "in" / "a.png").unlink()
    refusal = client.get(f"/search?id={id_}&box=.5,0,.5,1", headers=JSON)
    assert (refusal.status_code, "no longer there" in refusal.get_json()["error"]) == (404, True)
    assert client.get(f"/search?id={id_}").status_code == 200


@pytest.mark.parametrize("query", ["id=http://a.b/c.jpg", "id=1&cursor=x", "id=1&distinct=x", "box=0,0,1,1"])
def test_invalid_queries(client: FlaskClient, query: str) -> None:
    for headers in (JSON, {}):
        answer = client.get(f"/search?{query}", headers=headers)
        assert answer.status_code == 400
    answer = client.post(
        "/search", data={"image": "https://a.b/c.jpg"}, headers=JSON, content_type="multipart/form-data"
    )
    assert answer.status_code == 400
    assert "not fetched" in answer.get_json()["error"]


@pytest.mark.parametrize("rest", ["", "&metric=manhattan", "&like=3", "&label=red&label=blue", "&distinct=1"])
def test_paging_through_results_reaches_every_picture(client: FlaskClient, rest: str) -> None:
    whole = client.get(f"/search?id=5&k=45{rest}", headers=JSON).get_json()
    assert whole["cursor"] is None
    address = f"/search?id=5&k=7{rest}"
    shown, following = [], address
    while following:
        body = client.get(following, headers=JSON).get_json()
        shown += body["hits"]
        assert body["total"] == whole["total"]
        following = body["cursor"] and f"{address}&cursor={body['cursor']}"
    assert shown == whole["hits"]
    page, pages = client.get(address).text, []
    while True:
        pages += ids_on(page)
        following = next_page(page)
        if following is None:
            break
        page = client.get(following).text
        assert "Show the first" in page
    assert pages == [hit["id"] for hit in whole["hits"] if hit["id"] != 5]  # the query itself is in the bar


def test_paging_ends_although_a_liked_picture_is_removed(client: FlaskClient, engine: FakeEngine) -> None:
    address = "/search?id=5&like=9&like=13&k=20"
    body = client.get(address, headers=JSON).get_json()
    assert body["total"] > 20
    engine.index.forget(9)
    ranks = []
    while body["cursor"] and len(ranks) < 100:
        body = client.get(f"{address}&cursor={body['cursor']}", headers=JSON).get_json()
        ranks += [hit["rank"] for hit in body["hits"]]
    assert ranks == list(range(21, 21 + len(ranks)))


def test_the_page_after_the_last_result(client: FlaskClient) -> None:
    page = client.get("/search?id=5&cursor=99.0:1:45").text
    assert "Show the first" in page
    assert "You have seen them all" in page


def test_a_query_in_json_gives_the_results_of_its_address(client: FlaskClient) -> None:
    body = {"examples": [{"id": 5}, {"id": 9, "sign": 1}, {"id": 2, "sign": -1}], "k": 6, "rule": "rocchio"}
    answer = client.post("/search", json=body).get_json()
    assert answer == client.get("/search?id=5&like=9&dislike=2&k=6&rule=rocchio", headers=JSON).get_json()
    image = base64.b64encode(halves()).decode()
    answer = client.post("/search", json={"examples": [{"image": image, "box": [0.5, 0, 0.5, 1]}], "k": 2}).get_json()
    assert [hit["label"] for hit in answer["hits"]] == ["blue", "blue"]
    for wrong in ([], {"examples": [{"path": "/etc/passwd"}]}, {"examples": [{"image": "AAAA"}]}, {}):
        refusal = client.post("/search", json=wrong, headers=JSON)
        assert refusal.status_code in (400, 415), refusal.text
    assert client.post("/search", data="{", content_type="application/json", headers=JSON).status_code == 400


def test_one_file_stands_for_its_copies(tmp_path: Path) -> None:
    draw_collection(tmp_path / "in", 8)
    for number in range(4):
        (tmp_path / "in" / f"copy {number}.png").write_bytes(halves())
    client = make_app(FakeEngine(tmp_path / "in"), tmp_path).test_client()
    hits = client.get("/search?id=3&k=30", headers=JSON).get_json()["hits"]
    assert (hits[0]["id"], hits[0]["stands_for"], len(hits)) == (3, 4, 9)
    page = client.get("/search?id=3").text
    assert "There are 3 other copies of this picture" in page
    assert 'href="/search?id=3&amp;copies=1"' in page
    assert "\u00d7 4" in client.get("/search?id=1").text
    assert len(client.get("/search?id=3&copies=1", headers=JSON).get_json()["hits"]) == 12


def test_a_label_is_predicted_only_if_near_neighbours_agree(
    client: FlaskClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.classified_by = colour_classifier()

    def predicted(colour: str) -> Any:
        return client.post("/search", data={"image": picture(colour)}, headers=JSON).get_json()["predicted"]

    assert predicted("red")["labels"][0]["label"] == "red"
    assert "not_sure" not in predicted("red")
    # The classifier knows only red, green and blue; the neighbours of a yellow picture are yellow.
    unsure = predicted("yellow")
    assert unsure["labels"] == []
    assert unsure["not_sure"][1] == "yellow"
    page = client.post("/search", data={"image": picture("yellow")}).text
    assert re.search("looks like (red|green) or yellow", page)
    monkeypatch.setattr("searchengine.web.engines.Nearness.is_far", lambda *_: True)
    assert predicted("red")["labels"] == []
    assert predicted("red")["not_sure"][0] == "red"
