"""Two rankings of one query side by side, with the images they share; helps to choose a layer or a metric."""

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
from searchengine.web.cards import Card, cards_of
from searchengine.web.choices import index_choices, other_side, short_title
from searchengine.web.engines import ServedEngine
from searchengine.web.pages import query_json
from searchengine.web.requests import (
    IndexBlueprint,
    RequestError,
    parse_query,
    this_engine,
    this_site,
    url_in,
    wants_json,
)
from searchengine.web.search import Search, waiting_page
from searchengine.web.uploads import Upload, UploadReader, read_upload

# Ranks an index by a metric (None: its own). Returns the hits, and the id of the image searched by if it is there.
Rank = Callable[[ServedEngine, str | None], tuple[Sequence[Hit], int | None]]

compare = IndexBlueprint("compare", __name__)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two rankings.

    Attributes:
        name: "left" or "right".
        by: the metric, None for that of the index.
        self_id: the id of the image searched by, if the index holds it.
        problem: why there is no ranking.
    """

    name: str
    engine: ServedEngine
    by: str | None
    hits: Sequence[Hit] = ()
    self_id: int | None = None
    problem: str | None = None

    @property
    def metric(self) -> str:
        """The metric used."""
        return self.by or self.engine.index.metric

    def cards(self, other_ranks: Sequence[int | None]) -> list[Card]:
        """Return the cards of this side, with their ranks on the other side and anchors unique on the page."""
        as_shares = rank_alike(self.metric, COSINE, normalized=self.engine.index.normalized)
        ranked = zip(cards_of(self.hits, as_shares=as_shares), other_ranks, strict=True)
        return [replace(card, anchor=f"{self.name}{card.id}", other_rank=rank) for card, rank in ranked]


@dataclass(frozen=True)
class Comparison:
    """Two rankings of one search, by an image of this index or by an upload."""

    search: Search
    sides: tuple[Side, Side]

    @cached_property
    def shared(self) -> tuple[list[int | None], list[int | None]]:
        """For each side, the rank of each image on the other side; see ``shared_ranks``."""
        left, right = ([hit.record for hit in side.hits] for side in self.sides)
        return shared_ranks(left, right)

    @property
    def count(self) -> int:
        """The number of images on both sides."""
        return sum(rank is not None for rank in self.shared[0])

    @property
    def alike(self) -> str:
        """Why both sides give the same order; empty if they do not."""
        if not self.count:  # the two indexes share no image
            return ""
        left, right = ((side.engine.spec, side.metric) for side in self.sides)
        return why_alike(left, right)

    @property
    def summary(self) -> str:
        """A sentence on what both sides share; empty if there is nothing to compare."""
        shown = max(len(side.hits) for side in self.sides)
        if any(side.problem for side in self.sides) or not shown:
            return ""
        if self.shared[0] == self.shared[1] == list(range(1, shown + 1)):
            return f"The same {shown} pictures in the same order."
        if self.count == shown:
            return f"The same {shown} pictures in a different order."
        return f"{self.count} of {shown} pictures are on both sides." if self.count else "No picture is on both sides."


@compare.get("/compare")
def by_id() -> ResponseReturnValue:
    """Compare two rankings for an image of this index."""
    key = request.args.get("upload")
    if key and "id" not in request.args and not wants_json():
        query = Query.of(b"", k=parse_query(request.args, upload=b"").k)
        return waiting_page(Search(this_engine(), query, {}, key=key))
    query = parse_query(request.args)
    if query.start is None or query.start.id is None:
        raise RequestError("A comparison needs a picture. Search with one, then choose “Compare” in the menu.")
    engine, k = this_engine(), query.k
    record = engine.index.records([query.start.id])[0]

    def rank(side: ServedEngine, metric: str | None) -> tuple[Sequence[Hit], int | None]:
        image_id = record.id if side is engine else side.index.find(record)
        source = _feature_of_file(side, record) if image_id is None else image_id
        return side.search(Query.of(source, k=k, metric=metric)), image_id

    return _answer(Search(engine, Query.of(record.id, k=k), {}, record), rank, _rankings(request.args))


@compare.post("/compare")
def by_upload() -> ResponseReturnValue:
    """Compare two rankings for an uploaded image."""
    settings = this_site().settings
    file = read_upload(request, settings.max_upload_bytes)
    reader = UploadReader(file, settings.max_upload_pixels, shown=not wants_json())
    query = Query.of(file.data, k=parse_query(request.form).k)
    rankings = _rankings(request.form)
    # At least one side must be able to read the upload; if neither can, the error is the answer.
    engine = next((engine for engine, _ in rankings if engine.spec.embeds), rankings[0][0])
    upload = reader.decode(engine)

    def rank(side: ServedEngine, metric: str | None) -> tuple[Sequence[Hit], int | None]:
        return side.search(Query.of(reader.embed(side), k=query.k, metric=metric)), None

    return _answer(Search(this_engine(), query, {}, upload=upload, key=file.key), rank, rankings)


def _rankings(values: Mapping[str, str]) -> list[tuple[ServedEngine, str | None]]:
    """Return the two indexes that a request names, each with its metric; raise RequestError if one is unknown."""
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
        raise RequestError(f"There is no index “{name}”. Available: {names}.")
    return engine


def _side(name: str, engine: ServedEngine, metric: str | None, rank: Rank) -> Side:
    """Rank one side; if its index cannot answer, the side says why."""
    by = None if metric == engine.index.metric else metric
    try:
        return Side(name, engine, by, *rank(engine, by))
    except (RequestError, ImageError) as error:
        return Side(name, engine, by, problem=str(error))


def _feature_of_file(engine: ServedEngine, record: ImageRecord) -> NDArray[np.float32]:
    """Return the (1, d) float32 feature of an image that an index does not hold, computed from its file."""
    if not engine.spec.embeds:
        raise RequestError(
            f"“{record.path}” is not in {engine.name}, and that index can only be searched by its own pictures."
        )
    if not record.has_file:
        raise RequestError(f"“{record.path}” is not in {engine.name}, and it has no file to search with.")
    try:
        upload = Upload(record.read(), record.path.rsplit("/", 1)[-1])
        # Its own index has accepted its size, so the limit for uploads does not apply.
        return UploadReader(upload, MAX_PIXELS).embed(engine)
    except ImageError as error:  # damaged since it was indexed
        raise RequestError(f"“{record.path}” is not in {engine.name}, and its file cannot be used. {error}") from error


def _answer(search: Search, rank: Rank, rankings: Sequence[tuple[ServedEngine, str | None]]) -> ResponseReturnValue:
    """Answer with a page or JSON."""
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
    values = search.values(search.query)
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
        kept=kept,  # carried along by a comparison by another picture
        values=values,
        collections=this_site().engines,
        metrics=[(metric, short_title(metric)) for metric in METRICS],
    )


def _next_k(shown: int, k: int, images: int) -> int:
    """Return the next larger k, or 0 if one page can show no more."""
    step = max(k, 30) if k < 120 else 120
    return min(k + step, MAX_K) if shown == k < min(images, MAX_K) else 0


def _back(search: Search, left: Side) -> str:
    """Return the address of the left ranking alone, or of this index's if the left one does not hold the image."""
    values = search.values(search.query)
    if search.record is not None and left.self_id is None:
        return search.address(search.query)
    by_id: dict[str, Any] = {} if left.self_id is None else {"id": left.self_id}
    return url_in(left.engine, "search.by_id", **{**values, **by_id, "metric": left.by})


