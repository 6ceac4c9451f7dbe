"""The first page and the results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, render_template, request, url_for

from searchengine.errors import UnknownImageError
from searchengine.index.metrics import alike_sentence, metric_title
from searchengine.index.types import ImageRecord
from searchengine.settings import MAX_K, Settings
from searchengine.web.addresses import PictureAddresses
from searchengine.web.answers import hits_json, wants_json
from searchengine.web.asking import NO_MODEL, Ranking, UploadReader, rank_feature, rank_image, rank_judged
from searchengine.web.cards import card_of, cards_of, cosine_is_score, query_style, relative
from searchengine.web.choices import (
    Chosen,
    Judging,
    Values,
    index_choices,
    metric_choices,
    other_side,
    rule_choices,
)
from searchengine.web.drawing import draw_cards
from searchengine.web.incoming import RequestError, parse_id, parse_k, parse_metric, read_upload
from searchengine.web.judging import Judged, parse_judged
from searchengine.web.labelling import Predicted, predict
from searchengine.web.queries import UploadedQuery
from searchengine.web.renditions import file_is_there, has_picture
from searchengine.web.served import Collection, Collections, Views, address_in

K_CHOICES = (10, 30, 60, 120, 240, MAX_K)


def blueprint(collection: Collection, collections: Collections, settings: Settings) -> Blueprint:
    """``/`` and ``/search``."""
    pages, views = Blueprint("pages", __name__), _Pages(collection, collections, settings)
    pages.get("/")(views.home)
    pages.post("/search")(views.search_upload)
    pages.get("/search")(views.search)
    pages.app_context_processor(views.common)
    pages.app_template_global()(views.addresses)
    pages.app_template_global()(draw_cards)
    return pages


class _Pages(Views):
    """The first page and the results of one index."""

    def common(self) -> dict[str, Any]:
        return {
            "max_bytes": self.settings.max_upload_bytes,
            "default_k": self.settings.default_k,
            "k": self.settings.default_k,
            "k_choices": k_choices(self.settings.default_k),
            "no_pictures": None if self.collection.takes_pictures else NO_MODEL,
            "indexes": index_choices(self.collection, self.collections),
        }

    def addresses(
        self, where: Collection | None = None, endpoint: str = "pages.search", **values: Any
    ) -> PictureAddresses:
        """Of the pictures of another index than the one whose page is being made, or of that one."""
        return PictureAddresses(partial(address_in, where, self.collection), endpoint, values)

    def home(self) -> Response:
        k = parse_k(request.args.get("k"), self.settings.default_k)
        n = parse_k(request.args.get("n"), self.settings.sample)
        status = self.engine.status()
        cards = [card_of(record) for record in self.engine.sample(n)]
        more = min(2 * n, MAX_K, status.images)  # those shown already are among them
        return Response(
            render_template(
                "home.html",
                status=status,
                extractor=self.engine.extractor_title,
                cards=cards,
                k=k,
                k_choices=k_choices(k),
                more=more if more > len(cards) else None,
            )
        )

    def search_upload(self) -> Response:
        upload = read_upload(request, self.settings.max_upload_bytes)
        k = parse_k(request.form.get("k"), self.settings.default_k)
        metric = parse_metric(request.form.get("metric"))
        judged, chosen = self._known(parse_judged(request.form))
        reader = UploadReader(upload, self.settings.max_upload_pixels)
        query, feature = reader.read(self.collection), reader.embed(self.collection)
        ranking = (
            rank_judged(self.collection, judged, feature, k)
            if judged
            else rank_feature(self.collection, feature, k, metric)
        )
        predicted = predict(self.engine, feature)
        if wants_json():
            about = {"upload": query.name, "width": query.width, "height": query.height}
            return self._json(about, ranking, metric, judged, predicted)
        return self._results(ranking, k, metric, judged, chosen, predicted, upload=query)

    def search(self) -> Response:
        if not request.args.keys() & {"id", "like", "dislike"}:
            # Also the address of an uploaded query, opened again.
            raise RequestError("No picture was named. An uploaded picture is not kept: choose it again.")
        image_id = parse_id(request.args.get("id"))
        if image_id is None and "id" in request.args:
            raise RequestError("The id of a picture must be a whole number from 1 up, as in /search?id=7.")
        k = parse_k(request.args.get("k"), self.settings.default_k)
        metric = parse_metric(request.args.get("metric"))
        record = None if image_id is None else self.engine.record(image_id)
        judged, chosen = self._known(parse_judged(request.args, image_id))
        if judged or image_id is None:
            ranking = rank_judged(self.collection, judged, image_id, k)
        else:
            ranking = rank_image(self.collection, image_id, k, metric)
        predicted = None if image_id is None else predict(self.engine, self.engine.feature(image_id))
        if wants_json():
            about = None if record is None else {"id": record.id, "path": record.path}
            return self._json(about, ranking, metric, judged, predicted)
        return self._results(ranking, k, metric, judged, chosen, predicted, record=record)

    def _known(self, judged: Judged) -> tuple[Judged, dict[int, ImageRecord]]:
        """What is judged and still there; what was removed since a link was made says no more."""
        found = {}
        for image_id in (*judged.liked, *judged.disliked):
            try:
                found[image_id] = self.engine.record(image_id)
            except UnknownImageError:
                continue
        return judged.only(found), found

    def _json(
        self,
        about: dict[str, Any] | None,
        ranking: Ranking,
        metric: str | None,
        judged: Judged,
        predicted: Predicted | None,
    ) -> Response:
        more: dict[str, Any] = {}
        if judged:
            more = {"liked": judged.liked, "disliked": judged.disliked, "rule": judged.rule_used}
        if predicted is not None:
            more["predicted"] = predicted.to_json()
        return hits_json(about, ranking.hits, None if judged else metric or self.engine.metric, **more)

    def _results(
        self,
        ranking: Ranking,
        k: int,
        named: str | None,
        judged: Judged,
        chosen: dict[int, ImageRecord],
        predicted: Predicted | None,
        *,
        record: ImageRecord | None = None,
        upload: UploadedQuery | None = None,
    ) -> Response:
        status, hits = self.engine.status(), ranking.hits
        metric = named or self.engine.metric
        others = [hit for hit in hits if record is None or hit.id != record.id]
        # What every address from here takes along.
        kept: Values = {
            "k": None if k == self.settings.default_k else k,
            "metric": None if metric == self.engine.metric else metric,
        }

        address = _addresses(record, upload)
        cards = cards_of(hits, ranking.records, normalized=self.engine.normalized, metric=metric)
        more = self._more(len(hits), k, status.images, judged, record)
        return Response(
            render_template(
                "results.html",
                place=place_of(record, upload),
                status=status,
                extractor=self.engine.extractor_title,
                metric=metric_title(metric),
                cosine=cosine_is_score(metric, normalized=self.engine.normalized),
                alike=alike_sentence(metric, normalized=self.engine.normalized),
                cards=relative(cards) if judged else cards,
                k=k,
                k_choices=k_choices(k),
                kept=kept,
                judged=judged,
                judging=Judging(judged, lambda other: address({**kept, **other.values})),
                chosen=[Chosen(card_of(one), liked=id_ in judged.liked) for id_, one in chosen.items()],
                rules=rule_choices(judged, lambda other: address({**kept, **other.values})),
                predicted=predicted,
                more=more,
                more_values={"id": None if record is None else record.id, **kept, **judged.values, "k": more},
                query=card_of(record) if record else None,
                record=record,
                file_gone=record is not None and has_picture(record) and not file_is_there(record),
                upload=upload,
                nothing_close=not judged
                and bool(others)
                and metric == self.engine.metric
                and self.collection.nearness.is_far(others[0].distance),
                indexes=index_choices(
                    self.collection, self.collections, record=record, uploaded=upload is not None, **kept
                ),
                metrics=metric_choices(self.collection, metric, lambda other: address({**kept, "metric": other})),
                beside=self._beside(metric, k, record),
            )
        )

    def _more(self, shown: int, k: int, images: int, judged: Judged, record: ImageRecord | None) -> int | None:
        left_out = len(judged.liked) + len(judged.disliked) + (record is not None) if judged else 0
        return more_than(shown, k, images - left_out)

    def _beside(self, metric: str, k: int, record: ImageRecord | None) -> dict[str, str | None]:
        other, other_metric = other_side(self.collection, self.collections, metric)
        values: dict[str, Any] = {
            "k": None if k == self.settings.default_k else k,
            "left": self.collection.name,
            "left_by": None if metric == self.engine.metric else metric,
            "right": other.name,
            "right_by": None if other_metric == other.engine.metric else other_metric,
        }
        if record is not None:
            return {"href": url_for("compare.by_id", id=record.id, **values), "again": None}
        return {"href": url_for("pages.home"), "again": url_for("compare.by_upload", **values)}


def _addresses(record: ImageRecord | None, upload: UploadedQuery | None) -> Callable[[Values], tuple[str, str | None]]:
    """Where the same query with other choices is; and for an upload, where scripts send it again."""
    home_page = url_for("pages.home")

    def address(values: Values) -> tuple[str, str | None]:
        if upload is not None:
            return home_page, url_for("pages.search_upload", **values)
        if record is None and not values.get("like") and not values.get("dislike"):
            return home_page, None
        return url_for("pages.search", id=None if record is None else record.id, **values), None

    return address


def place_of(record: ImageRecord | None, upload: UploadedQuery | None) -> str:
    """The place and the tint of the picture that was searched by, for the page's style element."""
    if upload is not None:
        return query_style(upload.width, upload.height)
    if record is None:
        return ""
    return query_style(record.width or 4, record.height or 3, record.colour)


def k_choices(k: int) -> list[int]:
    """How many pictures can be asked for, ``k`` among them."""
    return sorted({*K_CHOICES, k})


def more_than(shown: int, k: int, images: int) -> int | None:
    """The next larger k, or None where nothing more can be shown."""
    step = max(k, 30) if k < 120 else 120
    return min(k + step, MAX_K) if shown == k < min(images, MAX_K) else None
