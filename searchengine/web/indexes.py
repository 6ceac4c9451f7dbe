"""The indexes that a server shows: their names, their addresses, the one that a request is about, and their health.

The first index has the plain addresses (``/``, ``/search``). Each one, the first too, is also found below ``/i/NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, g, jsonify, request, url_for

from searchengine.address import Address, MilvusAddress
from searchengine.errors import SearchEngineError, file_error
from searchengine.settings import Settings
from searchengine.web.engines import ServedEngine
from searchengine.web.nearness import Nearness

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_EXTENSION = "searchengine"


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """One of the indexes; ``name`` stands in its addresses and on the page."""

    name: str
    engine: ServedEngine
    nearness: Nearness

    @classmethod
    def of(cls, name: str, engine: ServedEngine) -> ServedIndex:
        """The index that ``engine`` searches."""
        return cls(name, engine, Nearness(engine.index))

    @property
    def title(self) -> str:
        """The extractor in words, e.g. "VGG16 fc2, ImageNet weights, L2-normalised"."""
        return self.engine.index.manifest("extractor") or ""

    @property
    def takes_uploads(self) -> bool:
        """Whether it can be searched by an uploaded image, which needs the model that made it."""
        return self.engine.spec.embeds

    def warm(self) -> None:
        """Load what the first search, and the first filter, would have to wait for."""
        self.engine.warm()
        self.engine.index.facets()
        self.nearness.warm()


@dataclass(frozen=True, slots=True)
class Site:
    """What one server shows: its indexes, in the order in which they were named."""

    indexes: tuple[ServedIndex, ...]
    settings: Settings

    @property
    def first(self) -> ServedIndex:
        """The index with the plain addresses."""
        return self.indexes[0]

    def get(self, name: str | None) -> ServedIndex | None:
        """The index of that name."""
        return next((index for index in self.indexes if index.name == name), None)

    def after(self, index: ServedIndex) -> tuple[ServedIndex, ...]:
        """The other indexes, beginning with the next one; after the last comes the first."""
        position = self.indexes.index(index)
        return self.indexes[position + 1 :] + self.indexes[:position]


class IndexBlueprint(Blueprint):
    """Views of an index: each rule stands twice, plain for the first index and below ``/i/NAME`` for every one."""

    def add_url_rule(self, rule: str, *args: Any, **options: Any) -> None:
        """See ``Flask.add_url_rule``."""
        super().add_url_rule(rule, *args, **options)
        super().add_url_rule(f"/i/<index>{rule}", *args, **options)


indexes = IndexBlueprint("indexes", __name__)


def serve_site(app: Flask, site: Site) -> None:
    """Let the views of ``app`` ask for ``this_site`` and ``this_index``, and let ``url_for`` keep to that index."""
    app.extensions[_EXTENSION] = site

    @app.url_value_preprocessor
    def choose_index(endpoint: str | None, values: dict[str, Any] | None) -> None:
        # An address that leads nowhere has no values, but its error page belongs to an index all the same.
        name = _name_in(request.path) if values is None else values.pop("index", None)
        index = site.get(name)
        g.index, g.named = index or site.first, index is not None
        if endpoint is not None and name is not None and index is None:
            abort(404)

    @app.url_defaults
    def stay_in_index(endpoint: str, values: dict[str, Any]) -> None:
        values.setdefault("index", g.index.name if g.named else None)


def site_of(app: Flask) -> Site:
    """What ``app`` shows."""
    site: Site = app.extensions[_EXTENSION]
    return site


def this_site() -> Site:
    """What the server shows that answers the current request."""
    return site_of(current_app)


def this_index() -> ServedIndex:
    """The index that the current request is about."""
    index: ServedIndex = g.index
    return index


def addressed_by_name() -> bool:
    """Whether the current request names its index, as ``/i/NAME/`` does."""
    return bool(g.named)


def url_in(index: ServedIndex | None, endpoint: str, **values: Any) -> str:
    """``url_for`` in another index than this one; None is this one."""
    if index is None or index is this_index():
        return url_for(endpoint, **values)
    return url_for(endpoint, index=None if index is this_site().first else index.name, **values)


def names_of(addresses: Sequence[Address]) -> list[str]:
    """A name for each index, fit for an address: its folder's own, with its parent's where two are the same.

    A collection in Milvus counts as a folder of its server.
    """
    folders = [
        Path("/", address.host, address.collection)
        if isinstance(address, MilvusAddress)
        else address.expanduser().absolute()
        for address in addresses
    ]
    plain = [_cleaned(folder.name) for folder in folders]
    names: list[str] = []
    for folder, name in zip(folders, plain, strict=True):
        if plain.count(name) > 1:
            name = _cleaned(f"{folder.parent.name}-{folder.name}")
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names


@indexes.get("/healthz")
def healthz() -> Response:
    """The first index's numbers and those of all; below ``/i/NAME`` those of that index only."""
    body = _health(this_index())
    if not addressed_by_name():
        body["indexes"] = [{"name": index.name, **_health(index)} for index in this_site().indexes]
        failures = [health for health in body["indexes"] if health["status"] != "ok"]
        if failures and body["status"] == "ok":
            body["status"] = "error"
            body["error"] = " ".join(f"{health['name']}: {health['error']}" for health in failures)
    response = jsonify(body)
    if body["status"] != "ok":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return response


def _health(index: ServedIndex) -> dict[str, Any]:
    try:
        status = index.engine.index.status()
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


def _cleaned(name: str) -> str:
    return _NOT_IN_A_NAME.sub("-", name).strip(".-") or "index"
