"""The query of a request: how it is read, its error where it cannot be answered, and the bar that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from flask import request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException

from searchengine.errors import SearchEngineError
from searchengine.index.filters import FIELDS
from searchengine.index.types import ImageRecord
from searchengine.query import EXEMPLAR_SVM, ROCCHIO, Query, Source
from searchengine.settings import MAX_K
from searchengine.spelling import parse_k, query_from_url
from searchengine.web.cards import card_of, thumbnail_url
from searchengine.web.indexes import this_site

RULE_NOTES = {  # what each does, in a sentence
    ROCCHIO: "Rocchio's rule moves the query towards the mean of what is liked and away from that of what is disliked.",
    EXEMPLAR_SVM: "The exemplar SVM, a linear support vector machine, parts the query and what is liked from what is "
    "disliked and from pictures drawn at random.",
}


class RequestError(SearchEngineError):
    """A request that cannot be answered as it stands, with the HTTP status of the answer."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = int(status)


def wants_json() -> bool:
    """Whether the client prefers JSON to a page. A browser, and a client that takes anything, gets the page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


def asked(values: MultiDict[str, str], *, upload: Source | None = None) -> Query:
    """The query of an address or a form; QueryError, UnknownNameError."""
    fields = values.to_dict(flat=False)
    return query_from_url(fields, upload=upload, default_k=this_site().settings.default_k, max_k=MAX_K)


def without_empty_fields() -> dict[str, Any] | None:
    """The arguments of the address without what a form sends for fields that are not filled in; None without any.

    A file that was chosen, but not sent, leaves its name.
    """
    optional = {"q", "image", *FIELDS} - {"ids"}  # no ids: no image at all
    fields = request.args.to_dict(flat=False)
    filled = {name: [text for text in texts if text or name not in optional] for name, texts in fields.items()}
    filled.pop("image", None)
    filled = {name: texts for name, texts in filled.items() if texts}
    return None if filled == fields or wants_json() else filled


def how_many(name: str, default: int) -> int:
    """How many images an address asks for, 1..500; QueryError."""
    return parse_k(request.args.get(name), default, MAX_K)


# -- the bar: each part of the query, with the way to the query without it --------------------------------------------

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
