"""The map of the collection and its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flask import Blueprint, Response, render_template, request

from searchengine.errors import UnknownImageError
from searchengine.index.local import LocalIndex
from searchengine.settings import MAX_K, Settings
from searchengine.web.cards import Card, card_of
from searchengine.web.headers import ASK_AGAIN
from searchengine.web.incoming import RequestError, parse_id, parse_k
from searchengine.web.overview import Group, Overview, Overviews
from searchengine.web.seam import Engine

_PREVIEWED = 5  # pictures of a group that stand for it
_AT_ONCE = 60  # groups on the page of all groups


@dataclass(frozen=True, slots=True)
class Preview:
    """A group among others: a few of its pictures stand for it."""

    group: Group
    cards: tuple[Card, ...]


def blueprint(engine: Engine, settings: Settings) -> Blueprint:
    """``/map``, ``/map/points`` and ``/groups``."""
    maps = Blueprint("maps", __name__)
    overviews = Overviews(cast("LocalIndex | None", getattr(engine, "index", None)))

    @maps.get("/map")
    def map_() -> str:
        overview = overviews.now()
        return render_template("map.html", overview=overview, status=engine.status())

    @maps.get("/map/points")
    def points() -> Response:
        overview = overviews.now()
        if overview.points is None:
            raise UnknownImageError(
                "There is no map of this collection yet: make one with searchengine map --index-dir DIR."
            )
        response = Response(overview.points, mimetype="application/octet-stream")
        response.set_etag(overview.etag)
        response.headers["Cache-Control"] = ASK_AGAIN
        response.make_conditional(request)
        return response

    @maps.get("/groups")
    def groups() -> str:
        overview = overviews.now()
        for name, found in (("cluster", overview.clusters), ("duplicates", overview.duplicates)):
            if name in request.args:
                return _one(overview, name, found)
        shown = parse_k(request.args.get("n"), _AT_ONCE)
        return render_template(
            "groups.html",
            overview=overview,
            clusters=_previews(overview.clusters),
            duplicates=_previews(overview.duplicates[:shown]),
            more=min(shown * 2, MAX_K) if shown < min(len(overview.duplicates), MAX_K) else None,
            group=None,
        )

    def _one(overview: Overview, name: str, found: Sequence[Group]) -> str:
        number = parse_id(request.args[name])
        group = next((group for group in found if group.number == number), None)
        if group is None:
            raise RequestError("There is no such group. The groups may have been made anew: look at all of them.", 404)
        shown = parse_k(request.args.get("n"), settings.sample)
        cards = _cards(group.ids[:shown])
        more = min(shown * 2, MAX_K) if shown < min(group.size, MAX_K) else None
        return render_template("groups.html", overview=overview, group=group, kind=name, cards=cards, more=more)

    def _previews(found: Sequence[Group]) -> list[Preview]:
        known = {card.id: card for card in _cards([id_ for group in found for id_ in group.ids[:_PREVIEWED]])}
        return [Preview(group, tuple(known[id_] for id_ in group.ids[:_PREVIEWED] if id_ in known)) for group in found]

    def _cards(ids: Sequence[int]) -> list[Card]:
        cards = []
        for id_ in ids:
            try:
                cards.append(card_of(engine.record(id_)))
            except UnknownImageError:
                continue  # removed a moment ago
        return cards

    return maps
