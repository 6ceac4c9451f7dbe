"""Uncertainty of a mean over queries, and of a difference of two: bootstrap, permutation test, jackknife over photos.

A photo is a query and, for all other queries, a result, so queries are not independent of one another, and a test over
queries is overconfident about other photos. In the jackknife the photos fall into groups; each group is taken out in
turn, of the queries and of the collection alike, and everything is measured again. How much the figures move estimates
how much they would with other photos of the same kind: the delete-a-group jackknife (Efron and Tibshirani 1993, chapter
11; Kott 2001).

Resampled means and random signs are drawn here rather than by SciPy, because one product of matrices serves all
measures at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation.metrics import NDCG_AT, PRECISION_AT

RESAMPLES: Final = 2000
FLIPS: Final = 9999
LEVEL: Final = 0.95
GROUPS: Final = 25  # of photos, in the jackknife
_CHUNK = 2**20  # numbers drawn at once

Values = NDArray[np.float64]


# -- other queries asked of the same collection -----------------------------------------------------------------------


def resampled_means(values: Values, random: np.random.Generator) -> Values:
    """(q, m) values -> (RESAMPLES, m) means, each over q queries drawn with replacement.

    A query is drawn with all its values, so the columns stay comparable. Efron and Tibshirani, An Introduction to the
    Bootstrap (1993), chapter 6.
    """
    queries = len(values)
    means = np.empty((RESAMPLES, values.shape[1]), dtype=np.float64)
    step = max(1, _CHUNK // queries)
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        drawn = random.integers(0, queries, size=(count, queries))
        drawn += np.arange(count)[:, None] * queries
        weights = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        means[start : start + count] = weights @ values / queries  # (c, q) @ (q, m) -> (c, m)
    return means


def interval(means: Values) -> tuple[Values, Values]:
    """(RESAMPLES, ...) -> the lower and the upper ends of the percentile interval, (...) each."""
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail), axis=0)
    return low, high


def sign_flip_p(differences: Values, random: np.random.Generator, flips: int = FLIPS) -> Values:
    """(q, m) differences of paired values -> (m,) two-sided p-values of "the mean difference is zero".

    If two systems are alike, each difference could as well have had the other sign: the p-value is the share of
    random signs whose mean is as far from zero as the observed one. Fisher's randomisation test, as recommended by
    Smucker, Allan and Carterette, CIKM 2007; (1 + b) / (1 + flips), so it is never zero.
    """
    observed = np.abs(differences.sum(axis=0))
    slack = 1e-12 * np.abs(differences).sum(axis=0)  # sums of the same numbers in another order
    moving = differences[np.any(differences != 0.0, axis=1)]
    beyond = np.zeros(differences.shape[1], dtype=np.int64)
    step = max(1, _CHUNK // max(len(moving), 1))
    for start in range(0, flips, step):
        count = min(step, flips - start)
        signs = random.integers(0, 2, size=(count, len(moving)), dtype=np.int8) * 2.0 - 1.0
        beyond += (np.abs(signs @ moving) >= observed - slack).sum(axis=0)
    return np.asarray((1.0 + beyond) / (1.0 + flips), dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, raised for being several questions at once (Holm 1979)."""
    raised = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        raised[i] = highest
    return raised


# -- other photos of the same kind ------------------------------------------------------------------------------------


def groups_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """(n,) int64: the group of each photo, by its path, so that it is the same in every index."""
    return np.array(
        [int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()) % GROUPS for key in keys],
        dtype=np.int64,
    )


def without_each_group(
    groups: NDArray[np.int64], hits: NDArray[np.int64], gains: Values, recall_ks: Sequence[int]
) -> Values:
    """The measures of one query with each group taken out of its ranking.

    Args:
        groups: (n,) int64, of each image in the order of the ranking.
        hits: (r,) int64, where the relevant ones stand, from 0.
        gains: (r,) float64, what they are worth.
        recall_ks: the k of recall@k.

    Returns:
        (GROUPS, m) float64, as ``metrics.names`` has them; NaN where nothing relevant is left.
    """
    count = len(hits)
    next_hit = np.repeat(np.arange(count), np.diff(hits, prepend=-1))  # (last hit + 1,)
    removed = np.bincount(next_hit * GROUPS + groups[: len(next_hit)], minlength=count * GROUPS)
    removed = removed.reshape(count, GROUPS).cumsum(axis=0)  # (r, g): taken out at or before each hit
    kept = groups[hits][:, None] != np.arange(GROUPS)
    places = np.where(kept, (hits + 1)[:, None] - removed, np.iinfo(np.int64).max)  # (r, g), ranks from 1
    left = kept.sum(axis=0)  # (g,)
    kept_gains = gains[:, None] * kept
    best = -np.sort(-kept_gains, axis=0)[:NDCG_AT]
    discount = np.log2(np.arange(2, len(best) + 2))[:, None]
    gained = np.where(places <= NDCG_AT, kept_gains / np.log2(places + 1.0), 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [
            *((places <= k).sum(axis=0) / k for k in PRECISION_AT),
            *((places <= k).sum(axis=0) / left for k in recall_ks),
            (kept.cumsum(axis=0) / places * kept).sum(axis=0) / left,
            gained / (best / discount).sum(axis=0),
        ]
    measures = np.stack(columns, axis=1)
    measures[left == 0] = np.nan
    return measures


def usable_groups(replicates: Values, of_query: NDArray[np.int64]) -> int:
    """How many groups a spread can be estimated from: those with a query, and without which queries remain.

    Takes what ``spread`` takes. Few photos leave groups empty, and taking out an empty group changes nothing.
    """
    usable = np.flatnonzero(_remaining(replicates, of_query).any(axis=0))
    return len(np.intersect1d(of_query, usable))


def spread(replicates: Values, of_query: NDArray[np.int64]) -> Values:
    """(q, GROUPS, m) values without each group, and the (q,) group of each query -> (m,) standard errors of the mean.

    In a replicate the queries of the group are left out too, and those that have nothing relevant left. With fewer
    than two ``usable_groups`` the errors are 0.
    """
    remaining = _remaining(replicates, of_query)
    count = remaining.sum(axis=0)
    sums = np.where(remaining[:, :, None], replicates, 0.0).sum(axis=0)  # (g, m)
    means = sums[count > 0] / count[count > 0, None]
    groups = max(usable_groups(replicates, of_query), 1)
    return np.asarray(np.sqrt((groups - 1) / groups * ((means - means.mean(axis=0)) ** 2).sum(axis=0)))


def _remaining(replicates: Values, of_query: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(q, GROUPS): which queries remain without each group."""
    remaining: NDArray[np.bool_] = of_query[:, None] != np.arange(GROUPS)
    remaining &= ~np.isnan(replicates).any(axis=2)
    return remaining


def margin(error: float, groups: int) -> float:
    """Half the width of the 95 % interval, by so many groups ``usable``; infinite with fewer than two."""
    from scipy.stats import t  # type: ignore[import-untyped]

    return float(t.ppf((1 + LEVEL) / 2, groups - 1)) * error if groups > 1 else math.inf


def t_p(difference: float, error: float, groups: int) -> float:
    """Two-sided p-value of Student's t with ``groups`` - 1 degrees of freedom; 1 with fewer than two groups."""
    from scipy.stats import t

    if groups < 2:
        return 1.0
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return float(2.0 * t.sf(abs(difference) / error, groups - 1))