def shared_ranks(
    left: Sequence[ImageRecord], right: Sequence[ImageRecord]
) -> tuple[list[int | None], list[int | None]]:
    """Match the images of two rankings one to one; return, for each side, their ranks on the other side or None.

    Images match by content hash, those with the same path first, or by path alone if one of the two has no hash.
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
    """Return why two extractors with their metrics give the same order for any query; empty if they do not."""
    (left_spec, left_metric), (right_spec, right_metric) = left, right
    if left == right:
        return "Both sides use the same features and the same metric, so their order is the same."
    if left_spec == right_spec:
        if rank_alike(left_metric, right_metric, normalized=left_spec.normalize == "l2"):
            titles = f"{metric_title(left_metric)} and {metric_title(right_metric)}"
            return f"These features have length 1, so {titles} give the same order."
    elif replace(left_spec, normalize="none") == replace(right_spec, normalize="none"):
        # The same features, but scaled to length 1 on one side, which makes no difference to the cosine.
        raw, unit = (left_metric, right_metric) if left_spec.normalize == "none" else (right_metric, left_metric)
        if raw == COSINE and rank_alike(COSINE, unit, normalized=True):
            return (
                f"The features differ only in length, which cosine distance ignores: it gives the same order as "
                f"{metric_title(unit)} on features of length 1."
            )
    return ""
