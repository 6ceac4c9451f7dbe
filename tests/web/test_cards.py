"""The cards of a page, with names and labels that would reveal a missing escape."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine.index.types import ImageRecord
from searchengine.web.cards import card_of
from tests.web.fake import FakeEngine

HOSTILE = "<script>\"'&amp;{{ 7 * 7 }}\ue000%s"


def tiles(page: str) -> list[str]:
    return page.split('<ul class="grid"', 1)[1].split("</ul>")[0].split("<li ")[1:]


def test_names_and_labels_are_escaped_everywhere(client: FlaskClient, engine: FakeEngine) -> None:
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
        for tile in tiles(page):
            id_ = int(re.findall(r'data-id="(\d+)"', tile)[0])
            assert unescape(re.findall(r'aria-label="Find pictures like ([^"]*)"', tile)[0]) == f"{HOSTILE}{id_}.jpg"
            assert ('class="photo blank"' in tile) == (id_ % 5 == 0)
            assert ("/thumbnails/" in tile) == (id_ % 5 != 0)
            if id_ % 2 and (address.startswith("/?") or id_ % 5 == 0):
                assert f"{HOSTILE}{id_}" in unescape(tile)


def test_a_label_shared_by_all_is_not_shown(client: FlaskClient, engine: FakeEngine) -> None:
    assert '<span class="name" title="red/red 000.png">red</span>' in client.get("/?n=45").text
    for id_ in engine.index.images:
        engine.index.change(id_, labels=("images",))
    assert '<span class="name" title="red/red 000.png">red 000.png</span>' in client.get("/?n=45").text


def test_only_the_first_screen_is_loaded_at_once(client: FlaskClient) -> None:
    lazy = ['loading="lazy"' in tile for tile in tiles(client.get("/search?id=1&k=31").text)]
    assert lazy == [False] * 12 + [True] * 18


def test_each_card_has_links_to_search_and_judge(client: FlaskClient) -> None:
    for tile in tiles(client.get("/search?id=1&k=30&metric=cosine").text):
        id_ = int(re.findall(r'data-id="(\d+)"', tile)[0])
        assert id_ != 1  # it is in the bar
        links = [unescape(href) for href in re.findall(r'href="([^"#]*)"', tile)]
        similar = f"/search?id={id_}&metric=cosine"
        like, dislike = (f"/search?id=1&metric=cosine&{word}={id_}" for word in ("like", "dislike"))
        assert [link for link in links if link] == [similar, similar, dislike, like]


@pytest.mark.parametrize(
    ("width", "height", "ratio", "shown"),
    [(4000, 3000, 4 / 3, ""), (9000, 1000, 2.6, "whole"), (100, 2000, 0.6, "whole"), (16, 16, 1, "small")],
)
def test_panoramas_and_icons_are_shown_whole(width: int, height: int, ratio: float, shown: str) -> None:
    card = card_of(ImageRecord(1, "a.png", Path("a.png"), (), width, height, None, None, None, "ab" * 16))
    assert (card.ratio, card.whole, card.small) == (ratio, shown == "whole", shown == "small")
