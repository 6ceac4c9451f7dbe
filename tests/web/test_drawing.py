"""Cards that are filled in from one of their shape are what the template would have drawn of each."""

from __future__ import annotations

import itertools
import re

import pytest
from flask import Flask, render_template_string
from markupsafe import Markup, escape

from searchengine.web.addresses import PictureAddresses
from searchengine.web.cards import Card
from searchengine.web.choices import Judging
from searchengine.web.drawing import Face, Shape, draw_cards
from searchengine.web.judging import Judged

AT = PictureAddresses(
    lambda endpoint, **values: f"/{endpoint}?" + "&".join(f"{k}={v}" for k, v in values.items()), "s", {}
)
HOSTILE = "<script>\"'&amp;{{ 7 * 7 }}\ue000\ue003%s"


def card(number: int, *, blank: bool, label: bool, ranked: bool, other: bool) -> Card:
    return Card(
        id=number,
        path=f"a/{HOSTILE}{number}.jpg",
        name=f"{HOSTILE}{number}.jpg",
        label=f"{HOSTILE}{number}" if label else None,
        width=10 + number,
        height=20 + number,
        ratio=1.5,
        colour="#123456",
        version=None if blank else f"{number:08x}",
        blank=blank,
        anchor=f"i{number}",
        rank=number if ranked else None,
        distance=number / 7 if ranked else None,
        score=-number / 9 if ranked else None,
        closeness=0.5 if ranked else None,
        other=number + 3 if other else None,
    )


@pytest.fixture
def cards() -> list[Card]:
    """Two of every kind."""
    kinds = itertools.product([False, True], repeat=4)
    return [
        card(number, blank=blank, label=label, ranked=ranked, other=other)
        for number, (blank, label, ranked, other) in enumerate([*kinds, *itertools.product([False, True], repeat=4)], 1)
    ]


@pytest.mark.parametrize("judged", [False, True])
def test_a_filled_in_card_is_the_one_that_the_template_draws(app: Flask, cards: list[Card], judged: bool) -> None:
    judging = Judging(Judged(), lambda other: (f"/search?{other.values}&like=0&dislike=0", "/again?like=0"))
    self_id = cards[5].id
    calls: list[int] = []

    def both(draw: object, *_: object) -> str:
        def counting(*given: object) -> str:
            calls.append(1)
            return draw(*given)  # type: ignore[operator, no-any-return]

        filled = draw_cards(counting, cards, AT, self_id, judging if judged else None)
        each = Markup("").join(
            draw(Face.of(one, AT), Shape(one.blank, place < 12, one.id == self_id), AT, judging if judged else None)  # type: ignore[operator]
            for place, one in enumerate(cards)
        )
        assert filled == each
        return filled

    with app.test_request_context():
        page = render_template_string(
            '{% import "parts.html" as parts with context %}{{ both(parts.card_item) }}', both=both
        )
    assert len(calls) < len(cards)  # the second of a kind was not drawn
    assert "<script>" not in page
    assert "{{ 7 * 7 }}" in page
    shown = re.findall(r'<p class="name" title="([^"]*)">', page)
    assert shown == [str(escape(one.path)) for one in cards]
