"""The map of the collection and its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Response, render_template, request

from searchengine.errors import UnknownImageError
from searchengine.settings import MAX_K
from searchengine.web.cards import Card, card_of
from searchengine.web.indexes import IndexBlueprint, this_index, this_site
from searchengine.web.overview import Group, Overview
from searchengine.web.queries import RequestError, parse_id, parse_k
from searchengine.web.security import ASK_AGAIN

_IMAGES_OF_A_GROUP = 5  # on the page of all groups
_GROUPS_AT_ONCE = 60

maps = IndexBlueprint("maps", __name__)


@dataclass(frozen=True, slots=True)
class Preview:
    """A group among others, with a few of its images."""

    group: Group
    cards: tuple[Card, ...]


@maps.get("/map")
def map_() -> str:
    """The page; a script draws the map from ``/map/points``."""
    engine = this_index().engine
    return render_template("map.html", overview=engine.overview(), status=engine.index.status())


@maps.get("/map/points")
def points() -> Response:
    """The map in numbers, see ``overview.pack``."""
    overview = this_index().engine.overview()
    if overview.points is None:
        raise UnknownImageError("There is no map of this collection yet. Make one: searchengine map --index-dir DIR")
    response = Response(overview.points, mimetype="application/octet-stream")
    response.set_etag(overview.etag, weak=True)  # the same for every compression
    response.headers["Cache-Control"] = ASK_AGAIN
    response.make_conditional(request)
    return response


@maps.get("/groups")
def groups() -> str:
    """All groups, or one of them."""
    overview = this_index().engine.overview()
    for kind, candidates in (("cluster", overview.clusters), ("duplicates", overview.duplicates)):
        if kind in request.args:
            return _group_page(overview, kind, candidates)
    shown = parse_k(request.args.get("n"), _GROUPS_AT_ONCE)
    return render_template(
        "groups.html",
        overview=overview,
        clusters=_previews(overview.clusters),
        duplicates=_previews(overview.duplicates[:shown]),
        more=_more(shown, len(overview.duplicates)),
        group=None,
    )


def _group_page(overview: Overview, kind: str, candidates: Sequence[Group]) -> str:
    number = parse_id(request.args[kind])
    group = next((group for group in candidates if group.number == number), None)
    if group is None:
        raise RequestError(
            "There is no such group. The groups may have been made again since: look at all of them.", 404
        )
    shown = parse_k(request.args.get("n"), this_site().settings.sample)
    cards = [card_of(record) for record in this_index().engine.index.known(group.ids[:shown])]
    return render_template(
        "groups.html", overview=overview, group=group, kind=kind, cards=cards, more=_more(shown, group.size)
    )


def _previews(groups: Sequence[Group]) -> list[Preview]:
    ids = {group: group.ids[:_IMAGES_OF_A_GROUP] for group in groups}
    known = this_index().engine.index.known([id_ for group in groups for id_ in ids[group]])
    records = {record.id: record for record in known}
    return [Preview(group, tuple(card_of(records[id_]) for id_ in ids[group] if id_ in records)) for group in groups]


def _more(shown: int, total: int) -> int | None:
    return min(shown * 2, MAX_K) if shown < min(total, MAX_K) else None
