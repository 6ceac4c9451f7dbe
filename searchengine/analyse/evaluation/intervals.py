"""How sure a mean over queries is: bootstrap intervals, and a permutation test for two means over the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2000
FLIPS: Final = 9999
LEVEL: Final = 0.95
_CHUNK = 2**20  # numbers drawn at once

Values = NDArray[np.float64]


def resampled_means(values: Values, resamples: int, random: np.random.Generator) -> Values:
    """(q, m) values -> (resamples, m) means, each over q queries drawn with replacement.

    A query is drawn with all its values, so the columns stay comparable. Efron and Tibshirani, An Introduction to the
    Bootstrap (1993), chapter 6.
    """
    queries = len(values)
    means = np.empty((resamples, values.shape[1]), dtype=np.float64)
    step = max(1, _CHUNK // queries)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = random.integers(0, queries, size=(count, queries))
        drawn += np.arange(count)[:, None] * queries
        weights = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        means[start : start + count] = weights @ values / queries  # (c, q) @ (q, m) -> (c, m)
    return means


def interval(means: Values, level: float = LEVEL) -> tuple[Values, Values]:
    """(resamples, m) -> the (m,) lower and (m,) upper ends of the percentile interval."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail), axis=0)
    return low, high


def sign_flip_p(differences: Values, random: np.random.Generator, flips: int = FLIPS) -> Values:
    """(q, m) differences of paired values -> (m,) two-sided p-values of "the mean difference is zero".

    If two systems are alike, each difference could as well have had the other sign: the p-value is the share of
    random signs whose mean is as far from zero as the one found. Fisher's randomisation test, as recommended by
    Smucker, Allan and Carterette, CIKM 2007; (1 + b) / (1 + flips), so it is never zero.
    """
    found = np.abs(differences.sum(axis=0))
    slack = 1e-12 * np.abs(differences).sum(axis=0)  # sums of the same numbers in another order
    moving = differences[np.any(differences != 0.0, axis=1)]
    beyond = np.zeros(differences.shape[1], dtype=np.int64)
    step = max(1, _CHUNK // max(len(moving), 1))
    for start in range(0, flips, step):
        count = min(step, flips - start)
        signs = random.integers(0, 2, size=(count, len(moving)), dtype=np.int8) * 2.0 - 1.0
        beyond += (np.abs(signs @ moving) >= found - slack).sum(axis=0)
    return np.asarray((1.0 + beyond) / (1.0 + flips), dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, raised for being several questions at once (Holm 1979)."""
    raised = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        raised[i] = highest
    return raised
