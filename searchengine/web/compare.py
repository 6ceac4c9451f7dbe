"""Two rankings of one query side by side, with what they share: how people choose a layer or a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from flask import Response, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray

from searchengine.errors import ImageError
from searchengine.extractors import ExtractorSpec
from searchengine.images import MAX_PIXELS
from searchengine.index.metrics import COSINE, METRICS, check_metric, metric_title, rank_alike
from searchengine.index.types import Hit, ImageRecord
from searchengine.query import Query
from searchengine.web.bar import Chip, QueryBar
from searchengine.web.cards import Card, cards_of, cosine_is_score
from searchengine.web.choices import index_choices, other_side, short_title
from searchengine.web.indexes import IndexBlueprint, ServedIndex, this_index, this_site, url_in
from searchengine.web.pages import QueryPage, WaitingPage, next_k, query_json
from searchengine.web.queries import RequestError, asked, wants_json
from searchengine.web.uploads import DecodedUpload, Upload, UploadReader, read_upload

Rank = Callable[
    [ServedIndex, str | None], tuple[Sequence[Hit], int | None]
]  # also the image searched by, if it holds it

compare = IndexBlueprint("compare", __name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """The images that are in both of two rankings: for each rank on one side the rank on the other, or None."""

    left: tuple[int | None, ...]
    right: tuple[int | None, ...]

    @property
    def count(self) -> int:
        """How many images are in both."""
        return sum(rank is not None for rank in self.left)

    @property
    def same_order(self) -> bool:
        """Whether both hold the same images in the same order."""
        return len(self.left) == len(self.right) and self.left == tuple(range(1, len(self.left) + 1))


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two rankings; ``problem`` says why there is none. ``by`` is the metric, None for the index's own.

    ``images`` is the size of the collection; ``self_id`` the image searched by, where this index holds it.
    """

    name: str
    collection: ServedIndex
    metric: str
    by: str | None
    hits: Sequence[Hit]
    self_id: int | None
    cards: list[Card]
    images: int
    problem: str | None

    @property
    def extractor(self) -> str:
        """The extractor in words."""
        return self.collection.title

    @property
    def records(self) -> list[ImageRecord]:
        """The images, in rank order."""
        return [hit.record for hit in self.hits]


@dataclass(frozen=True)
class ComparePage(QueryPage):
    """Both sides; every link on the page takes the arguments ``kept`` along, ``values`` say of what and how much."""

    template: ClassVar[str] = "compare.html"

    sides: list[Side]
    summary: str
    alike: str
    back: str
    more: str | None
    kept: dict[str, Any]
    values: dict[str, Any]
    collections: tuple[ServedIndex, ...]
    metrics: list[tuple[str, str]]


@dataclass(frozen=True)
class Comparison:
    """Two rankings of one query: an image of this index, or an upload, which ``key`` names."""

    left: Side
    right: Side
    k: int
    record: ImageRecord | None = None
    upload: DecodedUpload | None = None
    key: str = ""

    @property
    def sides(self) -> tuple[Side, Side]:
        """Left and right."""
        return self.left, self.right

    @property
    def shared(self) -> Shared:
        """The images on both sides."""
        return shared(self.left.records, self.right.records)

    @property
    def alike(self) -> str:
        """Why both rank alike, or nothing."""
        if not self.shared.count:  # the two hold different images, and rank nothing in common
            return ""
        left, right = ((side.collection.engine.spec, side.metric) for side in self.sides)
        return why_alike(left, right)


@compare.get("/compare")
def by_id() -> ResponseReturnValue:
    """A comparison by an image of this index."""
    key = request.args.get("upload")
    if key and "id" not in request.args and not wants_json():
        home = url_for("pages.home")
        return WaitingPage(
            None, QueryBar([Chip("start", "Your picture", home, key=key)]), index_choices(), key
        ).render()
    query = asked(request.args)
    if query.start is None or query.start.id is None:
        raise RequestError("Two rankings need a picture. Search by one, then choose “Compare” in the menu.")
    index, k = this_index(), query.k
    record = index.engine.index.records([query.start.id])[0]

    def rank(side: ServedIndex, metric: str | None) -> tuple[Sequence[Hit], int | None]:
        image_id = record.id if side is index else side.engine.index.find(record)
        if image_id is not None:
            return side.engine.search(Query.of(image_id, k=k, metric=metric)), image_id
        return side.engine.search(Query.of(_feature_of_file(side, record), k=k, metric=metric)), None

    comparison = Comparison(*_sides(rank, _rankings(request.args)), k, record=record)
    if wants_json():
        return _to_json(comparison)
    return _page(comparison).render()


