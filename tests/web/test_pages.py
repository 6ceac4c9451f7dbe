"""Pages and JSON, without a browser."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import ArrayLike
from PIL import Image

from searchengine.index.types import Hit, RunProgress
from tests.web.conftest import JSON, encoded, ids_on, make_app, next_page, picture
from tests.web.fake import COLOURS, FakeEngine, FakeIndex, draw


def test_first_page_shows_the_collection(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "45 pictures" in page
    assert len(ids_on(page)) == 45
    assert 'type="file" name="image"' in page


def test_paging_through_the_first_page(engine: FakeEngine, tmp_path: Path) -> None:
    client = make_app(engine, tmp_path, SAMPLE=20).test_client()
    page = client.get("/").text
    assert len(ids_on(page)) == 20
    more = next_page(page)
    assert more is not None
    following = client.get(more).text
    assert len({*ids_on(page), *ids_on(following)}) == 40
    assert 'class="more"' not in client.get("/?n=60").text


def test_first_page_during_a_run(engine: FakeEngine, client: FlaskClient) -> None:
    engine.index.run = RunProgress(4000, 20000, active=True)
    assert "4 000 of 20 000 so far" in client.get("/").text
    engine.index.run = RunProgress(4000, 20000, active=False)
    assert "indexing stopped at 4 000 of 20 000" in client.get("/").text


def test_an_empty_index_says_what_to_do(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    client = make_app(engine, tmp_path / "app").test_client()
    assert "No pictures yet" in client.get("/").text
    assert "searchengine index" in client.get("/").text
    engine.index.run = RunProgress(3, 100, active=True)
    assert "on their way" in client.get("/").text
    answer = client.post("/search", data={"image": picture()})
    assert answer.status_code == 200
    assert "nothing to find" in answer.text


def test_search_by_id_ranks_as_worked_out_by_hand(client: FlaskClient, engine: FakeEngine) -> None:
    red = next(record.id for record in engine.index.sample(45) if record.label == "red")
    answer = client.get(f"/search?id={red}&k=45", headers=JSON)
    assert answer.mimetype == "application/json"
    body = answer.get_json()
    assert body["query"] == {"id": red, "path": engine.index.record(red).path}
    hits = body["hits"]
    assert [hit["rank"] for hit in hits] == list(range(1, 46))
    assert set(hits[0]) == {"rank", "id", "path", "distance", "score", "label", "stands_for"}
    assert hits[0]["id"] == red
    labels = list(dict.fromkeys(hit["label"] for hit in hits))
    assert labels[:3] == ["red", "orange", "yellow"]
    orange = next(hit for hit in hits if hit["label"] == "orange")
    # The cosine of (1, 0, 0) and (255, 128, 0) / |...|, apart from the number drawn in a corner.
    assert orange["score"] == pytest.approx(255 / (255**2 + 128**2) ** 0.5, abs=0.02)


def test_search_by_id_is_a_page_that_can_be_shared(client: FlaskClient) -> None:
    page = client.get("/search?id=3&k=5").text
    assert len(ids_on(page)) == 4
    assert "Show more" in page
    assert 'href="/search?id=3&amp;k=5&amp;cursor=' in page
    assert "45 pictures" in page


def test_a_page_says_that_the_search_was_approximate(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    remark = "Quick search: it finds 99.4 % of what a comparison with every picture would find."
    assert "Quick search" not in client.get("/search?id=3").text
    monkeypatch.setattr(FakeIndex, "search_remark", lambda *_: remark)
    assert remark in client.get("/search?id=3").text
    assert client.get("/search?id=3", headers=JSON).get_json()["remark"] == remark


def test_default_k_is_30_and_k_beyond_the_collection_gives_all(client: FlaskClient) -> None:
    assert len(client.get("/search?id=1", headers=JSON).get_json()["hits"]) == 30
    page = client.get("/search?id=1&k=500").text
    assert len(ids_on(page)) == 44
    assert 'class="more"' not in page


def test_search_by_upload(client: FlaskClient, engine: FakeEngine) -> None:
    answer = client.post(
        "/search", data={"image": (picture("blue", (200, 100))[0], "C:\\photos\\<b>sea.png"), "k": "4"}
    )
    assert answer.status_code == 200
    assert len(ids_on(answer.text)) == 4
    assert "&lt;b&gt;sea.png" in answer.text
    assert "data:image/jpeg;base64," in answer.text
    assert len(engine.queries) == 1

    answer = client.post("/search", data={"image": picture("blue", (64, 48)), "k": "2"}, headers=JSON)
    body = answer.get_json()
    assert body["query"] == {"upload": "blue.png", "width": 64, "height": 48}
    assert [hit["label"] for hit in body["hits"]] == ["blue", "blue"]


BAD_IDS = ["-1", "x", "1.5", "", "+1", " 1", "01", "1e3", "0x1", "1;2", "1\0", "٣", str(2**63), "9" * 400]


@pytest.mark.parametrize("image_id", BAD_IDS)
def test_bad_ids(client: FlaskClient, image_id: str) -> None:
    answer = client.get("/search", query_string={"id": image_id})
    assert answer.status_code == 400
    assert "whole number" in answer.text
    answer = client.get("/search", query_string={"id": image_id}, headers=JSON)
    assert answer.status_code == 400
    assert "whole number" in answer.get_json()["error"]
    assert client.get("/search?id=4711", headers=JSON).get_json() == {"error": "The index holds no image 4711."}


@pytest.mark.parametrize("k", ["x", "0", "-1", "501", "1000000000", "1.5", "1e9", "1\0", "🐱", "9" * 300])
def test_bad_ks(client: FlaskClient, k: str) -> None:
    answer = client.get("/search", query_string={"id": 1, "k": k})
    assert answer.status_code == 400
    assert "whole number from 1 to 500" in answer.text
    assert client.post("/search", data={"image": picture(), "k": k}).status_code == 400
    assert client.get("/", query_string={"k": k}).status_code == 400
    assert len(client.get("/search?id=1&k=5&k=x", headers=JSON).get_json()["hits"]) == 5  # the first value counts


def test_an_image_removed_after_the_search(
    client: FlaskClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = engine.index.search
    (hits,) = search(engine.index.feature(1), 5)

    def search_before(queries: ArrayLike, k: int, metric: str | None = None, **rest: Any) -> list[list[Hit]]:
        return [hits] if np.ndim(queries) == 1 or len(queries) == 1 else search(queries, k, metric, **rest)

    monkeypatch.setattr(engine.index, "search", search_before)
    engine.index.forget(hits[2].id)
    assert ids_on(client.get("/search?id=1&k=5").text) == [hit.id for hit in hits if hit.id != 1]


def test_results_that_are_all_far_are_reported(client: FlaskClient, engine: FakeEngine) -> None:
    sentence = "Nothing here looks much like it"
    black = io.BytesIO(encoded(Image.new("RGB", (320, 240))))  # grey, so equally far from all colours
    assert sentence in client.post("/search", data={"image": (black, "black.png")}).text
    file = engine.index.record(9).file
    assert file is not None
    assert sentence not in client.post("/search", data={"image": (io.BytesIO(file.read_bytes()), "known.png")}).text
    assert "Nothing else here" not in client.get("/search?id=9").text


def test_scores_that_only_give_an_order_are_shown_as_ranks(collection: Path, tmp_path: Path) -> None:
    client = make_app(FakeEngine(collection, normalized=False), tmp_path).test_client()
    page = client.get("/search?id=1").text
    assert 'class="score"' not in page  # a percentage would mean something different in every search
    assert re.findall(r'class="rank">(\d+)<', page)[:2] == ["2", "3"]  # the query, which ranks first, is not repeated
    assert "The number on a picture is its rank" in page


def test_healthz(client: FlaskClient, engine: FakeEngine) -> None:
    body = client.get("/healthz").get_json()
    assert (body["status"], body["images"], body["run"]) == ("ok", 45, None)
    engine.index.run = RunProgress(1, 2, active=True)
    assert client.get("/healthz").get_json()["run"] == {"done": 1, "total": 2, "active": True}


def test_internal_errors_get_a_page(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(n: int) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(engine.index, "sample", fail)
    client = make_app(engine, tmp_path, TESTING=False).test_client()
    answer = client.get("/")
    assert answer.status_code == 500
    assert "The server made an error" in answer.text
    assert "secret" not in answer.text
    assert client.get("/", headers=JSON).get_json()["error"].startswith("The server made an error")


def test_names_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    draw(COLOURS["red"]).save(tmp_path / "in" / '"><script>alert(1)<script>.png')
    client = make_app(FakeEngine(tmp_path / "in"), tmp_path).test_client()
    for address in ("/", "/search?id=1"):
        assert "<script>alert" not in client.get(address).text
