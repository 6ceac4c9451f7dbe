"""How good held-out predictions are: accuracy with its interval, confusion, calibration."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 15


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Of ``images`` held-out images of a class, ``right`` were given its label."""

    label: str
    images: int
    right: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images of one label were given another one."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of predictions, each made by a model that had not seen the image.

    ``low`` and ``high`` bound the accuracy's 95 % interval (Wilson 1927). ``calibration_error`` is the expected
    calibration error (Guo et al. 2017; 15 bins of the winner's probability): how far, on average, the share of
    right predictions is from their probability. ``brier`` is the mean over images of the sum over classes of
    (probability - truth)^2 (Brier 1950), from 0, perfect, to 2. ``by_class`` and ``confused`` together are the whole
    confusion matrix; the most frequent confusions come first.
    """

    images: int
    accuracy: float
    low: float
    high: float
    calibration_error: float
    brier: float
    by_class: tuple[ClassScore, ...]
    confused: tuple[Confusion, ...]


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a classifier was fitted on and how well it does; ``fitted`` is ISO 8601 in UTC.

    ``regularization`` is C, the inverse strength of the L2 penalty. ``folds`` is 0, and ``logistic`` and ``vote`` are
    None, where nothing could be held out. ``notes`` are sentences for a person.
    """

    fitted: str
    images: int
    unlabelled: int
    regularization: float
    folds: int
    neighbours: int
    logistic: HeldOut | None
    vote: HeldOut | None
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Of the logistic regression on held-out images; NaN where nothing could be held out."""
        return math.nan if self.logistic is None else self.logistic.accuracy


def held_out(truth: NDArray[np.int64], probabilities: NDArray[np.float64], classes: tuple[str, ...]) -> HeldOut:
    """Score predictions.

    Args:
        truth: (n,) int64, n at least 1; the place of the true class in ``classes``.
        probabilities: (n, c) float64. Of equal probabilities the first one wins.
        classes: c names.
    """
    count = len(truth)
    predicted = probabilities.argmax(axis=1)
    right = predicted == truth
    low, high = wilson(int(right.sum()), count)
    pairs = Counter(zip(truth[~right].tolist(), predicted[~right].tolist(), strict=True))
    present = np.unique(truth).tolist()
    return HeldOut(
        images=count,
        accuracy=float(right.mean()),
        low=low,
        high=high,
        calibration_error=expected_calibration_error(probabilities.max(axis=1), right),
        brier=brier(truth, probabilities),
        by_class=tuple(ClassScore(classes[c], int((truth == c).sum()), int(right[truth == c].sum())) for c in present),
        confused=tuple(
            Confusion(classes[a], classes[b], times)
            for (a, b), times in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share, ``right`` of ``count`` (Wilson 1927); sound for few and for 0 % or 100 %."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(right, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = _BINS) -> float:
    """Mean over images of |accuracy - confidence| of the bin they fall into; bins of equal width (Guo et al. 2017).

    ``confidence``: (n,) the winner's probability; ``right``: (n,) whether the winner is the truth.
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are (lower, upper]
    gaps = np.bincount(place, weights=right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def brier(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean over images of the sum over classes of (probability - truth)^2 (Brier 1950).

    scikit-learn's demands rows that sum to 1, which those of a class that was not learnt do not.
    """
    errors = probabilities.copy()
    errors[np.arange(len(truth)), truth] -= 1.0
    return float((errors * errors).sum(axis=1).mean())
