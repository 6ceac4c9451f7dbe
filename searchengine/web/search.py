"""A search: by an image of the index or an upload, by what is liked and disliked, or by both."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from flask import Response, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray

from searchengine.errors import IndexError_, QueryError
from searchengine.index.answers import copies_sentence, count_copies, search_by_id
from searchengine.index.metrics import alike_sentence, metric_title
from searchengine.index.types import Hit, ImageRecord, IndexStatus
from searchengine.learn.classifiers import Prediction
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
from searchengine.web.engines import Engine
from searchengine.web.indexes import IndexBlueprint, ServedIndex, this_index, this_site
from searchengine.web.pages import QueryPage, next_k, query_json, shown_k
from searchengine.web.queries import Feedback, RequestError, parse_feedback, parse_id, parse_k, parse_metric, wants_json
from searchengine.web.uploads import DecodedUpload, UploadReader, read_upload

_MAX_LABELS = 3
_MIN_PROBABILITY = 0.01  # of a label after the first
_UNUSABLE = "The classifier of this index cannot be used. Fit it again: searchengine classify --fit --index-dir DIR"
_log = logging.getLogger(__name__)

search = IndexBlueprint("search", __name__)


@dataclass(frozen=True, slots=True)
class PredictedLabels:
    """The most probable labels, best first; ``problem`` says why there are none.

    ``accuracy`` is the share of held-out images that were labelled right, None where none could be held out. ``stale``:
    images or labels have changed since the classifier was fitted.
    """

    best: tuple[Prediction, ...] = ()
    accuracy: float | None = None
    stale: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        if self.problem:
            return {"error": self.problem}
        labels = [{"label": prediction.label, "probability": prediction.probability} for prediction in self.best]
        return {"labels": labels, "accuracy": self.accuracy, "stale": self.stale}


@dataclass(frozen=True)
class Example:
    """An image that was liked or disliked."""

    card: Card
    liked: bool


@dataclass(frozen=True)
class ResultsPage(QueryPage):
    """A ranking.

    ``kept`` are the arguments that every link on the page takes along; ``comparison`` shows another ranking beside this
    one; ``nothing_close``: even the nearest hit is far; ``copies`` says it where most hits are copies.
    """

    template: ClassVar[str] = "results.html"

    status: IndexStatus
    extractor: str
    metric: str
    cosine: bool
    alike: str
    cards: list[Card]
    kept: dict[str, Any]
    feedback: Feedback
    feedback_links: FeedbackChoices
    examples: list[Example]
    rules: list[Choice]
    metrics: list[list[Choice]]
    comparison: Address
    predicted: PredictedLabels | None
    more_values: dict[str, Any]
    nothing_close: bool
    copies: str


@dataclass(frozen=True)
class Search:
    """A search as it was requested; ``examples`` are the images liked and disliked, by id."""

    index: ServedIndex
    k: int
    metric: str | None
    feedback: Feedback
    examples: dict[int, ImageRecord]
    record: ImageRecord | None = None
    upload: DecodedUpload | None = None

    @property
    def metric_used(self) -> str:
        """The metric that ranks where there is no feedback."""
        return self.metric or self.index.engine.index.metric

    @property
    def kept(self) -> dict[str, Any]:
        """The arguments of ``url_for`` that another search takes along; what is the default is left out."""
        metric = self.metric_used
        return {"k": shown_k(self.k), "metric": None if metric == self.index.engine.index.metric else metric}

    def address(self, **changes: Any) -> Address:
        """The same search with some arguments changed."""
        values = {**self.kept, **changes}
        if self.upload is not None:
            return Address(url_for("pages.home"), again=url_for("search.by_upload", **values))
        if self.record is None and not values.get("like") and not values.get("dislike"):
            return Address(url_for("pages.home"))
        return Address(url_for("search.by_id", id=None if self.record is None else self.record.id, **values))

    def address_with(self, feedback: Feedback) -> Address:
        """The same search with other feedback."""
        return self.address(**feedback.url_values)

    def rank(self, feature: NDArray[np.float32] | None) -> list[Hit]:
        """The answer to a (d,) or (1, d) feature and the feedback; None: to the feedback alone. QueryError."""
        engine, feedback = self.index.engine, self.feedback
        if feature is not None and not feedback:
            if self.record is not None:
                return search_by_id(engine.index, self.record.id, self.k, self.metric)
            return engine.index.search(feature, self.k, self.metric)[0]
        query = feature if self.record is None else self.record.id  # by its id, it is left out of the answer
        return engine.recommend(feedback.liked, feedback.disliked, self.k, query=query, rule=feedback.rule)


@search.get("/search")
def by_id() -> ResponseReturnValue:
    """A search by an image of the index, by what is liked and disliked, or by both."""
    if not request.args.keys() & {"id", "like", "dislike"}:
        # Also the address of an uploaded query, opened again.
        raise RequestError("No picture was named. An uploaded picture is not kept: choose it again.")
    image_id = parse_id(request.args.get("id"))
    if image_id is None and "id" in request.args:
        raise RequestError("The id of a picture must be a whole number from 0 up, as in /search?id=7.")
    index = this_index()
    k = parse_k(request.args.get("k"), this_site().settings.default_k)
    metric = parse_metric(request.args.get("metric"))
    record = None if image_id is None else index.engine.index.records([image_id])[0]
    feedback, examples = _existing(parse_feedback(request.args, image_id))
    feature = None if image_id is None else index.engine.index.feature(image_id)
    return _answer(Search(index, k, metric, feedback, examples, record=record), feature)


@search.post("/search")
def by_upload() -> ResponseReturnValue:
    """A search by an uploaded image, and by what is liked and disliked."""
    index, settings = this_index(), this_site().settings
    reader = UploadReader(read_upload(request, settings.max_upload_bytes), settings.max_upload_pixels)
    k = parse_k(request.form.get("k"), settings.default_k)
    metric = parse_metric(request.form.get("metric"))
    feedback, examples = _existing(parse_feedback(request.form))
    upload, feature = reader.decode(index.engine), reader.embed(index.engine)
    return _answer(Search(index, k, metric, feedback, examples, upload=upload), feature)


def _existing(feedback: Feedback) -> tuple[Feedback, dict[int, ImageRecord]]:
    """The feedback on images that the index still holds, with their records."""
    known = this_index().engine.index.known((*feedback.liked, *feedback.disliked))
    records = {record.id: record for record in known}
    return feedback.among(records), records


def _answer(search: Search, feature: NDArray[np.float32] | None) -> ResponseReturnValue:
    hits = search.rank(feature)
    labels = None if feature is None else predict_labels(search.index.engine, feature)
    if wants_json():
        return _results_json(search, hits, labels)
    return _results_page(search, hits, labels).render()


def _results_json(search: Search, hits: list[Hit], labels: PredictedLabels | None) -> Response:
    """As ``searchengine search --json`` prints it, with the query, the feedback and the predicted labels."""
    more: dict[str, Any] = {}
    feedback = search.feedback
    if feedback:
        more = {"liked": feedback.liked, "disliked": feedback.disliked, "rule": feedback.rule_used}
    if labels is not None:
        more["predicted"] = labels.to_json()
    if copies := count_copies(hits):
        more["copies"] = copies
    return jsonify(
        query=query_json(search.record, search.upload),
        metric=None if feedback else search.metric_used,
        **more,
        hits=[hit.to_dict() for hit in hits],
    )


def _results_page(search: Search, hits: list[Hit], labels: PredictedLabels | None) -> ResultsPage:
    index, record, feedback, metric = search.index, search.record, search.feedback, search.metric_used
    status, normalized = index.engine.index.status(), index.engine.index.normalized
    cards = cards_of(hits, normalized=normalized, metric=metric)
    left_out = len(search.examples) + (record is not None) if feedback else 0
    more = next_k(len(hits), search.k, status.images - left_out)
    nearest = next((hit for hit in hits if record is None or hit.id != record.id), None)
    comparable = not feedback and metric == index.engine.index.metric
    return ResultsPage(
        record=record,
        upload=search.upload,
        k=search.k,
        more=more,
        indexes=index_choices(record=record, uploaded=search.upload is not None, **search.kept),
        status=status,
        extractor=status.extractor,
        metric=metric_title(metric),
        cosine=cosine_is_score(metric, normalized=normalized),
        alike=alike_sentence(metric, normalized=normalized),
        cards=relative(cards) if feedback else cards,
        kept=search.kept,
        feedback=feedback,
        feedback_links=FeedbackChoices(feedback, search.address_with),
        examples=[Example(card_of(example), id_ in feedback.liked) for id_, example in search.examples.items()],
        rules=rule_choices(feedback, search.address_with),
        metrics=metric_choices(metric, lambda other: search.address(metric=other)),
        comparison=_comparison(search),
        predicted=labels,
        more_values={"id": None if record is None else record.id, **search.kept, **feedback.url_values, "k": more},
        nothing_close=comparable and nearest is not None and index.nearness.is_far(nearest.distance),
        copies=copies_sentence(hits),
    )


def _comparison(search: Search) -> Address:
    """The page that shows another ranking beside this one."""
    other, other_metric = other_side(search.index, search.metric_used)
    values = {
        "k": search.kept["k"],
        "left": search.index.name,
        "left_by": search.kept["metric"],
        "right": other.name,
        "right_by": None if other_metric == other.engine.index.metric else other_metric,
    }
    if search.record is not None:
        return Address(url_for("compare.by_id", id=search.record.id, **values))
    return Address(url_for("pages.home"), again=url_for("compare.by_upload", **values))


def predict_labels(engine: Engine, feature: NDArray[np.float32]) -> PredictedLabels | None:
    """The labels that the index's classifier predicts for a (d,) or (1, d) feature; None without a classifier."""
    try:
        classifier = engine.classifier()
        if classifier is None:
            return None
        labels = classifier.predict(feature)
    except (IndexError_, QueryError) as error:
        # The log names the file; the page names no path, and shows the search without a label.
        _warn_once(str(error))
        return PredictedLabels(problem=_UNUSABLE)
    best = labels[:1] + [label for label in labels[1:_MAX_LABELS] if label.probability >= _MIN_PROBABILITY]
    held_out = classifier.report.logistic
    return PredictedLabels(tuple(best), None if held_out is None else held_out.accuracy, classifier.stale)


@lru_cache(maxsize=32)
def _warn_once(sentence: str) -> None:
    _log.warning("%s", sentence)
