"""What programs read: JSON in place of a page, and how the server is."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request

from searchengine.errors import SearchEngineError
from searchengine.web.indexes import IndexBlueprint, ServedIndex, addressed_by_name, this_index, this_site

api = IndexBlueprint("api", __name__)


def wants_json() -> bool:
    """Whether the client prefers JSON to a page. A browser, and a client that takes anything, gets the page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


@api.get("/healthz")
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
    run = status.run
    return {
        "status": "ok",
        "images": status.images,
        "extractor": status.extractor,
        "fingerprint": status.fingerprint,
        "updated": status.updated,
        "run": None if run is None else {"done": run.done, "total": run.total, "active": run.active},
    }
