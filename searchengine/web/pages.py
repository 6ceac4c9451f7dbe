"""The first page, the health check, and what all pages share: template variables, styles and scripts."""

from __future__ import annotations

import re
from functools import cache
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Response, abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from searchengine.analyse.evaluation.report import decimal, grouped, interval_text, percent
from searchengine.errors import SearchEngineError, file_error
from searchengine.index.filters import FIELDS, Filter
from searchengine.index.types import ImageRecord
from searchengine.query import Box, Query
from searchengine.spelling import parse_id, query_to_url
from searchengine.web.cards import CardUrls, QueryBar, bar_of_request, card_of, spaced
from searchengine.web.choices import FeedbackChoices, filter_panel, index_choices
from searchengine.web.engines import ServedEngine
from searchengine.web.requests import (
    IndexBlueprint,
    addressed_by_name,
    parse_count,
    this_engine,
    this_site,
    without_empty_fields,
)
from searchengine.web.security import FOREVER, REVALIDATE
from searchengine.web.uploads import DecodedUpload, why_no_uploads

pages = IndexBlueprint("pages", __name__)


@pages.get("/")
def home() -> ResponseReturnValue:
    """Show a mixture of the collection, or, with a filter or on request, the images in the order of their ids."""
    if (filled := without_empty_fields()) is not None:
        return redirect(url_for("pages.home", **filled))
    index, settings = this_engine().index, this_site().settings
    n, status = parse_count("n", settings.sample), index.status()
    filter, cursor = Filter.from_fields(request.args.to_dict(flat=False)), parse_id(request.args.get("cursor"))
    query = Query(filter=filter, k=parse_count("k", settings.default_k))
    kept = url_values(query)
    in_order = bool(filter) or cursor is not None or bool(request.args.get("all"))

    def address(**values: Any) -> str:
        return url_for("pages.home", **{**kept, "n": None if n == settings.sample else n, **values})

    if in_order:
        records = index.page(filter, cursor, n + 1)
        shown = records[:n]
        more = address(cursor=shown[-1].id) if len(records) > n else None
    else:
        seen = parse_id(request.args.get("seen")) or 0
        shown = _mixed(index.sample(n, seen))
        more = address(seen=seen + len(shown)) if shown and seen + len(shown) < status.images else None

    def filtered(other: Filter) -> str:
        return url_for("pages.home", **{**without_filter, **other.to_fields()})

    without_filter = {name: texts for name, texts in kept.items() if name not in FIELDS}
    return render_template(
        "home.html",
        status=status,
        cards=[card_of(record) for record in shown],
        total=index.count(filter) if filter else status.images,
        filter=filter_panel(index, filter, filtered, url_for("pages.home"), without_filter),
        bar=QueryBar(fields=kept),
        kept=kept,  # carried along by a search by one of the images
        likes=first_likes(query),
        more=more,
        order_url=None if in_order or more is None else address(all=1),
        mixed_url=None if filter or not in_order else address(),
    )


def first_likes(query: Query) -> FeedbackChoices:
    """Return the likes of a page that is not a search."""
    return FeedbackChoices(query, lambda liked: url_for("search.by_id", **url_values(liked)))


def url_values(query: Query) -> dict[str, Any]:
    """Return the arguments of ``url_for`` that spell a query."""
    return query_to_url(query, default_k=this_site().settings.default_k)


def _mixed(records: list[ImageRecord]) -> list[ImageRecord]:
    """Reorder records so that neighbours in a folder do not stand next to each other."""
    step = max(round(len(records) ** 0.5), 1)
    return [record for start in range(step) for record in records[start::step]]


# -- health -----------------------------------------------------------------------------------------------------------


@pages.get("/healthz")
def healthz() -> Response:
    """Return the state of the first index and of all indexes; below ``/i/NAME``, of that index only."""
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


# -- shared by the templates ------------------------------------------------------------------------------------------


