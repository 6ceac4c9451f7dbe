"""The cards of a page: which values stand where, whatever a file or a label is called."""

from __future__ import annotations

import re
from html import unescape

from flask.testing import FlaskClient

from tests.web.fake import FakeEngine

HOSTILE = "<script>\"'&amp;{{ 7 * 7 }}\ue000%s"


def gallery(page: str) -> list[str]:
    return page.split('<ol class="gallery">')[1].split("</ol>")[0].split('<li class="card')[1:]


def test_names_and_labels_are_escaped_wherever_they_stand(client: FlaskClient, engine: FakeEngine) -> None:
    for id_, record in engine.index.images.items():
        engine.index.change(
            id_,
            path=f"a/{HOSTILE}{id_}.jpg",
            labels=(f"{HOSTILE}{id_}",) if id_ % 2 else (),
            file=None if id_ % 5 == 0 else record.file,
        )
    for address in ("/?n=45", "/search?id=1&k=45", "/search?id=1&like=2&k=45", "/compare?id=1&k=45"):
        page = client.get(address).text
        assert "<script>" not in page
        assert "{{ 7 * 7 }}" in page
        for card in gallery(page):
            id_ = int(re.findall(r'data-id="(\d+)"', card)[0])
            assert [unescape(path) for path in re.findall(r'class="name" title="([^"]*)"', card)] == [
                engine.index.record(id_).path
            ]
            assert [unescape(path) for path in re.findall(r'data-copy="([^"]*)"', card)] == [
                engine.index.record(id_).path
            ]
            assert ('class="picture blank"' in card) == (id_ % 5 == 0)
            assert ("Open original" in card) == (id_ % 5 != 0)
            if id_ % 2:
                assert f"{HOSTILE}{id_}" in unescape(card)


def test_only_what_fills_the_first_screen_is_loaded_at_once(client: FlaskClient) -> None:
    cards = gallery(client.get("/search?id=1&k=30").text)
    assert ['loading="lazy"' in card for card in cards] == [False] * 12 + [True] * 18


def test_each_card_can_be_judged_but_the_one_that_is_searched_by(client: FlaskClient) -> None:
    for card in gallery(client.get("/search?id=1&k=30&metric=cosine").text):
        id_ = int(re.findall(r'data-id="(\d+)"', card)[0])
        links = [unescape(href) for href in re.findall(r'data-judge="[^>]* href="([^"]*)"', card)]
        like, dislike = (f"/search?id=1&metric=cosine&{word}={id_}" for word in ("like", "dislike"))
        assert links == ([] if id_ == 1 else [like, dislike, dislike, like])
        assert ("this picture" in card) == (id_ == 1)
