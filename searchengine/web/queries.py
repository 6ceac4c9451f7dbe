"""Requests as queries, and the error of one that cannot be answered."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.datastructures import MultiDict

from searchengine.errors import SearchEngineError
from searchengine.index.filters import FIELDS
from searchengine.query import EXEMPLAR_SVM, ROCCHIO, Query, Source
from searchengine.settings import MAX_K
from searchengine.spelling import parse_k, query_from_url
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
