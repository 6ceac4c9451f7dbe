"""How the server is, for machines that watch it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request

from searchengine.errors import SearchEngineError
from searchengine.web.served import Collection, Collections, mount


def blueprint(collection: Collection, collections: Collections) -> Blueprint:
    """``/healthz``: the first index's numbers and those of all; under ``/i/NAME`` those of that index only."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        body = _state_of(collection)
        if not request.script_root.endswith(mount(collection.name)):
            body["indexes"] = [{"name": one.name, **_state_of(one)} for one in collections.all]
            failed = [one for one in body["indexes"] if one["status"] != "ok"]
            if failed and body["status"] == "ok":
                body["status"] = "error"
                body["error"] = " ".join(f"{one['name']}: {one['error']}" for one in failed)
        response = jsonify(body)
        if body["status"] != "ok":
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return response

    return health


def _state_of(collection: Collection) -> dict[str, Any]:
    try:
        status = collection.engine.status()
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
