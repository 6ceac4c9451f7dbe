"""Likes, dislikes and predicted labels, without a browser."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from searchengine.errors import IndexDamagedError
from searchengine.query import DISLIKED, LIKED, Query
from tests.web.conftest import JSON, ids_on, picture
from tests.web.fake import FakeEngine, colour_classifier


def colours(client: FlaskClient, address: str) -> list[str]:
    return [hit["label"] for hit in client.get(address, headers=JSON).get_json()["hits"]]


def image(engine: FakeEngine, colour: str, at: int = 0) -> int:
    return [record.id for record in engine.index.sample(100) if record.label == colour][at]


def upload(**fields: Any) -> dict[str, Any]:
    return {"image": picture(), **fields}


def test_the_last_judgement_of_a_picture_counts() -> None:
    judged = Query().judging(3, LIKED).judging(4, DISLIKED).judging(4, LIKED)
    assert judged == Query.of(liked=[3, 4])
    assert judged.judging(3, DISLIKED) == Query.of(liked=[4], disliked=[3])
    assert judged.without(3).without(4) == judged.without_judgements() == Query()
    assert Query(rule="rocchio") == Query()
    assert judged.judging(9, DISLIKED).in_words() == "2 liked, 1 disliked"


def test_likes_change_the_ranking(client: FlaskClient, engine: FakeEngine) -> None:
    red, yellow, blue = (image(engine, colour) for colour in ("red", "yellow", "blue"))
    # Between red and yellow lies orange.
    assert set(colours(client, f"/search?id={red}&k=5")) == {"red"}
    assert set(colours(client, f"/search?id={red}&like={yellow}&k=5")) == {"orange"}
    body = client.get(f"/search?id={red}&like={yellow}&dislike={blue}&rule=rocchio&k=3", headers=JSON).get_json()
    assert body["query"]["id"] == red
    assert (body["liked"], body["disliked"], body["rule"]) == ([yellow], [blue], "rocchio")
    assert [hit["rank"] for hit in body["hits"]] == [1, 2, 3]
    # Judged pictures, and the query itself, are left out.
    everything = client.get(f"/search?id={red}&like={yellow}&dislike={blue}&k=100", headers=JSON).get_json()["hits"]
    assert {hit["id"] for hit in everything} == set(range(1, 46)) - {red, yellow, blue}
    # Likes alone are a search too.
    assert set(colours(client, f"/search?like={red}&like={yellow}&k=5")) == {"orange"}


def test_the_page_names_the_rule_and_can_undo_likes(client: FlaskClient, engine: FakeEngine) -> None:
    red, yellow, blue = (image(engine, colour) for colour in ("red", "yellow", "blue"))
    page = html.unescape(client.get(f"/search?id={red}&like={yellow}&dislike={blue}&metric=cosine").text)
    assert "Ranked by what you liked" in page
    assert 'class="bar"' in page
    assert 'class="score"' not in page  # such scores only give an order
    assert 'aria-current="page"' not in page  # it is not the collection
    assert "1 liked, 1 disliked" in page
    back = re.findall(r'href="([^"]*)"[^>]*? data-judge="(back|clear)"', page)
    kept = f"/search?id={red}&metric=cosine"
    assert back == [
        (f"{kept}&dislike={blue}", "back"),
        (f"{kept}&like={yellow}", "back"),
        (kept, "clear"),
    ]
    assert f'href="{kept}&like={yellow}&dislike={blue}&rule=rocchio"' in page
    assert "The exemplar SVM, a linear" in page
    page = html.unescape(client.get(f"/search?id={red}&like={yellow}&rule=rocchio").text)
    assert "Rocchio's rule moves the query" in page
    first = ids_on(page)[0]
    assert f'href="/search?id={red}&like={yellow}&like={first}&rule=rocchio"' in page
    assert f'href="/search?id={red}&like={yellow}&dislike={first}&rule=rocchio"' in page
    # The picture searched by cannot be judged.
    assert page.count('data-judge="like"') == page.count('data-judge="dislike"') == len(ids_on(page))
    assert client.get(f"/search?id={red}&k=5").text.count('data-judge="like"') == 4
    assert "2 liked" in client.get(f"/search?like={red}&like={yellow}").text
    # Pictures of the collection can be liked; dislikes alone rank nothing.
    assert re.findall('data-judge="(like|dislike)"', client.get("/").text) == ["like"] * 45
    page = html.unescape(client.get(f"/search?id={red}&dislike={blue}").text)
    assert 'href="/" aria-label="Remove the picture"' in page


def test_an_upload_with_likes(client: FlaskClient, engine: FakeEngine) -> None:
    yellow, red = image(engine, "yellow"), image(engine, "red")
    answer = client.post("/search", data=upload(like=str(yellow), k="5"), headers=JSON).get_json()
    assert {hit["label"] for hit in answer["hits"]} == {"orange"}
    assert answer["liked"] == [yellow]
    page = html.unescape(client.post("/search", data=upload(like=[str(yellow), str(red)])).text)
    assert "2 liked" in page
    key = re.findall(r'data-key="(\w{16})"', page)[0]
    assert f'href="/search?upload={key}&like={yellow}"' in page
    assert len(engine.queries) == 2  # each picture was embedded once


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/search?id=1&like=x", "named by its id"),
        (f"/search?id=1&like={2**63}", "named by its id"),
        ("/search?id=1&like=2&dislike=2", "Picture 2 is both liked and disliked"),
        ("/search?id=1&dislike=1", "cannot be disliked too"),
        ("/search?id=1&like=2&rule=best", "There is no rule “best”. There are: exemplar-svm, rocchio."),
        ("/search?dislike=2", "Like at least one image"),
        ("/search?like=4711", "at least one liked image"),
        ("/search?id=1&" + "&".join(f"like={n}" for n in range(2, 103)), "At most 100 pictures"),
        ("/search?id=&like=2", "must be a whole number"),
    ],
)
def test_invalid_likes(client: FlaskClient, address: str, sentence: str) -> None:
    answer = client.get(address, headers=JSON)
    assert answer.status_code == 400
    assert sentence in answer.get_json()["error"]
    assert client.get(address).status_code == 400


def test_likes_of_removed_pictures_are_ignored(client: FlaskClient, engine: FakeEngine) -> None:
    red, yellow = image(engine, "red"), image(engine, "yellow")
    answer = client.get(f"/search?id={red}&like={yellow}&like=4711&like={red}", headers=JSON).get_json()
    assert answer["liked"] == [yellow]
    assert set(colours(client, f"/search?id={red}&like=4711&k=5")) == {"red"}


def test_without_a_classifier_nothing_is_predicted(client: FlaskClient) -> None:
    assert "looks like" not in client.get("/search?id=1").text
    assert "predicted" not in client.get("/search?id=1", headers=JSON).get_json()


def test_the_predicted_label_has_its_probability(client: FlaskClient, engine: FakeEngine) -> None:
    engine.classified_by = colour_classifier()
    red = image(engine, "red")
    for answer in (
        client.get(f"/search?id={red}", headers=JSON),
        client.post("/search", data=upload(), headers=JSON),
    ):
        predicted = answer.get_json()["predicted"]
        assert predicted["labels"][0]["label"] == "red"
        assert predicted["labels"][0]["probability"] == pytest.approx(0.91, abs=0.01)  # e^3 / (e^3 + 2)
        assert sum(one["probability"] for one in predicted["labels"]) == pytest.approx(1)
        assert (predicted["accuracy"], predicted["stale"]) == (0.9, False)
    page = client.get(f"/search?id={red}").text
    assert "looks like <b>red</b> 91\u00a0%" in page
    assert "right for 90\u00a0% of the pictures" in page
    assert "have changed since" not in page
    # The label is shown for any ranking that starts from a picture.
    assert "looks like" in client.get(f"/search?id={red}&like=1").text
    assert "looks like" not in client.get("/search?like=1").text


def test_a_stale_or_damaged_classifier_is_reported(client: FlaskClient, engine: FakeEngine) -> None:
    engine.classified_by = colour_classifier(stale=True)
    assert "have changed since the classifier was trained" in client.get("/search?id=1").text
    assert client.get("/search?id=1", headers=JSON).get_json()["predicted"]["stale"] is True
    engine.classified_by = IndexDamagedError("The classifier in /home/me/index/classifier.json cannot be used.")
    answer = client.get("/search?id=1")
    assert answer.status_code == 200
    assert "searchengine classify --fit" in answer.text
    assert "/home/me" not in answer.text
    assert "error" in client.get("/search?id=1", headers=JSON).get_json()["predicted"]
