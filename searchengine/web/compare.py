"""Two rankings of one query side by side, with what they share: how people choose a layer or a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from flask import jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue
from numpy.typing import NDArray

from searchengine.errors import ImageError
from searchengine.extractors import ExtractorSpec
from searchengine.images import MAX_PIXELS
from searchengine.index.metrics import COSINE, METRICS, check_metric, metric_title, rank_alike
from searchengine.index.types import Hit, ImageRecord
from searchengine.query import Query
from searchengine.settings import MAX_K
from searchengine.web.cards import Card, cards_of, cosine_is_score
from searchengine.web.choices import index_choices, other_side, short_title
from searchengine.web.engines import ServedEngine
from searchengine.web.indexes import IndexBlueprint, this_engine, this_site, url_in
from searchengine.web.pages import query_json
from searchengine.web.queries import RequestError, asked, wants_json
from searchengine.web.search import Search, waiting_page
from searchengine.web.uploads import Upload, UploadReader, read_upload

# In an index, by a metric (None: its own): the hits, and the image searched by if the index holds it.
Rank = Callable[[ServedEngine, str | None], tuple[Sequence[Hit], int | None]]

compare = IndexBlueprint("compare", __name__)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two rankings, "left" or "right"; ``problem`` says why there is none.

    ``by`` is its metric, None for that of the index; ``self_id`` the image searched by, where the index holds it.
    """

    name: str
    engine: ServedEngine
    by: str | None
    hits: Sequence[Hit] = ()
    self_id: int | None = None
    problem: str | None = None

    @property
    def metric(self) -> str:
        """The metric that ranks."""
        return self.by or self.engine.index.metric

    def cards(self, other_ranks: Sequence[int | None]) -> list[Card]:
        """Its images, each with its rank on the other side; their anchors differ from those of the other side."""
        as_shares = cosine_is_score(self.metric, normalized=self.engine.index.normalized)
        ranked = zip(cards_of(self.hits, as_shares=as_shares), other_ranks, strict=True)
        return [replace(card, anchor=f"{self.name}{card.id}", other=rank) for card, rank in ranked]


@dataclass(frozen=True)
class Comparison:
    """Two rankings, left and right, of one search: by an image of this index, or by an upload."""

    search: Search
    sides: tuple[Side, Side]

    @cached_property
    def shared(self) -> tuple[list[int | None], list[int | None]]:
        """See ``shared_ranks``."""
        left, right = ([hit.record for hit in side.hits] for side in self.sides)
        return shared_ranks(left, right)

    @property
    def count(self) -> int:
        """How many images are on both sides."""
        return sum(rank is not None for rank in self.shared[0])

    @property
    def alike(self) -> str:
        """Why both rank alike, or nothing."""
        if not self.count:  # the two hold different images, and rank nothing in common
            return ""
        left, right = ((side.engine.spec, side.metric) for side in self.sides)
        return why_alike(left, right)

    @property
    def summary(self) -> str:
        """How much is on both sides, in a sentence; nothing where there is too little to compare."""
        shown = max(len(side.hits) for side in self.sides)
        if any(side.problem for side in self.sides) or not shown:
            return ""
        if self.shared[0] == self.shared[1] == list(range(1, shown + 1)):
            return f"The same {shown} pictures in the same order."
        if self.count == shown:
            return f"The same {shown} pictures, in another order."
        return f"{self.count} of {shown} pictures are on both sides." if self.count else "No picture is on both sides."


@compare.get("/compare")
def by_id() -> ResponseReturnValue:
    """A comparison by an image of this index."""
    key = request.args.get("upload")
    if key and "id" not in request.args and not wants_json():
        return waiting_page(Search(this_engine(), Query.of(b"", k=asked(request.args, upload=b"").k), {}, key=key))
    query = asked(request.args)
    if query.start is None or query.start.id is None:
        raise RequestError("Two rankings need a picture. Search by one, then choose “Compare” in the menu.")
    engine, k = this_engine(), query.k
    record = engine.index.records([query.start.id])[0]

    def rank(side: ServedEngine, metric: str | None) -> tuple[Sequence[Hit], int | None]:
        image_id = record.id if side is engine else side.index.find(record)
        source = _feature_of_file(side, record) if image_id is None else image_id
        return side.search(Query.of(source, k=k, metric=metric)), image_id

    return _answer(Search(engine, Query.of(record.id, k=k), {}, record), rank, _rankings(request.args))


