"""The label that the classifier of an index predicts for a query."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexError_, QueryError
from searchengine.learn.classifiers import Prediction
from searchengine.web.engines import Engine

_MAX_LABELS = 3
_MIN_PROBABILITY = 0.01  # of a label after the first
_UNUSABLE = "The classifier of this index cannot be used. Fit it again: searchengine classify --fit --index-dir DIR"
_log = logging.getLogger(__name__)


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
