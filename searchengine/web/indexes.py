"""The indexes that a server shows: their addresses, the one that a request is about, and their health.

The first index has the plain addresses (``/``, ``/search``). Each one, the first too, is also found below ``/i/NAME``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, g, jsonify, request, url_for

from searchengine.errors import SearchEngineError, file_error
from searchengine.settings import Settings
from searchengine.web.engines import ServedEngine

_EXTENSION = "searchengine"


@dataclass(frozen=True, slots=True)
class Site:
    """What one server shows: its indexes, in the order in which they were named."""

    engines: tuple[ServedEngine, ...]
    settings: Settings

    @property
    def first(self) -> ServedEngine:
        """The index with the plain addresses."""
        return self.engines[0]

    def get(self, name: str | None) -> ServedEngine | None:
        """The index of that name."""
        return next((engine for engine in self.engines if engine.name == name), None)

    def after(self, engine: ServedEngine) -> tuple[ServedEngine, ...]:
        """The other indexes, beginning with the next one; after the last comes the first."""
        position = self.engines.index(engine)
        return self.engines[position + 1 :] + self.engines[:position]


class IndexBlueprint(Blueprint):
    """Views of an index: each rule stands twice, plain for the first index and below ``/i/NAME`` for every one."""

    def add_url_rule(self, rule: str, *args: Any, **options: Any) -> None:
        """See ``Flask.add_url_rule``."""
        super().add_url_rule(rule, *args, **options)
        super().add_url_rule(f"/i/<index>{rule}", *args, **options)


indexes = IndexBlueprint("indexes", __name__)


def serve_site(app: Flask, site: Site) -> None:
    """Let the views of ``app`` ask for ``this_site`` and ``this_engine``, and let ``url_for`` keep to that index."""
    app.extensions[_EXTENSION] = site

    @app.url_value_preprocessor
    def choose_index(endpoint: str | None, values: dict[str, Any] | None) -> None:
        # An address that leads nowhere has no values, but its error page belongs to an index all the same.
        name = _name_in(request.path) if values is None else values.pop("index", None)
        engine = site.get(name)
        g.engine, g.named = engine or site.first, engine is not None
        if endpoint is not None and name is not None and engine is None:
            abort(404)

    @app.url_defaults
    def stay_in_index(endpoint: str, values: dict[str, Any]) -> None:
        values.setdefault("index", g.engine.name if g.named else None)


def site_of(app: Flask) -> Site:
    """What ``app`` shows."""
    site: Site = app.extensions[_EXTENSION]
    return site


def this_site() -> Site:
    """What the server shows that answers the current request."""
    return site_of(current_app)


def this_engine() -> ServedEngine:
    """The search engine of the index that the current request is about."""
    engine: ServedEngine = g.engine
    return engine


def addressed_by_name() -> bool:
    """Whether the current request names its index, as ``/i/NAME/`` does."""
    return bool(g.named)


def url_in(engine: ServedEngine | None, endpoint: str, **values: Any) -> str:
    """``url_for`` in another index than this one; None is this one."""
    if engine is None or engine is this_engine():
        return url_for(endpoint, **values)
    return url_for(endpoint, index=None if engine is this_site().first else engine.name, **values)


@indexes.get("/healthz")
def healthz() -> Response:
    """The first index's numbers and those of all; below ``/i/NAME`` those of that index only."""
    body = _health(this_engine())
    if not addressed_by_name():
        body["indexes"] = [{"name": engine.name, **_health(engine)} for engine in this_site().engines]
        failures = [health for health in body["indexes"] if health["status"] != "ok"]
        if failures and body["status"] == "ok":
            body["status"] = "error"
            body["error"] = " ".join(f"{health['name']}: {health['error']}" for health in failures)
    response = jsonify(body)
    if body["status"] != "ok":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return response


def _health(engine: ServedEngine) -> dict[str, Any]:
    try:
        status = engine.index.status()
    except SearchEngineError as error:
        return {"status": "error", "error": str(error)}
    except OSError as error:
        return {"status": "error", "error": file_error(error)}
    run = status.run
    return {
        "status": "ok",
        "images": status.images,
        "extractor": status.extractor,
        "fingerprint": status.fingerprint,
        "updated": status.updated,
        "run": None if run is None else {"done": run.done, "total": run.total, "active": run.active},
    }


def _name_in(path: str) -> str | None:
    match = re.match("/i/([^/]+)", path)
    return match[1] if match else None
