"""A search: by an image of the index or an upload, by what is liked and disliked, or by both."""

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
from searchengine.index.metrics import alike_sentence
from searchengine.index.types import Hit, ImageRecord
from searchengine.query import LIKED, Example, Query
from searchengine.settings import MAX_K
from searchengine.spelling import query_from_json
from searchengine.web.cards import cards_of, cosine_is_score
from searchengine.web.choices import (
    FeedbackChoices,
    index_choices,
    metric_choices,
    other_side,
    rule_choices,
)
from searchengine.web.engines import PredictedLabels, ServedEngine
from searchengine.web.filters import filter_panel
from searchengine.web.indexes import IndexBlueprint, this_engine, this_site
from searchengine.web.pages import counted, query_json, url_values
from searchengine.web.queries import (
    RULE_NOTES,
    Chip,
    QueryBar,
    RequestError,
    Sign,
    asked,
    wants_json,
    without_empty_fields,
)
from searchengine.web.uploads import DecodedUpload, Upload, UploadReader, read_upload

search = IndexBlueprint("search", __name__)


@dataclass(frozen=True)
class Search:
    """A search of this index: ``record`` or ``upload`` is what it starts from, ``examples`` what is judged, by id.

    ``key`` names the upload in addresses.
    """

    engine: ServedEngine
    query: Query
    examples: dict[int, ImageRecord]
    record: ImageRecord | None = None
    upload: DecodedUpload | None = None
    key: str = ""

    @property
    def metric(self) -> str:
        """The metric that ranks where nothing is judged."""
        return self.query.metric or self.engine.index.metric

    @property
    def box(self) -> str:
        """The part of the picture that it starts from, as addresses have it."""
        return "" if self.query.start is None or self.query.start.box is None else str(self.query.start.box)

    def values(self, query: Query) -> dict[str, Any]:
        """The arguments of an address that spell another query, which may start from the same upload."""
        upload = {"upload": self.key} if self.key and query.start is not None else {}
        return upload | url_values(query)

    def address(self, query: Query) -> str:
        """Where another query is answered; one without pictures and words is the collection."""
        if query.start is None and not query.liked:
            query = query.without_judgements()  # dislikes alone rank nothing
        if not query.examples and not query.text:
            return url_for("pages.home", **url_values(Query(filter=query.filter, k=query.k)))
        return url_for("search.by_id", **self.values(query))

    def changed(self, **changes: Any) -> str:
        """Where the same query with some fields changed is answered, from the first hit on."""
        return self.address(replace(self.query, **{"cursor": None, **changes}))

    @property
    def bar(self) -> QueryBar:
        """What the bar at the top holds."""
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
    """A search by an image of the index, by words, by what is liked and disliked, or by several of these."""
    key = request.args.get("upload")
    if key and "id" not in request.args and not wants_json():
        query = asked(request.args, upload=b"")
        return waiting_page(Search(this_engine(), query, _judged(query), key=key))
    if (filled := without_empty_fields()) is not None:
        searches = filled.keys() & {"id", "q", "like", "dislike"}
        return redirect(url_for("search.by_id" if searches else "pages.home", **filled))
    query = asked(request.args)
    if not query.examples and query.text is None:
        raise RequestError("No picture and no words were named. Write some words, or choose a picture.")
    return _answer(query)


@search.post("/search")
def by_upload() -> ResponseReturnValue:
    """A search by an uploaded image and by what is liked and disliked; or by what a query in JSON says."""
    settings = this_site().settings
    if request.mimetype == "application/json":
        try:
            body = parse_json(request.get_data())
        except ValueError as error:
            raise RequestError(f"The query is not JSON: {error}.") from error
        return _answer(query_from_json(body, default_k=settings.default_k, max_k=MAX_K), as_json=True)
    upload = read_upload(request, settings.max_upload_bytes)
    fields = MultiDict(request.form)
    if "id" in fields:  # the picture that this one takes the place of, and the part of it
        fields.poplist("box")
    query = asked(fields, upload=upload.data)
    assert query.start is not None
    reader = UploadReader(upload, settings.max_upload_pixels, query.start.box, shown=not wants_json())
    return _answer(query, reader, key=upload.key)


def _feature_of(example: Example) -> NDArray[np.float32]:
    """As of the engine; but pictures are decoded in their turn, and bounded as uploads are."""
    engine, source = this_engine(), example.source
    if isinstance(source, bytes):
        upload, max_pixels = Upload(source, "image"), this_site().settings.max_upload_pixels
    elif example.id is not None and example.box is not None:
        record = engine.index.records([example.id])[0]
        upload, max_pixels = Upload(record.read(), record.path), MAX_PIXELS  # the index accepted it at its size
    else:
        return engine.feature_of(example)
    return UploadReader(upload, max_pixels, example.box).embed(engine)