@compare.post("/compare")
def by_upload() -> ResponseReturnValue:
    """A comparison by an uploaded image."""
    settings = this_site().settings
    file = read_upload(request, settings.max_upload_bytes)
    reader = UploadReader(file, settings.max_upload_pixels, shown=not wants_json())
    query = Query.of(file.data, k=asked(request.form).k)
    rankings = _rankings(request.form)
    # One side must be able to read the upload; where both refuse it, the refusal is the answer.
    engine = next((engine for engine, _ in rankings if engine.takes_uploads), rankings[0][0])
    upload = reader.decode(engine)

    def rank(side: ServedEngine, metric: str | None) -> tuple[Sequence[Hit], int | None]:
        return side.search(Query.of(reader.embed(side), k=query.k, metric=metric)), None

    return _answer(Search(this_engine(), query, {}, upload=upload, key=file.key), rank, rankings)


def _rankings(values: Mapping[str, str]) -> list[tuple[ServedEngine, str | None]]:
    """The two indexes that a request names, each with its metric; RequestError."""
    left = _engine_named(values.get("left")) or this_engine()
    left_by, right_by = (
        check_metric(name) if (name := values.get(field)) else None for field in ("left_by", "right_by")
    )
    right = _engine_named(values.get("right"))
    if right is None:
        right, metric = other_side(left, left_by or left.index.metric)
        right_by = right_by or metric
    return [(left, left_by), (right, right_by)]


def _engine_named(name: str | None) -> ServedEngine | None:
    engine = this_site().get(name)
    if name and engine is None:
        names = ", ".join(engine.name for engine in this_site().engines)
        raise RequestError(f"There is no index “{name}” here. There are: {names}.")
    return engine


def _side(name: str, engine: ServedEngine, metric: str | None, rank: Rank) -> Side:
    """One side; an index that cannot answer says why."""
    by = None if metric == engine.index.metric else metric
    try:
        return Side(name, engine, by, *rank(engine, by))
    except (RequestError, ImageError) as error:
        return Side(name, engine, by, problem=str(error))


def _feature_of_file(engine: ServedEngine, record: ImageRecord) -> NDArray[np.float32]:
    """The (1, d) float32 feature of an image that an index does not hold, made from its file; RequestError."""
    if not engine.takes_uploads:
        raise RequestError(f"“{record.path}” is not in {engine.name}, which can only be searched by its own rows.")
    if not record.has_file:
        raise RequestError(f"“{record.path}” is not in {engine.name}, and there is no file to search by.")
    try:
        upload = Upload(record.read(), record.path.rsplit("/", 1)[-1])
        # Its own index accepted it at this size: the limit for uploads does not apply.
        return UploadReader(upload, MAX_PIXELS).embed(engine)
    except ImageError as error:  # damaged since it was indexed
        reason = f"“{record.path}” is not in {engine.name}, and its file cannot be searched by. {error}"
        raise RequestError(reason) from error


def _answer(search: Search, rank: Rank, rankings: Sequence[tuple[ServedEngine, str | None]]) -> ResponseReturnValue:
    """A comparison as JSON or as a page."""
    left, right = (_side(name, *ranking, rank) for name, ranking in zip(("left", "right"), rankings, strict=True))
    comparison = Comparison(search, (left, right))
    if not wants_json():
        return _page(comparison)
    sides = [
        {
            "index": side.engine.name,
            "metric": side.metric,
            "error": side.problem,
            "hits": [hit.to_dict() for hit in side.hits],
        }
        for side in comparison.sides
    ]
    query = query_json(search.record, search.upload)
    return jsonify(query=query, shared=comparison.count, rank_alike=bool(comparison.alike), sides=sides)


