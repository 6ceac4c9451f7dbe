"""The first page, the results and the health of the server."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request

from searchengine.errors import SearchEngineError, UnknownImageError
from searchengine.index.types import Hit, ImageRecord
from searchengine.web.answers import hits_json, wants_json
from searchengine.web.cards import Card, card_of, cards_of, query_style
from searchengine.web.incoming import RequestError, parse_id, parse_k, read_upload
from searchengine.web.nearness import Nearness
from searchengine.web.queries import UploadedQuery, read_query
from searchengine.web.renditions import file_is_there
from searchengine.web.seam import Engine
from searchengine.web.settings import MAX_K, Settings

K_CHOICES = (10, 30, 60, 120, 240, MAX_K)


def blueprint(engine: Engine, settings: Settings) -> Blueprint:
    """``/``, ``/search`` and ``/healthz``."""
    pages = Blueprint("pages", __name__)
    nearness = Nearness(engine)

    @pages.app_context_processor
    def common() -> dict[str, Any]:
        return {
            "max_bytes": settings.max_upload_bytes,
            "default_k": settings.default_k,
            "k": settings.default_k,
            "k_choices": _choices(settings.default_k),
        }

    @pages.get("/")
    def home() -> Response:
        k = parse_k(request.args.get("k"), settings.default_k)
        n = parse_k(request.args.get("n"), settings.sample)
        status = engine.status()
        cards = [card_of(record) for record in engine.sample(n)]
        more = min(2 * n, MAX_K, status.images)  # twice as many, evenly spread, contain those shown already
        return Response(
            render_template(
                "home.html",
                status=status,
                extractor=engine.extractor_title,
                cards=cards,
                k=k,
                k_choices=_choices(k),
                more=more if more > len(cards) else None,
            )
        )

    @pages.post("/search")
    def search_upload() -> Response:
        upload = read_upload(request, settings.max_upload_bytes)
        k = parse_k(request.form.get("k"), settings.default_k)
        query = read_query(upload, engine.extractor(), settings.max_upload_pixels)
        hits = engine.search(query.pixels, k)
        if wants_json():
            return hits_json({"upload": query.name, "width": query.width, "height": query.height}, hits)
        return _results(hits, k, upload=query)

    @pages.get("/search")
    def search() -> Response:
        if "id" not in request.args:
            # Also the address of an uploaded query, opened again.
            raise RequestError("No picture was named. An uploaded picture is not kept: choose it again.")
        image_id = parse_id(request.args.get("id"))
        if image_id is None:
            raise RequestError("The id of a picture must be a whole number from 1 up, as in /search?id=7.")
        k = parse_k(request.args.get("k"), settings.default_k)
        record = engine.record(image_id)
        hits = engine.search_id(image_id, k)
        if wants_json():
            return hits_json({"id": record.id, "path": record.path}, hits)
        return _results(hits, k, record=record)

    def _results(
        hits: list[Hit], k: int, *, record: ImageRecord | None = None, upload: UploadedQuery | None = None
    ) -> Response:
        status = engine.status()
        others = [hit for hit in hits if record is None or hit.id != record.id]
        if upload is not None:
            place = query_style(upload.width, upload.height)
        else:
            assert record is not None
            place = query_style(record.width or 4, record.height or 3, record.colour)
        return Response(
            render_template(
                "results.html",
                place=place,
                status=status,
                extractor=engine.extractor_title,
                normalized=engine.normalized,
                metric=engine.metric,
                cards=_cards(engine, hits),
                k=k,
                k_choices=_choices(k),
                more=_more(len(hits), k, status.images),
                query=card_of(record) if record else None,
                record=record,
                file_gone=record is not None and not file_is_there(record),
                upload=upload,
                nothing_close=bool(others) and nearness.is_far(others[0].distance),
            )
        )

    @pages.get("/healthz")
    def healthz() -> Response:
        try:
            status = engine.status()
        except SearchEngineError as error:
            response = jsonify(status="error", error=str(error))
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
            return response
        run = status.run
        return jsonify(
            status="ok",
            images=status.images,
            extractor=status.extractor,
            fingerprint=status.fingerprint,
            updated=status.updated,
            run=None if run is None else {"done": run.done, "total": run.total, "active": run.active},
        )

    return pages


def _cards(engine: Engine, hits: list[Hit]) -> list[Card]:
    """Hits with their records; one that was removed since the search is left out."""
    try:
        records = engine.records([hit.id for hit in hits])
    except UnknownImageError:
        found = {}
        for hit in hits:
            try:
                found[hit.id] = engine.record(hit.id)
            except UnknownImageError:
                continue
        hits = [hit for hit in hits if hit.id in found]
        records = [found[hit.id] for hit in hits]
    return cards_of(hits, records, normalized=engine.normalized)


def _choices(k: int) -> list[int]:
    return sorted({*K_CHOICES, k})


def _more(shown: int, k: int, images: int) -> int | None:
    """The next larger k, or None where nothing more can be shown."""
    step = max(k, 30) if k < 120 else 120
    return min(k + step, MAX_K) if shown == k < min(images, MAX_K) else None