def _judged(query: Query) -> dict[int, ImageRecord]:
    """The liked and disliked images that still exist, by id."""
    ids = [example.id for example in query.judged if example.id is not None]
    return {image.id: image for image in this_engine().index.known(ids)}


def waiting_page(search: Search) -> str:
    """The page of an upload before a script has sent the file, which only the browser keeps."""
    return render_template("waiting.html", bar=search.bar, indexes=index_choices(upload=search.key), key=search.key)


def _answer(
    query: Query, reader: UploadReader | None = None, *, key: str = "", as_json: bool = False
) -> ResponseReturnValue:
    """Answer a query; ``reader`` reads the upload that it starts from."""
    engine = this_engine()
    images = engine.index
    start = query.start
    record = None if start is None or start.id is None else images.records([start.id])[0]
    judged = _judged(query)
    # Others were removed since. The answer continues all the same: from its beginning, it would never end.
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
    """As ``searchengine search --json`` prints it, with the query, the feedback and the predicted labels."""
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
    """The page of a ranking, or of the part of it that follows another page."""
    engine, record, query, metric = search.engine, search.record, search.query, search.metric
    images = engine.index
    itself = next((hit for hit in results if record is not None and hit.id == record.id), None)
    hits = [hit for hit in results if hit is not itself]
    relative = bool(query.judged or query.text)
    as_shares = not relative and cosine_is_score(results.metric, normalized=images.normalized)
    values = search.values(replace(query, text=None, cursor=None))
    k, kept = values.get("k"), url_values(replace(query, examples=(), text=None, cursor=None))
    elsewhere = {name: texts for name, texts in kept.items() if name not in ("ids", "k")}  # ids are those of this index
    doubt = results.doubt or ""
    if not relative and not query.cursor and not _is_close(engine, results, hits):
        doubt = f"Nothing {'else ' if record else ''}here looks much like it. These come nearest."
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
        extractor=images.manifest("extractor") or "",
        remark=results.remark,
        kept=kept,  # what a search by another picture takes along
        likes=FeedbackChoices(query, search.address),
        clear_likes=search.address(query.without_judgements()),
        rules=rule_choices(query, search.changed),
        metrics=[] if relative else metric_choices(metric, search.changed),
        compare_url=_compare_url(search),
        predicted=None if doubt or query.text else labels,
        more=None if results.cursor is None else search.changed(cursor=results.cursor),
        first=None if query.cursor is None else search.changed(),
        file_gone=record is not None and record.has_picture and not record.has_file,
        copies=0 if itself is None else itself.stands_for - 1,  # of the picture searched by, which is not shown
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
    """What is searched by, for the title of the window."""
    name = search.upload.name if search.upload else search.record.path.rsplit("/", 1)[-1] if search.record else ""
    words = f"“{search.query.text}”" if search.query.text else ""
    if name:
        words = f"Like {name} and {words}" if words else f"Like {name}"
    return ", ".join(part for part in (words or "What you like", search.query.in_words()) if part)


def _order(query: Query) -> str:
    """How the results are ranked, in plain words."""
    if query.judged:
        if query.text:
            return f"Ranked by your words and {'likes' if query.liked else 'dislikes'}"
        return f"Ranked by what you {'liked' if query.liked else 'did not like'}"
    return "Best match first" if query.text else "Closest first"


def _count(query: Query, results: Results) -> str:
    """How many pictures there are; how many near-duplicates are hidden shows at the end only."""
    if not query.distinct:
        return counted(results.total, "picture", "pictures")
    if results.cursor is None:
        shown = len(results) + (query.cursor.rank if query.cursor else 0)
        return f"{grouped(shown)} of {counted(results.total, 'picture', 'pictures')}"
    return f"{counted(results.total, 'picture', 'pictures')}, without near-duplicates"


def _is_close(engine: ServedEngine, results: Results, hits: Sequence[Hit]) -> bool:
    """Whether anything but the image that is searched by is near; True where distances cannot tell."""
    comparable = results.metric == engine.index.metric
    return not comparable or not hits or not engine.nearness.is_far(hits[0].distance)


def _compare_url(search: Search) -> str | None:
    """The page that shows another ranking beside this one; it takes a picture."""
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
