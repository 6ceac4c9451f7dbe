"""Two rankings of one query side by side, with what they share: this is how people choose a layer or a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request, url_for

from searchengine.errors import ImageError
from searchengine.index.metrics import METRICS
from searchengine.index.types import ImageRecord
from searchengine.settings import Settings
from searchengine.web.answers import wants_json
from searchengine.web.asking import Ranking, UploadReader, rank_feature, rank_foreign
from searchengine.web.cards import Card, card_of, cards_of
from searchengine.web.choices import index_choices, other_side
from searchengine.web.incoming import RequestError, parse_id, parse_k, parse_metric, read_upload
from searchengine.web.likeness import Shared, shared, short_title, why_alike
from searchengine.web.pages import k_choices, more_than, place_of
from searchengine.web.queries import UploadedQuery
from searchengine.web.renditions import file_is_there, has_picture
from searchengine.web.served import Collection, Collections, Views, address_in


@dataclass(frozen=True, slots=True)
class Side:
    """One ranking as the page shows it; ``problem`` says why there is none. ``by`` is None for the index's own."""

    name: str
    collection: Collection
    metric: str
    by: str | None
    cards: list[Card]
    self_id: int | None
    images: int
    problem: str | None

    @property
    def extractor(self) -> str:
        """The extractor, for people."""
        return self.collection.engine.extractor_title


Ask = Callable[[Collection, str | None], Ranking]


def blueprint(collection: Collection, collections: Collections, settings: Settings) -> Blueprint:
    """``/compare``; the picture is one of this index, or comes with the request."""
    compare, views = Blueprint("compare", __name__), _Comparing(collection, collections, settings)
    compare.get("/compare")(views.by_id)
    compare.post("/compare")(views.by_upload)
    return compare


