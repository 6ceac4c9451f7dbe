"""The first page, and what all pages share: their query, and the filters of the templates."""

from __future__ import annotations

from typing import Any

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from searchengine.analyse.evaluation.report import decimal, grouped, interval_text, percent
from searchengine.errors import SearchEngineError
from searchengine.index.filters import FIELDS, Filter
from searchengine.index.types import ImageRecord
from searchengine.query import Box, Query
from searchengine.spelling import parse_id, query_to_url
from searchengine.web.cards import CardUrls, card_of, spaced
from searchengine.web.choices import FeedbackChoices, index_choices
from searchengine.web.engines import ServedEngine
from searchengine.web.filters import filter_panel
from searchengine.web.indexes import IndexBlueprint, this_engine, this_site
from searchengine.web.queries import QueryBar, bar_of_request, how_many, without_empty_fields
from searchengine.web.uploads import DecodedUpload, why_no_uploads

pages = IndexBlueprint("pages", __name__)


@pages.get("/")
def home() -> ResponseReturnValue:
    """The first page: a mixture of the collection, or all that passes the filter by id, some at a time."""
    if (filled := without_empty_fields()) is not None:
        return redirect(url_for("pages.home", **filled))
    index, settings = this_engine().index, this_site().settings
    n, status = how_many("n", settings.sample), index.status()
    filter, cursor = Filter.from_fields(request.args.to_dict(flat=False)), parse_id(request.args.get("cursor"))
    query = Query(filter=filter, k=how_many("k", settings.default_k))
    kept = url_values(query)
    whole = bool(filter) or cursor is not None or bool(request.args.get("all"))

    def address(**values: Any) -> str:
        return url_for("pages.home", **{**kept, "n": None if n == settings.sample else n, **values})

    if whole:
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
        kept=kept,  # what a search by one of them takes along
        likes=first_likes(query),
        more=more,
        whole=None if whole or more is None else address(all=1),
        mixed=None if filter or not whole else address(),
    )


def first_likes(query: Query) -> FeedbackChoices:
    """To like a picture where nothing is searched by yet."""
    return FeedbackChoices(query, lambda liked: url_for("search.by_id", **url_values(liked)))


def url_values(query: Query) -> dict[str, Any]:
    """The arguments of ``url_for`` that spell a query."""
    return query_to_url(query, default_k=this_site().settings.default_k)


def _mixed(records: list[ImageRecord]) -> list[ImageRecord]:
    """Neighbours in the folder apart from each other."""
    step = max(round(len(records) ** 0.5), 1)
    return [record for start in range(step) for record in records[start::step]]


@pages.app_context_processor
def common() -> dict[str, Any]:
    """What every template may use; a page may have its own values."""
    settings = this_site().settings
    try:
        no_pictures, indexes = why_no_uploads(this_engine().spec), index_choices()
        words = this_engine().knows_words
    except (SearchEngineError, OSError):  # a page that says what is wrong with an index does without it
        no_pictures, indexes, words = "This index cannot be read at present.", [], False
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
    """The addresses of the images of an index; None is this one."""
    return CardUrls(engine, endpoint, values)


def query_json(
    record: ImageRecord | None, upload: DecodedUpload | None, box: Box | None = None
) -> dict[str, Any] | None:
    """What was searched by, in a JSON answer; None where it is feedback alone."""
    part = {} if box is None else {"box": box.part}
    if upload is not None:
        return {"upload": upload.name, "width": upload.width, "height": upload.height, **part}
    return None if record is None else {"id": record.id, "path": record.path, **part}


@pages.app_template_global()
def counted(number: int, singular: str, plural: str) -> str:
    """1 -> "1 picture", 4000 -> "4 000 pictures"."""
    return f"{grouped(number)} {singular if number == 1 else plural}"


pages.add_app_template_filter(decimal)
pages.add_app_template_filter(percent)
pages.add_app_template_filter(grouped)
pages.add_app_template_filter(spaced)
pages.add_app_template_filter(interval_text, "interval")
