"""A search: by an image of the index or an upload, by what is liked and disliked, or by both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from flask import Response, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray

from searchengine.engine import Results
from searchengine.files import parse_json
from searchengine.images import MAX_PIXELS
from searchengine.index.filters import EVERYTHING, unknown_choices
from searchengine.index.metrics import alike_sentence, metric_title
from searchengine.index.types import ImageRecord
from searchengine.query import LIKED, Example, Query
from searchengine.settings import MAX_K
from searchengine.spelling import query_from_json, query_to_url
from searchengine.web.cards import Card, card_of, cards_of, cosine_is_score, relative
from searchengine.web.choices import (
    Address,
    Choice,
    FeedbackChoices,
    index_choices,
    metric_choices,
    other_side,
    rule_choices,
)
from searchengine.web.filters import FilterPanel, filter_panel
from searchengine.web.indexes import IndexBlueprint, ServedIndex, this_index, this_site
from searchengine.web.labels import PredictedLabels, predict_labels
from searchengine.web.pages import QueryPage, next_k, query_json
from searchengine.web.queries import RequestError, asked, wants_json
from searchengine.web.uploads import DecodedUpload, Upload, UploadReader, read_upload

search = IndexBlueprint("search", __name__)


@dataclass(frozen=True)
class JudgedCard:
    """An image that was liked or disliked."""

    card: Card
    liked: bool


@dataclass(frozen=True)
class ResultsPage(QueryPage):
    """A ranking, or the part of it that follows another page.

    ``judged`` says what is liked and disliked, ``rule`` by which rule that ranks; ``kept`` are the arguments that a
    search by another picture takes along; ``comparison`` shows another ranking beside this one; ``more`` and ``cursor``
    lead to what follows, ``larger`` to the same page with more on it, where one page may hold more; ``first`` leads
    back to the beginning; ``nothing_close``: even the nearest hit is far; ``unfiltered`` are the fields that the form
    of the filter takes along; ``doubt`` says that no image shows what the words of ``text`` say.
    """

    template: ClassVar[str] = "results.html"

    total: int
    shown: int
    extractor: str
    metric: str
    cosine: bool
    alike: str
    cards: list[Card]
    box: str
    text: str
    doubt: str
    kept: dict[str, Any]
    judged: str
    rule: str
    feedback_links: FeedbackChoices
    examples: list[JudgedCard]
    rules: list[Choice]
    metrics: list[list[Choice]]
    comparison: Address
    predicted: PredictedLabels | None
    cursor: str
    more: Address | None
    larger: Address | None
    larger_k: int | None
    first: Address | None
    nothing_close: bool
    filter: FilterPanel
    unfiltered: dict[str, Any]


@dataclass(frozen=True)
class Search:
    """A search of this index; ``record`` or ``upload`` is what it starts from, ``examples`` what is judged, by id."""

    index: ServedIndex
    query: Query
    examples: dict[int, ImageRecord]
    record: ImageRecord | None = None
    upload: DecodedUpload | None = None

    @property
    def metric(self) -> str:
        """The metric that ranks where nothing is judged."""
        return self.query.metric or self.index.engine.index.metric

    def address(self, query: Query) -> Address:
        """Where another query is answered."""
        values = url_values(query)
        if self.upload is not None:
            return Address(url_for("pages.home"), again=url_for("search.by_upload", **values))
        if not query.examples and not query.text:
            return Address(url_for("pages.home"))
        return Address(url_for("search.by_id", **values))

    def changed(self, **changes: Any) -> Address:
        """Where the same query with some fields changed is answered, from the first hit on."""
        return self.address(replace(self.query, **{"cursor": None, **changes}))


def url_values(query: Query) -> dict[str, Any]:
    """The arguments of ``url_for`` that spell a query."""
    return query_to_url(query, default_k=this_site().settings.default_k)


@search.get("/search")
def by_id() -> ResponseReturnValue:
    """A search by an image of the index, by what is liked and disliked, or by both."""
    query = asked(request.args)
    if not query.examples and query.text is None:
        if "q" in request.args:
            raise RequestError("There are no words to search by. Write some, or choose a picture.")
        # Also the address of an uploaded query, opened again.
        raise RequestError("No picture and no words were named. An uploaded picture is not kept: choose it again.")
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
    query = asked(request.form, upload=upload.data)
    assert query.start is not None
    return _answer(query, UploadReader(upload, settings.max_upload_pixels, query.start.box, shown=not wants_json()))


def _feature_of(example: Example) -> NDArray[np.float32]:
    """As of the engine; but pictures are decoded in their turn, and bounded as uploads are."""
    engine, source = this_index().engine, example.source
    if isinstance(source, bytes):
        upload, max_pixels = Upload(source, "image"), this_site().settings.max_upload_pixels
    elif example.id is not None and example.box is not None:
        record = engine.index.records([example.id])[0]
        upload, max_pixels = Upload(record.read(), record.path), MAX_PIXELS  # the index accepted it at its size
    else:
        return engine.feature_of(example)
    return UploadReader(upload, max_pixels, example.box).embed(engine)


def _answer(query: Query, reader: UploadReader | None = None, *, as_json: bool = False) -> ResponseReturnValue:
    """Answer a query; ``reader`` reads the upload that it starts from."""
    index = this_index()
    images = index.engine.index
    start = query.start
    record = None if start is None or start.id is None else images.records([start.id])[0]
    judged = {image.id: image for image in images.known([e.id for e in query.judged if e.id is not None])}
    # Others were removed since. The answer continues all the same: from its beginning, it would never end.
    query = replace(query.among(lambda example: example.id is None or example.id in judged), cursor=query.cursor)
    if query.metric == images.metric:
        query = replace(query, metric=None)

    def feature_of(example: Example) -> NDArray[np.float32]:
        return reader.embed(index.engine) if reader and example == query.start else _feature_of(example)

    results = index.engine.search(query, feature_of=feature_of)
    upload = None if reader is None else reader.decode(index.engine)
    search = Search(index, query, judged, record, upload)
    labels = None if results.start is None else predict_labels(index, query, results.start)
    if as_json or wants_json():
        return _results_json(search, results, labels)
    return _results_page(search, results, labels).render()


def _results_json(search: Search, results: Results, labels: PredictedLabels | None) -> Response:
    """As ``searchengine search --json`` prints it, with the query, the feedback and the predicted labels."""
    query = search.query
    more: dict[str, Any] = {}
    if query.judged:
        liked, disliked = ([example.id for example in examples] for examples in (query.liked, query.disliked))
        more = {"liked": liked, "disliked": disliked, "rule": query.rule_used}
    unknown = unknown_choices(search.index.engine.index.facets(EVERYTHING), query.filter) if query.filter else []
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


def _results_page(search: Search, results: Results, labels: PredictedLabels | None) -> ResultsPage:
    index, record, query, metric = search.index, search.record, search.query, search.metric
    status, normalized = index.engine.index.status(), index.engine.index.normalized
    cards = cards_of(results.hits, normalized=normalized, metric=results.metric)
    kept = url_values(replace(query, examples=(), text=None, cursor=None))
    k = kept.pop("k", None)
    elsewhere = {name: values for name, values in kept.items() if name != "ids"}  # they are those of this index
    box = None if query.start is None else query.start.box
    before = 0 if query.cursor is None else query.cursor.rank
    larger_k = None if query.cursor else next_k(len(results), query.k, results.total)
    return ResultsPage(
        record=record,
        upload=search.upload,
        k=query.k,
        indexes=index_choices(record=record, uploaded=search.upload is not None, k=k, box=box, **elsewhere),
        total=results.total,
        shown=before + len(results),
        extractor=status.extractor,
        metric=metric_title(metric),
        cosine=cosine_is_score(results.metric, normalized=normalized),
        alike=alike_sentence(metric, normalized=normalized),
        cards=relative(cards) if query.judged else cards,
        box="" if box is None else str(box),
        text=query.text or "",
        doubt=results.doubt or "",
        kept=kept,
        judged=query.in_words(),
        rule=query.rule_used,
        feedback_links=FeedbackChoices(query, search.address),
        examples=[
            JudgedCard(card_of(search.examples[example.id]), example.sign == LIKED)
            for example in query.judged
            if example.id is not None
        ],
        rules=rule_choices(query, search.changed),
        metrics=metric_choices(metric, search.changed),
        comparison=_comparison(search),
        predicted=labels,
        cursor="" if results.cursor is None else str(results.cursor),
        more=None if results.cursor is None else search.changed(cursor=results.cursor),
        larger=search.changed(k=larger_k) if larger_k else None,
        larger_k=larger_k,
        first=None if query.cursor is None else search.changed(),
        filter=filter_panel(index.engine.index, query.filter, lambda filter: search.changed(filter=filter)),
        unfiltered=url_values(replace(query, filter=EVERYTHING, cursor=None)),
        nothing_close=not query.judged and not query.text and not query.cursor and not _is_close(index, query, results),
    )


def _is_close(index: ServedIndex, query: Query, results: Results) -> bool:
    """Whether anything but the image that is searched by is near; True where distances cannot tell."""
    itself = None if query.start is None else query.start.id
    nearest = next((hit for hit in results if hit.id != itself), None)
    comparable = results.metric == index.engine.index.metric
    return not comparable or nearest is None or not index.nearness.is_far(nearest.distance)


def _comparison(search: Search) -> Address:
    """The page that shows another ranking beside this one."""
    other, other_metric = other_side(search.index, search.metric)
    values: dict[str, Any] = {
        "k": url_values(search.query).get("k"),
        "left": search.index.name,
        "left_by": search.query.metric,
        "right": other.name,
        "right_by": None if other_metric == other.engine.index.metric else other_metric,
    }
    if search.record is not None:
        return Address(url_for("compare.by_id", id=search.record.id, **values))
    return Address(url_for("pages.home"), again=url_for("compare.by_upload", **values))