class _Comparing(Views):
    """The comparisons of one index, which is on the left unless another is named."""

    def by_id(self) -> Response:
        image_id = parse_id(request.args.get("id"))
        if image_id is None:
            raise RequestError("No picture was named. An uploaded picture is not kept: choose it again.")
        record = self.engine.record(image_id)
        k = parse_k(request.args.get("k"), self.settings.default_k)

        def ask(side: Collection, metric: str | None) -> Ranking:
            return rank_foreign(side, self.collection, record, k, metric)

        return self._answer({"id": record.id, "path": record.path}, ask, k, request.args, record=record)

    def by_upload(self) -> Response:
        upload = read_upload(request, self.settings.max_upload_bytes)
        reader = UploadReader(upload, self.settings.max_upload_pixels)
        k = parse_k(request.form.get("k"), self.settings.default_k)
        sides = self._sides(request.form)
        # Something must show the picture; a page of two refusals is the refusal.
        first = next((side for side, _ in sides if side.takes_pictures), sides[0][0])
        query = reader.read(first)

        def ask(side: Collection, metric: str | None) -> Ranking:
            return rank_feature(side, reader.embed(side), k, metric)

        about = {"upload": query.name, "width": query.width, "height": query.height}
        return self._answer(about, ask, k, request.form, upload=query)

    def _sides(self, given: Mapping[str, str]) -> list[tuple[Collection, str | None]]:
        """The two indexes with the metrics named for them; RequestError."""
        left = self._named(given.get("left")) or self.collection
        left_by = parse_metric(given.get("left_by"))
        right, right_by = self._named(given.get("right")), parse_metric(given.get("right_by"))
        if right is None:
            right, metric = other_side(left, self.collections, left_by or left.engine.metric)
            right_by = right_by or metric
        return [(left, left_by), (right, right_by)]

    def _named(self, name: str | None) -> Collection | None:
        found = self.collections.get(name)
        if name and found is None:
            there = ", ".join(one.name for one in self.collections.all)
            raise RequestError(f"There is no index “{name}” here. There are: {there}.")
        return found

    def _ranked(self, ask: Ask, given: Mapping[str, str]) -> tuple[list[Side], list[Ranking]]:
        """Both sides; one that cannot be asked says why."""
        sides, rankings = [], []
        for name, (side, named) in zip(("left", "right"), self._sides(given), strict=True):
            metric = named or side.engine.metric
            problem = None
            try:
                ranking = ask(side, None if metric == side.engine.metric else metric)
            except (RequestError, ImageError) as error:
                problem, ranking = str(error), Ranking([], [], None)
            cards = cards_of(ranking.hits, ranking.records, normalized=side.engine.normalized, metric=metric)
            by = None if metric == side.engine.metric else metric
            images = side.engine.status().images
            sides.append(Side(name, side, metric, by, cards, ranking.self_id, images, problem))
            rankings.append(ranking)
        return sides, rankings

    def _answer(
        self,
        about: dict[str, Any],
        ask: Ask,
        k: int,
        given: Mapping[str, str],
        *,
        record: ImageRecord | None = None,
        upload: UploadedQuery | None = None,
    ) -> Response:
        sides, rankings = self._ranked(ask, given)
        left, right = sides
        common = shared(rankings[0].records, rankings[1].records)
        alike = ""
        if common.count:  # else the two hold different pictures, and nothing is ranked by both
            alike = why_alike((left.collection.engine.spec, left.metric), (right.collection.engine.spec, right.metric))
        if wants_json():
            return _json(about, sides, rankings, common, alike=bool(alike))
        kept = {
            "left": left.collection.name,
            "left_by": left.by,
            "right": right.collection.name,
            "right_by": right.by,
        }
        shown_k = None if k == self.settings.default_k else k
        more = max((more_than(len(side.cards), k, side.images) or 0 for side in sides), default=0)
        action = url_for("compare.by_id") if record is not None else url_for("compare.by_upload")
        return Response(
            render_template(
                "compare.html",
                place=place_of(record, upload),
                query=card_of(record) if record else None,
                record=record,
                file_gone=record is not None and has_picture(record) and not file_is_there(record),
                upload=upload,
                sides=[
                    replace(side, cards=_marked(side, places))
                    for side, places in zip(sides, (common.left, common.right), strict=True)
                ],
                common=common,
                summary=_summary(common, sides, alike),
                alike=alike,
                back=self._back(left, k, record),
                action=action,
                kept=kept,
                kept_k=shown_k,
                collections=self.collections.all,
                metrics=[(metric, short_title(metric)) for metric in METRICS],
                k=k,
                k_choices=k_choices(k),
                more=more or None,
                indexes=index_choices(
                    self.collection,
                    self.collections,
                    current=False,
                    record=record,
                    uploaded=upload is not None,
                    k=shown_k,
                ),
            )
        )

    def _back(self, left: Side, k: int, record: ImageRecord | None) -> dict[str, str | None]:
        """The ranking on the left by itself."""
        values = {"k": None if k == self.settings.default_k else k, "metric": left.by}
        if record is None:
            home = address_in(left.collection, self.collection, "pages.home")
            return {
                "href": home,
                "again": address_in(left.collection, self.collection, "pages.search_upload", **values),
            }
        if left.self_id is None:  # the picture is not in that index
            return {"href": url_for("pages.search", id=record.id, k=values["k"]), "again": None}
        return {
            "href": address_in(left.collection, self.collection, "pages.search", id=left.self_id, **values),
            "again": None,
        }


def _json(
    about: dict[str, Any], sides: list[Side], rankings: list[Ranking], common: Shared, *, alike: bool
) -> Response:
    return jsonify(
        query=about,
        shared=common.count,
        rank_alike=alike,
        sides=[
            {
                "index": side.collection.name,
                "metric": side.metric,
                "error": side.problem,
                "hits": [hit.to_dict() for hit in ranking.hits],
            }
            for side, ranking in zip(sides, rankings, strict=True)
        ],
    )


def _marked(side: Side, places: tuple[int | None, ...]) -> list[Card]:
    """The cards of a side with their place on the other; the two sides may hold the same id."""
    return [
        replace(card, anchor=f"{side.name}{card.id}", other=place)
        for card, place in zip(side.cards, places, strict=True)
    ]


def _summary(common: Shared, sides: list[Side], alike: str) -> str:
    shown = max(len(side.cards) for side in sides)
    if any(side.problem for side in sides) or shown == 0:
        return ""
    if common.same_order:
        return f"The same {shown} pictures in the same order."
    if common.count == shown:
        return f"The same {shown} pictures, in another order."
    if common.count == 0:
        return "No picture is on both sides."
    return f"{common.count} of {shown} pictures are on both sides."