@compare.post("/compare")
def by_upload() -> ResponseReturnValue:
    """A comparison by an uploaded image."""
    settings = this_site().settings
    file = read_upload(request, settings.max_upload_bytes)
    reader = UploadReader(file, settings.max_upload_pixels, shown=not wants_json())
    k = asked(request.form).k
    rankings = _rankings(request.form)
    # One side must be able to read the upload; where both refuse it, the refusal is the answer.
    index = next((index for index, _ in rankings if index.takes_uploads), rankings[0][0])
    upload = reader.decode(index.engine)

    def rank(side: ServedIndex, metric: str | None) -> tuple[Sequence[Hit], int | None]:
        return side.engine.search(Query.of(reader.embed(side.engine), k=k, metric=metric)), None

    comparison = Comparison(*_sides(rank, rankings), k, upload=upload, key=file.key)
    if wants_json():
        return _to_json(comparison)
    return _page(comparison).render()


def _rankings(values: Mapping[str, str]) -> list[tuple[ServedIndex, str | None]]:
    """The two indexes that a request names, each with its metric; RequestError."""
    left = _index_named(values.get("left")) or this_index()
    left_by = _metric(values.get("left_by"))
    right, right_by = _index_named(values.get("right")), _metric(values.get("right_by"))
    if right is None:
        right, metric = other_side(left, left_by or left.engine.index.metric)
        right_by = right_by or metric
    return [(left, left_by), (right, right_by)]


def _index_named(name: str | None) -> ServedIndex | None:
    index = this_site().get(name)
    if name and index is None:
        names = ", ".join(index.name for index in this_site().indexes)
        raise RequestError(f"There is no index “{name}” here. There are: {names}.")
    return index


def _sides(rank: Rank, rankings: Sequence[tuple[ServedIndex, str | None]]) -> tuple[Side, Side]:
    left, right = (
        _side(name, rank, index, metric) for name, (index, metric) in zip(("left", "right"), rankings, strict=True)
    )
    return left, right


def _side(name: str, rank: Rank, index: ServedIndex, metric: str | None) -> Side:
    """One side; an index that cannot answer says why."""
    collection = index.engine.index
    metric = metric or collection.metric
    by = None if metric == collection.metric else metric
    problem = None
    try:
        hits, self_id = rank(index, by)
    except (RequestError, ImageError) as error:
        problem, hits, self_id = str(error), [], None
    cards = cards_of(hits, as_shares=cosine_is_score(metric, normalized=collection.normalized))
    return Side(name, index, metric, by, hits, self_id, cards, len(collection), problem)


def _feature_of_file(index: ServedIndex, record: ImageRecord) -> NDArray[np.float32]:
    """The (1, d) float32 feature of an image that ``index`` does not hold, made from its file; RequestError."""
    if not index.takes_uploads:
        raise RequestError(f"“{record.path}” is not in {index.name}, which can only be searched by its own rows.")
    if not record.has_file:
        raise RequestError(f"“{record.path}” is not in {index.name}, and there is no file to search by.")
    try:
        upload = Upload(record.read(), record.path.rsplit("/", 1)[-1])
        # Its own index accepted it at this size: the limit for uploads does not apply.
        return UploadReader(upload, MAX_PIXELS).embed(index.engine)
    except ImageError as error:  # damaged since it was indexed
        reason = f"“{record.path}” is not in {index.name}, and its file cannot be searched by. {error}"
        raise RequestError(reason) from error


def _to_json(comparison: Comparison) -> Response:
    return jsonify(
        query=query_json(comparison.record, comparison.upload),
        shared=comparison.shared.count,
        rank_alike=bool(comparison.alike),
        sides=[
            {
                "index": side.collection.name,
                "metric": side.metric,
                "error": side.problem,
                "hits": [hit.to_dict() for hit in side.hits],
            }
            for side in comparison.sides
        ],
    )


def _page(comparison: Comparison) -> ComparePage:
    left, right = comparison.sides
    record, k = comparison.record, comparison.k
    both, alike = comparison.shared, comparison.alike
    kept: dict[str, Any] = {
        "left": left.collection.name,
        "left_by": left.by,
        "right": right.collection.name,
        "right_by": right.by,
    }
    picture: dict[str, Any] = {"upload": comparison.key} if record is None else {"id": record.id}
    larger = max(next_k(len(side.cards), k, side.images) or 0 for side in comparison.sides)
    back = _back(left, k, record, comparison.key)
    return ComparePage(
        record=record,
        bar=_bar(comparison),
        indexes=index_choices(current=False, record=record, upload=comparison.key, k=_shown(k)),
        sides=[_marked(left, both.left), _marked(right, both.right)],
        summary=_summary(comparison.sides, both),
        alike=alike,
        back=back,
        more=url_for("compare.by_id", **picture, k=larger, **kept) if larger else None,
        kept={**kept, "k": _shown(k)},
        values={**picture, "k": _shown(k)},
        collections=this_site().indexes,
        metrics=[(metric, short_title(metric)) for metric in METRICS],
    )


