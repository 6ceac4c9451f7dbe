"""What an index answers to a query: a ranking, by an image of its own, of another index or uploaded; and a label."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine import images
from searchengine.errors import ImageError, IndexError_, QueryError, UnknownImageError
from searchengine.index.types import Hit, ImageRecord
from searchengine.learn.classifiers import Prediction
from searchengine.web.engines import Engine
from searchengine.web.indexes import ServedIndex
from searchengine.web.queries import Feedback, RequestError
from searchengine.web.renditions import has_file, read_file
from searchengine.web.uploads import Upload, UploadReader

_MAX_LABELS = 3
_MIN_PROBABILITY = 0.01  # of a label after the first
_UNUSABLE = "The classifier of this index cannot be used. Fit it again: searchengine classify --fit --index-dir DIR"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hits with their records, in rank order; ``self_id`` is the image searched by, where this index holds it."""

    hits: list[Hit]
    records: list[ImageRecord]
    self_id: int | None = None


def rank_feature(engine: Engine, feature: NDArray[np.float32], k: int, metric: str | None) -> Ranking:
    """The k images nearest to a feature, (1, d) float32."""
    return _with_records(engine, engine.search_feature(feature, k, metric=metric))


def rank_feedback(engine: Engine, feedback: Feedback, query: int | NDArray[np.float32] | None, k: int) -> Ranking:
    """The k images like the query, an id or a (1, d) feature, and like what is liked, unlike what is disliked.

    Raises:
        QueryError: nothing can be ranked by these.
    """
    hits = engine.recommend(feedback.liked, feedback.disliked, k, query=query, rule=feedback.rule)
    return _with_records(engine, hits)


def rank_image(engine: Engine, image_id: int, k: int, metric: str | None) -> Ranking:
    """The k images nearest to one of the same index."""
    return _with_records(engine, engine.search_id(image_id, k, metric=metric), self_id=image_id)


def rank_foreign(index: ServedIndex, owner: ServedIndex, record: ImageRecord, k: int, metric: str | None) -> Ranking:
    """The k images nearest to one of another index, ``owner``: by its id if both hold it, else by its file.

    Raises:
        RequestError: neither can be had.
    """
    image_id = record.id if index is owner else index.engine.find(record)
    if image_id is not None:
        return rank_image(index.engine, image_id, k, metric)
    if not index.takes_uploads:
        raise RequestError(f"“{record.path}” is not in {index.name}, which can only be searched by its own rows.")
    if not has_file(record):
        raise RequestError(f"“{record.path}” is not in {index.name}, and there is no file to search by.")
    try:
        upload = Upload(read_file(record), record.path.rsplit("/", 1)[-1])
        # Its own index accepted it at this size; the limit of uploads is for strangers.
        feature = UploadReader(upload, images.MAX_PIXELS).embed(index.engine)
    except ImageError as error:  # damaged since it was indexed
        reason = f"“{record.path}” is not in {index.name}, and its file cannot be searched by. {error}"
        raise RequestError(reason) from error
    return rank_feature(index.engine, feature, k, metric)


def _with_records(engine: Engine, hits: Sequence[Hit], self_id: int | None = None) -> Ranking:
    """Hits with their records; an image that was removed since the search is left out."""
    known = [hit.record for hit in hits if hit.record is not None]
    if len(known) == len(hits):
        return Ranking(list(hits), known, self_id)
    try:
        return Ranking(list(hits), engine.records([hit.id for hit in hits]), self_id)
    except UnknownImageError:
        records = existing_records(engine, [hit.id for hit in hits])
        return Ranking([hit for hit in hits if hit.id in records], list(records.values()), self_id)


def existing_records(engine: Engine, image_ids: Sequence[int]) -> dict[int, ImageRecord]:
    """The records by id, in the order of the ids; an image that was removed meanwhile is left out."""
    records = {}
    for image_id in image_ids:
        try:
            records[image_id] = engine.record(image_id)
        except UnknownImageError:
            continue
    return records


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