@pages.app_context_processor
def template_variables() -> dict[str, Any]:
    """Return the variables of every template; a view may override them."""
    settings = this_site().settings
    try:
        no_pictures, indexes = why_no_uploads(this_engine().spec), index_choices()
        words = this_engine().knows_words
    except (SearchEngineError, OSError):  # the page that reports a broken index must still be shown
        no_pictures, indexes, words = "This index cannot be read at the moment.", [], False
    return {
        "max_bytes": settings.max_upload_bytes,
        "no_pictures": no_pictures,
        "words": words,
        "indexes": indexes,
        "index_name": this_engine().name,
        "view": request.endpoint or "",
        "bar": bar_of_request(),
    }


@pages.app_template_global("addresses")
def card_urls(engine: ServedEngine | None = None, endpoint: str = "search.by_id", **values: Any) -> CardUrls:
    """Return the addresses of the images of an index; see ``CardUrls``."""
    return CardUrls(engine, endpoint, values)


@pages.app_template_global()
def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun: "1 picture", "4 000 pictures"."""
    return f"{grouped(number)} {singular if number == 1 else plural}"


pages.add_app_template_filter(decimal)
pages.add_app_template_filter(percent)
pages.add_app_template_filter(grouped)
pages.add_app_template_filter(spaced)
pages.add_app_template_filter(interval_text, "interval")


def query_json(
    record: ImageRecord | None, upload: DecodedUpload | None, box: Box | None = None
) -> dict[str, Any] | None:
    """Return the picture searched by, for a JSON response; None if there are only words or feedback."""
    part = {} if box is None else {"box": box.part}
    if upload is not None:
        return {"upload": upload.name, "width": upload.image.width, "height": upload.image.height, **part}
    return None if record is None else {"id": record.id, "path": record.path, **part}


# -- styles and scripts: their addresses change with their content ----------------------------------------------------

# The styles of every page are one file: on a slow network each further file costs a round trip.
BUNDLES = {"all.css": ("base.css", "overlays.css", "top.css", "workspace.css", "grid.css")}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_IMPORT = re.compile(r'^import [^;]*"\./([\w-]+\.js)";', re.MULTILINE)


def folder(name: str) -> Path:
    """Return the folder ``templates`` or ``static``: in this package if installed, else at the top of the project."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parents[1] / name


@cache
def static_files() -> list[Path]:
    """Return the styles, scripts and icons in a fixed order, without the notes in vendor/."""
    return sorted(file for file in folder("static").rglob("*") if file.suffix in _TYPES)


@pages.get("/static/<version>/<path:filename>")
def static(version: str, filename: str) -> Response:
    """Return a file or a bundle.

    The version is part of the path, so a script that imports another by a relative name gets the same version, and
    browsers can keep every file forever.
    """
    if filename not in BUNDLES and folder("static") / filename not in static_files():
        abort(404)
    text = "\n".join(_text(name) for name in BUNDLES.get(filename, (filename,)))
    response = Response(text, mimetype=_TYPES[Path(filename).suffix])
    response.set_etag(f"{_version()}-{filename}", weak=True)  # the same for every compression
    # Browsers must not keep these files under the address of another version.
    response.headers["Cache-Control"] = FOREVER if version == _version() else REVALIDATE
    response.make_conditional(request)
    return response


@pages.get("/favicon.ico")
def favicon() -> Response:
    """Return the icon, which browsers request here when they show an image or JSON by itself."""
    return static("", "favicon.svg")


@pages.app_template_global("asset")
def asset_url(filename: str) -> str:
    """Return the address of a file. It is the same for every index, so browsers keep one copy."""
    return f"{request.script_root}/static/{_version()}/{filename}"


@pages.app_template_global("modules")
@cache
def modules(filename: str) -> tuple[str, ...]:
    """Return a script and all scripts that it imports, directly or not, so that a page can preload them."""
    names = [filename]
    for name in names:  # the list grows during the loop
        names += [imported for imported in _IMPORT.findall(_text(name)) if imported not in names]
    return tuple(names)


def _text(name: str) -> str:
    return (folder("static") / name).read_text(encoding="utf-8")


@cache
def _version() -> str:
    root, digest = folder("static"), blake2b(repr(BUNDLES).encode(), digest_size=6)
    for file in static_files():
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
