"""What a request asks for: one of the server's indexes, and a query.

The first index has the plain addresses (``/``, ``/search``). Every index, including the first, also has its pages below
``/i/NAME``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, abort, current_app, g, request, url_for
from werkzeug.datastructures import MultiDict

from searchengine.errors import SearchEngineError
from searchengine.index.filters import FIELDS
from searchengine.query import Query, Source
from searchengine.settings import Settings
from searchengine.spelling import parse_k, query_from_url
from searchengine.web.engines import ServedEngine

_EXTENSION = "searchengine"

# -- the index --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """The indexes of one server, in the order in which they were configured."""

    engines: tuple[ServedEngine, ...]
    settings: Settings

    @property
    def first(self) -> ServedEngine:
        """The index with the plain addresses."""
        return self.engines[0]

    def get(self, name: str | None) -> ServedEngine | None:
        """Return the index with this name, or None."""
        return next((engine for engine in self.engines if engine.name == name), None)

    def after(self, engine: ServedEngine) -> tuple[ServedEngine, ...]:
        """Return the other indexes in order, starting after ``engine`` and wrapping around."""
        position = self.engines.index(engine)
        return self.engines[position + 1 :] + self.engines[:position]


class IndexBlueprint(Blueprint):
    """Views of an index. Each rule is registered twice: plain for the first index, and below ``/i/NAME`` for all."""

    def add_url_rule(self, rule: str, *args: Any, **options: Any) -> None:
        """Register a rule; takes the arguments of ``Flask.add_url_rule``."""
        super().add_url_rule(rule, *args, **options)
        super().add_url_rule(f"/i/<index>{rule}", *args, **options)


def serve_site(app: Flask, site: Site) -> None:
    """Give the views of ``app`` access to the indexes, and keep ``url_for`` within the index of the request."""
    app.extensions[_EXTENSION] = site

    @app.url_value_preprocessor
    def choose_index(endpoint: str | None, values: dict[str, Any] | None) -> None:
        # An unknown address has no values, but its error page still belongs to an index.
        name = _name_in(request.path) if values is None else values.pop("index", None)
        engine = site.get(name)
        g.engine, g.named = engine or site.first, engine is not None
        if endpoint is not None and name is not None and engine is None:
            abort(404)

    @app.url_defaults
    def stay_in_index(endpoint: str, values: dict[str, Any]) -> None:
        values.setdefault("index", g.engine.name if g.named else None)


def site_of(app: Flask) -> Site:
    """Return the indexes that ``app`` serves."""
    site: Site = app.extensions[_EXTENSION]
    return site


def this_site() -> Site:
    """Return the indexes of the application that handles the current request."""
    return site_of(current_app)


def this_engine() -> ServedEngine:
    """Return the search engine of the index that the current request is about."""
    engine: ServedEngine = g.engine
    return engine


def addressed_by_name() -> bool:
    """Return whether the current request names its index, as ``/i/NAME/`` does."""
    return bool(g.named)


def url_in(engine: ServedEngine | None, endpoint: str, **values: Any) -> str:
    """Return ``url_for`` in another index; None stands for the index of this request."""
    if engine is None or engine is this_engine():
        return url_for(endpoint, **values)
    return url_for(endpoint, index=None if engine is this_site().first else engine.name, **values)


def _name_in(path: str) -> str | None:
    match = re.match("/i/([^/]+)", path)
    return match[1] if match else None


# -- the query --------------------------------------------------------------------------------------------------------


class RequestError(SearchEngineError):
    """A request that cannot be answered, with the HTTP status of the response."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = int(status)


def wants_json() -> bool:
    """Return whether the client prefers JSON. Browsers, and clients that accept anything, get the page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


def parse_query(values: MultiDict[str, str], *, upload: Source | None = None) -> Query:
    """Parse the query of an address or a form; raise QueryError or UnknownNameError if it is invalid."""
    fields = values.to_dict(flat=False)
    return query_from_url(fields, upload=upload, default_k=this_site().settings.default_k)


def parse_count(name: str, default: int) -> int:
    """Parse a number of images, 1 to 500, from the address; raise QueryError if it is invalid."""
    return parse_k(request.args.get(name), default)


def without_empty_fields() -> dict[str, Any] | None:
    """Return the arguments of the address without the fields that a form left empty; None if there are none.

    The name of a chosen file that was not sent counts as an empty field.
    """
    optional = {"q", "image", *FIELDS} - {"ids"}  # an empty "ids" is meant: no image at all
    fields = request.args.to_dict(flat=False)
    filled = {name: [text for text in texts if text or name not in optional] for name, texts in fields.items()}
    filled.pop("image", None)
    filled = {name: texts for name, texts in filled.items() if texts}
    return None if filled == fields or wants_json() else filled
