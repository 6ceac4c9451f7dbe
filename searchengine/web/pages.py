"""The first page and the results of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flask import Response, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray

from searchengine.errors import SearchEngineError
from searchengine.index.metrics import alike_sentence, metric_title
from searchengine.index.types import Hit, ImageRecord, IndexStatus
from searchengine.settings import MAX_K
from searchengine.web.api import wants_json
from searchengine.web.cards import Card, CardUrls, card_of, cards_of, cosine_is_score, query_style, relative
from searchengine.web.choices import (
    Address,
    Choice,
    FeedbackChoices,
    index_choices,
    metric_choices,
    other_side,
    rule_choices,
)
from searchengine.web.indexes import IndexBlueprint, ServedIndex, this_index, this_site
from searchengine.web.queries import Feedback, RequestError, parse_feedback, parse_id, parse_k, parse_metric
from searchengine.web.ranking import PredictedLabels, predict_labels
from searchengine.web.renditions import has_file, has_picture
from searchengine.web.uploads import DecodedUpload, UploadReader, read_upload, why_no_uploads

K_CHOICES = (10, 30, 60, 120, 240, MAX_K)

pages = IndexBlueprint("pages", __name__)


@dataclass(frozen=True)
class Page:
    """What a template shows: each field is a variable of it."""

    template: ClassVar[str]

    def render(self) -> str:
        """The page as HTML."""
        return render_template(self.template, **vars(self))


@dataclass(frozen=True)
class HomePage(Page):
    """The upload form, and images from the collection; ``more`` is how many a next page would show."""

    template: ClassVar[str] = "home.html"

    status: IndexStatus
    extractor: str
    cards: list[Card]
    k: int
    k_choices: list[int]
    more: int | None


@dataclass(frozen=True)
class QueryPage(Page):
    """What every page shows of its query, which is an image of the index, an upload, or neither.

    ``place`` is the style of the query's image; ``more`` the next larger k.
    """

    query: Card | None
    record: ImageRecord | None
    upload: DecodedUpload | None
    place: str
    file_gone: bool
    k: int
    k_choices: list[int]
    more: int | None
    indexes: list[Choice]


@dataclass(frozen=True)
class LikedCard:
    """An image that was liked or disliked."""

    card: Card
    liked: bool


@dataclass(frozen=True)
class ResultsPage(QueryPage):
    """A ranking.

    ``kept`` are the arguments that every address from here takes along; ``nothing_close``: even the nearest hit is far.
    """

    template: ClassVar[str] = "results.html"

    status: IndexStatus
    extractor: str
    metric: str
    cosine: bool
    alike: str
    cards: list[Card]
    kept: dict[str, Any]
    judged: Feedback
    judging: FeedbackChoices
    chosen: list[LikedCard]
    rules: list[Choice]
    metrics: list[list[Choice]]
    beside: Address
    predicted: PredictedLabels | None
    more_values: dict[str, Any]
    nothing_close: bool


@dataclass(frozen=True)
class Search:
    """A search as it was requested; ``judged`` are the records of what was liked and disliked."""

    index: ServedIndex
    k: int
    metric: str | None
    feedback: Feedback
    judged: dict[int, ImageRecord]
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
            return Address(url_for("pages.home"), again=url_for("pages.search_upload", **values))
        if self.record is None and not values.get("like") and not values.get("dislike"):
            return Address(url_for("pages.home"))
        return Address(url_for("pages.search", id=None if self.record is None else self.record.id, **values))

    def address_with(self, feedback: Feedback) -> Address:
        """The same search with other feedback."""
        return self.address(**feedback.url_values)

    def rank(self, query: int | NDArray[np.float32] | None) -> list[Hit]:
        """The answer to ``query``, an id or a (1, d) feature; None: to the feedback alone. QueryError."""
        engine, feedback = self.index.engine, self.feedback
        if feedback or query is None:
            return engine.recommend(feedback.liked, feedback.disliked, self.k, query=query, rule=feedback.rule)
        feature = engine.index.feature(query) if isinstance(query, int) else query
        return engine.index.search(feature, self.k, self.metric)[0]


@pages.get("/")
def home() -> str:
    """The first page."""
    index, settings = this_index().engine.index, this_site().settings
    k = parse_k(request.args.get("k"), settings.default_k)
    n = parse_k(request.args.get("n"), settings.sample)
    status = index.status()
    cards = [card_of(record) for record in index.sample(n)]
    more = min(2 * n, MAX_K, status.images)  # those shown already are among them
    return HomePage(
        status=status,
        extractor=status.extractor,
        cards=cards,
        k=k,
        k_choices=k_choices(k),
        more=more if more > len(cards) else None,
    ).render()


@pages.get("/search")
def search() -> ResponseReturnValue:
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
    feedback, judged = _existing(parse_feedback(request.args, image_id))
    search = Search(index, k, metric, feedback, judged, record=record)
    hits = search.rank(image_id)
    labels = None if image_id is None else predict_labels(index.engine, index.engine.index.feature(image_id))
    if wants_json():
        query = None if record is None else {"id": record.id, "path": record.path}
        return _results_json(query, search, hits, labels)
    return _results_page(search, hits, labels).render()


@pages.post("/search")
def search_upload() -> ResponseReturnValue:
    """A search by an uploaded image, and by what is liked and disliked."""
    index, settings = this_index(), this_site().settings
    reader = UploadReader(read_upload(request, settings.max_upload_bytes), settings.max_upload_pixels)
    k = parse_k(request.form.get("k"), settings.default_k)
    metric = parse_metric(request.form.get("metric"))
    feedback, judged = _existing(parse_feedback(request.form))
    upload, feature = reader.decode(index.engine), reader.embed(index.engine)
    search = Search(index, k, metric, feedback, judged, upload=upload)
    hits = search.rank(feature)
    labels = predict_labels(index.engine, feature)
    if wants_json():
        query = {"upload": upload.name, "width": upload.width, "height": upload.height}
        return _results_json(query, search, hits, labels)
    return _results_page(search, hits, labels).render()


def _existing(feedback: Feedback) -> tuple[Feedback, dict[int, ImageRecord]]:
    """The feedback on images that the index still holds, with their records."""
    known = this_index().engine.index.known((*feedback.liked, *feedback.disliked))
    records = {record.id: record for record in known}
    return feedback.among(records), records


def _results_json(
    query: dict[str, Any] | None, search: Search, hits: list[Hit], labels: PredictedLabels | None
) -> Response:
    """The shape of ``searchengine search --json``, with what else there is to say of the query."""
    more: dict[str, Any] = {}
    feedback = search.feedback
    if feedback:
        more = {"liked": feedback.liked, "disliked": feedback.disliked, "rule": feedback.rule_used}
    if labels is not None:
        more["predicted"] = labels.to_json()
    metric = None if feedback else search.metric_used
    return jsonify(query=query, metric=metric, **more, hits=[hit.to_dict() for hit in hits])


def _results_page(search: Search, hits: list[Hit], labels: PredictedLabels | None) -> ResultsPage:
    index, record, feedback, metric = search.index, search.record, search.feedback, search.metric_used
    status, normalized = index.engine.index.status(), index.engine.index.normalized
    cards = cards_of(hits, normalized=normalized, metric=metric)
    left_out = len(search.judged) + (record is not None) if feedback else 0
    more = next_k(len(hits), search.k, status.images - left_out)
    nearest = next((hit for hit in hits if record is None or hit.id != record.id), None)
    comparable = not feedback and metric == index.engine.index.metric
    return ResultsPage(
        query=None if record is None else card_of(record),
        record=record,
        upload=search.upload,
        place=style_of_query(record, search.upload),
        file_gone=is_file_gone(record),
        k=search.k,
        k_choices=k_choices(search.k),
        more=more,
        indexes=index_choices(record=record, uploaded=search.upload is not None, **search.kept),
        status=status,
        extractor=status.extractor,
        metric=metric_title(metric),
        cosine=cosine_is_score(metric, normalized=normalized),
        alike=alike_sentence(metric, normalized=normalized),
        cards=relative(cards) if feedback else cards,
        kept=search.kept,
        judged=feedback,
        judging=FeedbackChoices(feedback, search.address_with),
        chosen=[LikedCard(card_of(judged), id_ in feedback.liked) for id_, judged in search.judged.items()],
        rules=rule_choices(feedback, search.address_with),
        metrics=metric_choices(metric, lambda other: search.address(metric=other)),
        beside=_beside(search),
        predicted=labels,
        more_values={"id": None if record is None else record.id, **search.kept, **feedback.url_values, "k": more},
        nothing_close=comparable and nearest is not None and index.nearness.is_far(nearest.distance),
    )


def _beside(search: Search) -> Address:
    """The comparison of this ranking with another."""
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


@pages.app_context_processor
def common() -> dict[str, Any]:
    """What every template may use; a page may have its own values."""
    settings = this_site().settings
    try:
        no_pictures, indexes = why_no_uploads(this_index().engine.spec), index_choices()
    except SearchEngineError:  # a page that says what is wrong with an index does without it
        no_pictures, indexes = "This index cannot be read at present.", []
    return {
        "max_bytes": settings.max_upload_bytes,
        "default_k": settings.default_k,
        "k": settings.default_k,
        "k_choices": k_choices(settings.default_k),
        "no_pictures": no_pictures,
        "indexes": indexes,
    }


@pages.app_template_global("addresses")
def card_urls(index: ServedIndex | None = None, endpoint: str = "pages.search", **values: Any) -> CardUrls:
    """The addresses of the images of an index; None is this one."""
    return CardUrls(index, endpoint, values)


def style_of_query(record: ImageRecord | None, upload: DecodedUpload | None) -> str:
    """The proportions and tint of the query's image, for the page's style element."""
    if upload is not None:
        return query_style(upload.width, upload.height)
    if record is None:
        return ""
    return query_style(record.width or 4, record.height or 3, record.colour)


def is_file_gone(record: ImageRecord | None) -> bool:
    """Whether the file of an image is no longer where it was indexed."""
    return record is not None and has_picture(record) and not has_file(record)


def shown_k(k: int) -> int | None:
    """A k as addresses have it: the default is left out."""
    return None if k == this_site().settings.default_k else k


def k_choices(k: int) -> list[int]:
    """How many images can be asked for, ``k`` among them."""
    return sorted({*K_CHOICES, k})


def next_k(shown: int, k: int, images: int) -> int | None:
    """The next larger k, or None where nothing more can be shown."""
    step = max(k, 30) if k < 120 else 120
    return min(k + step, MAX_K) if shown == k < min(images, MAX_K) else None