def _page(comparison: Comparison) -> str:
    search, (left, right) = comparison.search, comparison.sides
    values = search.values(search.query)  # of what, and how much
    kept = {
        "left": left.engine.name,
        "left_by": left.by,
        "right": right.engine.name,
        "right_by": right.by,
        "k": values.get("k"),
    }
    larger = max(_next_k(len(side.hits), search.query.k, len(side.engine.index)) for side in comparison.sides)
    return render_template(
        "compare.html",
        comparison=comparison,
        bar=search.bar,
        indexes=index_choices(current=False, record=search.record, upload=search.key, k=kept["k"]),
        sides=list(zip(comparison.sides, map(Side.cards, comparison.sides, comparison.shared), strict=True)),
        back=_back(search, left),
        more=url_for("compare.by_id", **{**values, **kept, "k": larger}) if larger else None,
        kept=kept,  # what a comparison by another picture takes along
        values=values,
        collections=this_site().engines,
        metrics=[(metric, short_title(metric)) for metric in METRICS],
    )


def _next_k(shown: int, k: int, images: int) -> int:
    """The next larger k, or 0 where nothing more can be shown on one page."""
    step = max(k, 30) if k < 120 else 120
    return min(k + step, MAX_K) if shown == k < min(images, MAX_K) else 0


def _back(search: Search, left: Side) -> str:
    """The ranking on the left by itself; that of this index where the one on the left does not hold the image."""
    values = search.values(search.query)
    if search.record is not None and left.self_id is None:
        return search.address(search.query)
    by_id: dict[str, Any] = {} if left.self_id is None else {"id": left.self_id}
    return url_in(left.engine, "search.by_id", **{**values, **by_id, "metric": left.by})


def shared_ranks(
    left: Sequence[ImageRecord], right: Sequence[ImageRecord]
) -> tuple[list[int | None], list[int | None]]:
    """The images on both sides: for each rank on one side the rank on the other, or None; each has at most one other.

    They are matched by content hash, files of the same path first, or by path where one of the two has no hash.
    """

    def likeness(record: ImageRecord, other: ImageRecord) -> int:
        same_path, hashes = record.path == other.path, {record.content_hash, other.content_hash}
        return int(same_path) if None in hashes else 2 * (len(hashes) == 1) * (1 + same_path)

    left_ranks: list[int | None] = [None] * len(left)
    right_ranks: list[int | None] = [None] * len(right)
    for position, record in enumerate(left):
        free = [other for other, rank in enumerate(right_ranks) if rank is None]
        best = max(free, key=lambda other: likeness(record, right[other]), default=None)
        if best is not None and likeness(record, right[best]):
            left_ranks[position], right_ranks[best] = best + 1, position + 1
    return left_ranks, right_ranks


def why_alike(left: tuple[ExtractorSpec, str], right: tuple[ExtractorSpec, str]) -> str:
    """Why two extractors, each with its metric, rank alike whatever the query; empty where they do not."""
    (left_spec, left_metric), (right_spec, right_metric) = left, right
    if left == right:
        return "Both sides rank by the same features and the same metric, so they rank alike."
    if left_spec == right_spec:
        if rank_alike(left_metric, right_metric, normalized=left_spec.normalize == "l2"):
            titles = f"{metric_title(left_metric)} and {metric_title(right_metric)}"
            return f"These features have length 1, so {titles} rank alike."
    elif replace(left_spec, normalize="none") == replace(right_spec, normalize="none"):
        # The same features, on one side scaled to length 1, which the cosine ignores.
        raw, unit = (left_metric, right_metric) if left_spec.normalize == "none" else (right_metric, left_metric)
        if raw == COSINE and rank_alike(COSINE, unit, normalized=True):
            return (
                f"The features differ in length alone, which cosine distance does not see: it ranks alike with "
                f"{metric_title(unit)} on features of length 1."
            )
    return ""
