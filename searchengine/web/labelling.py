"""The label that the index's classifier predicts for a query, as the page shows it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexError_, QueryError
from searchengine.learn.classifiers import Prediction
from searchengine.web.seam import Engine

_SHOWN = 3  # labels
_LEAST = 0.01  # a probability below it is not worth a line
_UNUSABLE = "The classifier of this index cannot be used. Fit it again: searchengine classify --fit --index-dir DIR"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Predicted:
    """The most probable labels, best first; ``problem`` says why there are none.

    ``accuracy`` is the share of held-out pictures for which it was right, None where none could be held out; ``stale``:
    pictures or labels have changed since it was fitted.
    """

    best: tuple[Prediction, ...] = ()
    accuracy: float | None = None
    stale: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """As an answer has it."""
        if self.problem:
            return {"error": self.problem}
        labels = [{"label": one.label, "probability": one.probability} for one in self.best]
        return {"labels": labels, "accuracy": self.accuracy, "stale": self.stale}


def predict(engine: Engine, feature: NDArray[np.float32]) -> Predicted | None:
    """What a (d,) or (1, d) feature shows; None where the index has no classifier."""
    try:
        classifier = engine.classifier()
        if classifier is None:
            return None
        labels = classifier.predict(feature)
    except (IndexError_, QueryError) as error:
        # Whoever runs the server reads which file it is; the page names no path, and the search goes on without.
        _warn_once(str(error))
        return Predicted(problem=_UNUSABLE)
    best = labels[:1] + [one for one in labels[1:_SHOWN] if one.probability >= _LEAST]
    held_out = classifier.report.logistic
    return Predicted(tuple(best), None if held_out is None else held_out.accuracy, classifier.stale)


@lru_cache(maxsize=32)
def _warn_once(sentence: str) -> None:
    _log.warning("%s", sentence)