def _bar(comparison: Comparison) -> QueryBar:
    """The picture alone: words and likes have no part in a comparison."""
    home = url_for("pages.home")
    if comparison.record is not None:
        return QueryBar([Chip.of(comparison.record, home)], fields={"id": [str(comparison.record.id)]})
    assert comparison.upload is not None
    chip = Chip("start", comparison.upload.name, home, picture=comparison.upload.picture, key=comparison.key)
    return QueryBar([chip], fields={"upload": [comparison.key]})


def _shown(k: int) -> int | None:
    """A k as addresses have it: the default is left out."""
    return None if k == this_site().settings.default_k else k


def _metric(name: str | None) -> str | None:
    return check_metric(name) if name else None


def _back(left: Side, k: int, record: ImageRecord | None, key: str) -> str:
    """The ranking on the left by itself."""
    values: dict[str, Any] = {"k": _shown(k), "metric": left.by}
    if record is None:
        return url_in(left.collection, "search.by_id", upload=key, **values)
    if left.self_id is None:  # that index does not hold the image
        return url_for("search.by_id", id=record.id, k=values["k"])
    return url_in(left.collection, "search.by_id", id=left.self_id, **values)


def _marked(side: Side, other_ranks: Sequence[int | None]) -> Side:
    """A side whose cards show their rank on the other; their anchors differ, since both may hold the same id."""
    cards = [
        replace(card, anchor=f"{side.name}{card.id}", other=rank)
        for card, rank in zip(side.cards, other_ranks, strict=True)
    ]
    return replace(side, cards=cards)


def _summary(sides: Sequence[Side], both: Shared) -> str:
    shown = max(len(side.cards) for side in sides)
    if any(side.problem for side in sides) or shown == 0:
        return ""
    if both.same_order:
        return f"The same {shown} pictures in the same order."
    if both.count == shown:
        return f"The same {shown} pictures, in another order."
    if both.count == 0:
        return "No picture is on both sides."
    return f"{both.count} of {shown} pictures are on both sides."


def shared(left: Sequence[ImageRecord], right: Sequence[ImageRecord]) -> Shared:
    """Match images by content hash, or by path where one of the two has none; each with at most one other."""
    by_hash: dict[str, list[int]] = {}
    by_path: dict[str, list[int]] = {}
    for position, record in enumerate(right):
        if record.content_hash is not None:
            by_hash.setdefault(record.content_hash, []).append(position)
        by_path.setdefault(record.path, []).append(position)
    left_ranks: list[int | None] = [None] * len(left)
    right_ranks: list[int | None] = [None] * len(right)
    for position, record in enumerate(left):
        candidates = list(by_hash.get(record.content_hash, ())) if record.content_hash is not None else []
        # Of several files with the same content, the one with the same path comes first.
        candidates.sort(key=lambda other: right[other].path != record.path)
        candidates += [
            other for other in by_path.get(record.path, ()) if None in (record.content_hash, right[other].content_hash)
        ]
        match = next((other for other in candidates if right_ranks[other] is None), None)
        if match is not None:
            left_ranks[position], right_ranks[match] = match + 1, position + 1
    return Shared(tuple(left_ranks), tuple(right_ranks))


def why_alike(left: tuple[ExtractorSpec, str], right: tuple[ExtractorSpec, str]) -> str:
    """Why two extractors, each with its metric, rank alike whatever the query; empty where they do not."""
    (left_spec, left_metric), (right_spec, right_metric) = left, right
    if left_spec == right_spec:
        if left_metric == right_metric:
            return "Both sides rank by the same features and the same metric, so they rank alike."
        if rank_alike(left_metric, right_metric, normalized=left_spec.normalize == "l2"):
            return (
                f"These features have length 1, so {metric_title(left_metric)} and {metric_title(right_metric)} "
                "rank alike."
            )
        return ""
    if replace(left_spec, normalize="none") != replace(right_spec, normalize="none"):
        return ""
    # The same features, on one side scaled to length 1, which the cosine ignores.
    raw_metric, unit_metric = (
        (left_metric, right_metric) if left_spec.normalize == "none" else (right_metric, left_metric)
    )
    if raw_metric == COSINE and rank_alike(COSINE, unit_metric, normalized=True):
        return (
            f"The features differ in length alone, which cosine distance does not see: it ranks alike with "
            f"{metric_title(unit_metric)} on features of length 1."
        )
    return ""
