"""The label that the classifier of an index predicts for a query, and how sure that is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexError_, QueryError
from searchengine.learn.classifiers import Prediction
from searchengine.learn.nearest import NEIGHBOURS, vote
from searchengine.query import Query
from searchengine.web.indexes import ServedIndex

_MAX_LABELS = 3
_MIN_PROBABILITY = 0.01  # of a label after the first
_UNUSABLE = "The classifier of this index cannot be used. Fit it again."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PredictedLabels:
    """The most probable labels, best first; ``problem`` says why there are none.

    ``best`` is empty, and ``unsure`` has the labels that it may be, where the nearest images carry another label, or
    none of them is near. ``accuracy`` is the share of held-out images that were labelled right, None where none could
    be held out. ``stale``: images or labels have changed since the classifier was fitted.
    """

    best: tuple[Prediction, ...] = ()
    unsure: tuple[str, ...] = ()
    accuracy: float | None = None
    stale: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        if self.problem:
            return {"error": self.problem}
        labels = [{"label": prediction.label, "probability": prediction.probability} for prediction in self.best]
        unsure = {"not_sure": self.unsure} if self.unsure else {}
        return {"labels": labels, **unsure, "accuracy": self.accuracy, "stale": self.stale}


def predict_labels(index: ServedIndex, query: Query, start: NDArray[np.float32]) -> PredictedLabels | None:
    """The labels that the index's classifier predicts for the (1, d) start of a query; None without a classifier.

    It is sure only where the label is also that of most of the nearest images, and these are near.
    """
    engine = index.engine
    try:
        classifier = engine.classifier()
        if classifier is None:
            return None
        labels = classifier.predict(start)
    except (IndexError_, QueryError) as error:
        # The log names the file; the page names no path, and shows the search without a label.
        _warn_once(str(error))
        return PredictedLabels(problem=_UNUSABLE)
    itself = None if query.start is None else query.start.id
    hits = engine.index.search(start, NEIGHBOURS + 1)[0]
    neighbours = [hit for hit in hits if hit.id != itself][:NEIGHBOURS]
    votes = [share.label for share in vote([hit.record.labels for hit in neighbours])][:1]
    is_close = bool(neighbours) and not index.nearness.is_far(neighbours[0].distance)
    best: list[Prediction] = []
    unsure: tuple[str, ...] = ()
    if is_close and votes == [labels[0].label]:
        best = labels[:1] + [label for label in labels[1:_MAX_LABELS] if label.probability >= _MIN_PROBABILITY]
    else:
        unsure = tuple(dict.fromkeys([labels[0].label, *votes, *(label.label for label in labels[1:2])]))[:2]
    held_out = classifier.report.logistic
    accuracy = None if held_out is None else held_out.accuracy
    return PredictedLabels(tuple(best), unsure, accuracy, classifier.stale)


@lru_cache(maxsize=32)
def _warn_once(sentence: str) -> None:
    _log.warning("%s", sentence)
