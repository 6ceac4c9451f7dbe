"""The search view: by an image of the index or an upload, by words, by likes and dislikes, or any combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flask import Response, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray
from werkzeug.datastructures import MultiDict

from searchengine.analyse.evaluation.report import grouped
from searchengine.engine import Results
from searchengine.files import parse_json
from searchengine.images import MAX_PIXELS
from searchengine.index.filters import EVERYTHING, unknown_choices
from searchengine.index.metrics import COSINE, alike_sentence, rank_alike
from searchengine.index.types import Hit, ImageRecord
from searchengine.query import LIKED, Example, Query
from searchengine.spelling import query_from_json
from searchengine.web.cards import Chip, QueryBar, Sign, cards_of
from searchengine.web.choices import (
    RULE_NOTES,
    FeedbackChoices,
    filter_panel,
    index_choices,
    metric_choices,
    other_side,
    rule_choices,
)
from searchengine.web.engines import PredictedLabels, ServedEngine
from searchengine.web.pages import counted, query_json, url_values
from searchengine.web.requests import (
    IndexBlueprint,
    RequestError,
    parse_query,
    this_engine,
    this_site,
    wants_json,
    without_empty_fields,
)
from searchengine.web.uploads import DecodedUpload, Upload, UploadReader, read_upload

search = IndexBlueprint("search", __name__)


@dataclass(frozen=True)
class Search:
    """A search of one index.

    Attributes:
        examples: the liked and disliked images by id.
        record: the image of the index that the search starts from.
        upload: the upload that it starts from; None until the browser has sent the file.
        key: the name of that upload in addresses.
    """

    engine: ServedEngine
    query: Query
    examples: dict[int, ImageRecord]
    record: ImageRecord | None = None
    upload: DecodedUpload | None = None
    key: str = ""

    @property
    def metric(self) -> str:
        """The metric that ranks if there are no likes or dislikes."""
        return self.query.metric or self.engine.index.metric

    @property
    def box(self) -> str:
        """The part of the starting picture, as it is written in addresses; empty for the whole."""
        return "" if self.query.start is None or self.query.start.box is None else str(self.query.start.box)

    def values(self, query: Query) -> dict[str, Any]:
        """Return the arguments of ``url_for`` for another query, which may start from the same upload."""
        upload = {"upload": self.key} if self.key and query.start is not None else {}
        return upload | url_values(query)

    def address(self, query: Query) -> str:
        """Return the address of another query; without pictures and words, that of the collection."""
        if query.start is None and not query.liked:
            query = query.without_judgements()  # dislikes alone rank nothing
        if not query.examples and not query.text:
            return url_for("pages.home", **url_values(Query(filter=query.filter, k=query.k)))
        return url_for("search.by_id", **self.values(query))

    def changed(self, **changes: Any) -> str:
        """Return the address of this query with some fields changed, from the first hit on."""
        return self.address(replace(self.query, **{"cursor": None, **changes}))

    @property
    def bar(self) -> QueryBar:
        """The contents of the query bar."""
        query = self.query
        chips = []
        without_start = self.address(query.without_start())
        if self.record is not None:
            chips.append(Chip.of(self.record, without_start, box=self.box))
        elif self.key:
            name, picture = ("Your picture", "") if self.upload is None else (self.upload.name, self.upload.picture)
            chips.append(Chip("start", name, without_start, picture=picture, box=self.box, key=self.key))
        for example in query.judged:
            if example.id in self.examples:
                sign: Sign = "like" if example.sign == LIKED else "dislike"
                chips.append(Chip.of(self.examples[example.id], self.address(query.without(example.id)), sign))
        return QueryBar(chips, query.text or "", self.values(replace(query, text=None, cursor=None)))


@search.get("/search")
def by_id() -> ResponseReturnValue:
    """Answer a search whose address holds the whole query."""
    key = request.args.get("upload")
    if key and "id" not in request.args and not wants_json():
        query = parse_query(request.args, upload=b"")
        return waiting_page(Search(this_engine(), query, _judged(query), key=key))
    if (filled := without_empty_fields()) is not None:
        searches = filled.keys() & {"id", "q", "like", "dislike"}
        return redirect(url_for("search.by_id" if searches else "pages.home", **filled))
    query = parse_query(request.args)
    if not query.examples and query.text is None:
        raise RequestError("There is nothing to search for. Type some words or choose a picture.")
    return _answer(query)


@search.post("/search")
def by_upload() -> ResponseReturnValue:
    """Answer a search by an uploaded image, or by a query in JSON."""
    settings = this_site().settings
    if request.mimetype == "application/json":
        try:
            body = parse_json(request.get_data())
        except ValueError as error:
            raise RequestError(f"The query is not JSON: {error}.") from error
        return _answer(query_from_json(body, default_k=settings.default_k), as_json=True)
    upload = read_upload(request, settings.max_upload_bytes)
    fields = MultiDict(request.form)
    if "id" in fields:  # the upload replaces this picture, so its box no longer applies
        fields.poplist("box")
    query = parse_query(fields, upload=upload.data)
    assert query.start is not None
    reader = UploadReader(upload, settings.max_upload_pixels, query.start.box, shown=not wants_json())
    return _answer(query, reader, key=upload.key)


def _feature_of(example: Example) -> NDArray[np.float32]:
    """Return the (1, d) float32 feature of an example; pictures are queued and limited like uploads."""
    engine, source = this_engine(), example.source
    if isinstance(source, bytes):
        upload, max_pixels = Upload(source, "image"), this_site().settings.max_upload_pixels
    elif example.id is not None and example.box is not None:
        record = engine.index.records([example.id])[0]
        upload, max_pixels = Upload(record.read(), record.path), MAX_PIXELS  # the index has accepted its size
    else:
        return engine.feature_of(example)
    return UploadReader(upload, max_pixels, example.box).embed(engine)


def _judged(query: Query) -> dict[int, ImageRecord]:
    """Return the liked and disliked images that still exist, by id."""
    ids = [example.id for example in query.judged if example.id is not None]
    return {image.id: image for image in this_engine().index.known(ids)}


def waiting_page(search: Search) -> str:
    """Return the page of an upload whose file only the browser has; a script on it sends the file."""
    return render_template("waiting.html", bar=search.bar, indexes=index_choices(upload=search.key), key=search.key)


def _answer(
    query: Query, reader: UploadReader | None = None, *, key: str = "", as_json: bool = False
) -> ResponseReturnValue:
    """Answer a query as a page or JSON; ``reader`` reads the upload that the query starts from."""
    engine = this_engine()
    images = engine.index
    start = query.start
    record = None if start is None or start.id is None else images.records([start.id])[0]
    judged = _judged(query)
    # Drop examples that were removed from the index. Keep the cursor: starting over would never reach the end.
    query = replace(query.keeping(lambda example: example.id is None or example.id in judged), cursor=query.cursor)
    if query.metric == images.metric:
        query = replace(query, metric=None)

    def feature_of(example: Example) -> NDArray[np.float32]:
        return reader.embed(engine) if reader and example == query.start else _feature_of(example)

    results = engine.search(query, feature_of=feature_of)
    upload = None if reader is None else reader.decode(engine)
    search = Search(engine, query, judged, record, upload, key)
    labels = None if results.start is None else engine.predict_labels(query, results.start)
    if as_json or wants_json():
        return _results_json(search, results, labels)
    return _results_page(search, results, labels)


def _results_json(search: Search, results: Results, labels: PredictedLabels | None) -> Response:
    """Return what ``searchengine search --json`` prints, with the query, the feedback and the predicted labels."""
    query = search.query
    more: dict[str, Any] = {}
    if query.judged:
        liked, disliked = ([example.id for example in examples] for examples in (query.liked, query.disliked))
        more = {"liked": liked, "disliked": disliked, "rule": query.rule_used}
    unknown = unknown_choices(search.engine.index.facets(EVERYTHING), query.filter) if query.filter else []
    if unknown:
        more["unknown"] = unknown
    if labels is not None:
        more["predicted"] = labels.to_json()
    if query.text is not None:
        more |= {"text": query.text, "doubt": results.doubt}
    return jsonify(
        query=query_json(search.record, search.upload, None if query.start is None else query.start.box),
        metric=None if query.judged else results.metric,
        ranked_by=results.ranked_by,
        remark=results.remark,
        total=results.total,
        cursor=None if results.cursor is None else str(results.cursor),
        **more,
        hits=[hit.to_dict() for hit in results],
    )


def _results_page(search: Search, results: Results, labels: PredictedLabels | None) -> str:
    """Return a page of results: the first of a ranking, or a later one."""
    engine, record, query, metric = search.engine, search.record, search.query, search.metric
    images = engine.index
    itself = next((hit for hit in results if record is not None and hit.id == record.id), None)
    hits = [hit for hit in results if hit is not itself]
    relative = bool(query.judged or query.text)  # such scores only give an order
    as_shares = not relative and rank_alike(results.metric, COSINE, normalized=images.normalized)
    values = search.values(replace(query, text=None, cursor=None))
    k, kept = values.get("k"), url_values(replace(query, examples=(), text=None, cursor=None))
    elsewhere = {name: texts for name, texts in kept.items() if name not in ("ids", "k")}  # ids mean other images there
    doubt = results.doubt or ""
    if not relative and not query.cursor and not _is_close(engine, results, hits):
        doubt = f"Nothing {'else ' if record else ''}here looks much like it. These pictures come closest."
    return render_template(
        "results.html",
        bar=search.bar,
        indexes=index_choices(record=record, upload=search.key, k=k, box=search.box or None, **elsewhere),
        title=_title(search),
        order=_order(query),
        total=results.total,
        count=_count(query, results),
        cards=cards_of(hits, as_shares=as_shares),
        doubt=doubt,
        judged=query.in_words(),
        rule_note=RULE_NOTES[query.rule_used],
        as_shares=as_shares,
        alike="" if relative else alike_sentence(metric, normalized=images.normalized),
        extractor=engine.title,
        remark=results.remark,
        kept=kept,  # carried along by a search by another picture
        likes=FeedbackChoices(query, search.address),
        clear_likes=search.address(query.without_judgements()),
        rules=rule_choices(query, search.changed),
        metrics=[] if relative else metric_choices(metric, search.changed),
        compare_url=_compare_url(search),
        predicted=None if doubt or query.text else labels,
        more=None if results.cursor is None else search.changed(cursor=results.cursor),
        first=None if query.cursor is None else search.changed(),
        file_gone=record is not None and record.has_picture and not record.has_file,
        copies=0 if itself is None else itself.stands_for - 1,  # of the starting picture itself
        with_copies=search.changed(copies=True),
        distinct=query.distinct,
        filter=filter_panel(
            images,
            query.filter,
            lambda filter: search.changed(filter=filter),
            url_for("search.by_id"),
            search.values(replace(query, filter=EVERYTHING, cursor=None, distinct=False)),
        ),
    )


def _title(search: Search) -> str:
    """Return the title of the window."""
    name = search.upload.name if search.upload else search.record.path.rsplit("/", 1)[-1] if search.record else ""
    words = f"“{search.query.text}”" if search.query.text else ""
    if name:
        words = f"Like {name} and {words}" if words else f"Like {name}"
    return ", ".join(part for part in (words or "What you like", search.query.in_words()) if part)


def _order(query: Query) -> str:
    """Return the heading: how the results are ranked, in plain words."""
    if query.judged:
        if query.text:
            return f"Ranked by your words and {'likes' if query.liked else 'dislikes'}"
        return f"Ranked by what you {'liked' if query.liked else 'disliked'}"
    return "Best match first" if query.text else "Closest first"


def _count(query: Query, results: Results) -> str:
    """Return the number of results in words; how many near-duplicates are hidden is only known on the last page."""
    if not query.distinct:
        return counted(results.total, "picture", "pictures")
    if results.cursor is None:
        shown = len(results) + (query.cursor.rank if query.cursor else 0)
        return f"{grouped(shown)} of {counted(results.total, 'picture', 'pictures')}"
    return f"{counted(results.total, 'picture', 'pictures')}, without near-duplicates"


def _is_close(engine: ServedEngine, results: Results, hits: Sequence[Hit]) -> bool:
    """Return whether the nearest other image is near; True if the distances cannot tell."""
    comparable = results.metric == engine.index.metric
    return not comparable or not hits or not engine.nearness.is_far(hits[0].distance)


def _compare_url(search: Search) -> str | None:
    """Return the address that compares this ranking with another; None without a picture to search by."""
    if search.query.start is None:
        return None
    other, other_metric = other_side(search.engine, search.metric)
    values: dict[str, Any] = {
        "k": url_values(search.query).get("k"),
        "left": search.engine.name,
        "left_by": search.query.metric,
        "right": other.name,
        "right_by": None if other_metric == other.index.metric else other_metric,
    }
    picture = {"upload": search.key} if search.record is None else {"id": search.record.id}
    return url_for("compare.by_id", **picture, **values)
