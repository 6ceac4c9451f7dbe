"""The query bar at the top of every page: each part of the query, with the way to the query without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from flask import request, url_for
from werkzeug.exceptions import HTTPException

from searchengine.index.filters import FIELDS
from searchengine.index.types import ImageRecord
from searchengine.web.cards import card_of, thumbnail_url

# What an address says of a query, besides its words.
QUERY_FIELDS = ("upload", "id", "box", "like", "dislike", "rule", "metric", "k", "distinct", "copies", *FIELDS)

Sign = Literal["start", "like", "dislike"]


@dataclass(frozen=True, slots=True)
class Chip:
    """A picture of the query, and the address of the query without it.

    ``picture`` is the address of a small copy, empty where there is none; ``source`` that of the whole picture, which a
    part is cut from; ``key`` names an upload.
    """

    sign: Sign
    name: str
    remove: str
    id: int | None = None
    picture: str = ""
    source: str = ""
    box: str = ""
    key: str = ""

    @classmethod
    def of(cls, record: ImageRecord, remove: str, sign: Sign = "start", box: str = "") -> Chip:
        """The chip of an image of this index."""
        card = card_of(record)
        picture = "" if card.blank else thumbnail_url(card)
        source = "" if card.blank else url_for("images.original", image_id=card.id)
        return cls(sign, card.name, remove, card.id, picture, source, box)


@dataclass(frozen=True, slots=True)
class QueryBar:
    """What the bar holds: ``fields`` go with whatever words or picture are searched by next."""

    chips: Sequence[Chip] = ()
    text: str = ""
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)


def bar_of_request() -> QueryBar:
    """The bar of a page that is no search, or of an error: it keeps what the request says, right or wrong."""
    values = request.args.to_dict(flat=False)
    with suppress(HTTPException):  # a form that was too large is not read again
        values |= request.form.to_dict(flat=False)
    fields = {name: [text for text in values[name] if text] for name in QUERY_FIELDS if name in values}
    return QueryBar(text=values.get("q", [""])[0], fields=fields)
