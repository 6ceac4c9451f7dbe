"""Uncertainty of means over queries, and comparison of evaluations: bootstrap, permutation test, jackknife over photos.

Each photo is a query and also a result of other queries, so queries are not independent, and a test over queries is
overconfident about other photos. The delete-a-group jackknife (Efron and Tibshirani 1993, chapter 11; Kott 2001)
divides the photos into groups, removes each group in turn from both the queries and the collection, and measures
everything again. How much the figures vary then estimates how much they would with other photos of the same kind.

Resampled means and random signs are not drawn by SciPy, because here one matrix product serves all measures at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation.metrics import LEFT_OUT, MAIN, measured, members
from searchengine.analyse.evaluation.results import ClassDifference, Comparison, Difference, Evaluation
from searchengine.errors import QueryError

RESAMPLES: Final = 2000
FLIPS: Final = 9999
LEVEL: Final = 0.95
GROUPS: Final = 25  # of photos, for the jackknife
_ALPHA = 0.05
_CHUNK = 2**20  # random numbers drawn at once

Values = NDArray[np.float64]


# -- if the same collection were asked other queries -------------------------------------------------------------------


def resampled_means(values: Values, random: np.random.Generator) -> Values:
    """Resample (q, m) values -> (RESAMPLES, m) means, each over q queries drawn with replacement.

    Each query is drawn with all its values, so the columns stay comparable. See Efron and Tibshirani, An Introduction
    to the Bootstrap (1993), chapter 6.
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
    """Return the lower and upper ends of the percentile interval of (RESAMPLES, ...) means, (...) each."""
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail), axis=0)
    return low, high


def sign_flip_p(differences: Values, random: np.random.Generator, flips: int = FLIPS) -> Values:
    """Return (m,) two-sided p-values for "the mean difference is zero", given (q, m) differences of paired values.

    If two systems are equally good, each difference could as well have had the other sign. The p-value is the fraction
    of random sign changes whose mean is as far from zero as the observed one; as (1 + b) / (1 + flips), it is never
    zero. This is Fisher's randomisation test, as recommended by Smucker, Allan and Carterette, CIKM 2007.
    """
    observed = np.abs(differences.sum(axis=0))
    slack = 1e-12 * np.abs(differences).sum(axis=0)  # for sums of the same numbers in another order
    moving = differences[np.any(differences != 0.0, axis=1)]
    beyond = np.zeros(differences.shape[1], dtype=np.int64)
    step = max(1, _CHUNK // max(len(moving), 1))
    for start in range(0, flips, step):
        count = min(step, flips - start)
        signs = random.integers(0, 2, size=(count, len(moving)), dtype=np.int8) * 2.0 - 1.0
        beyond += (np.abs(signs @ moving) >= observed - slack).sum(axis=0)
    return np.asarray((1.0 + beyond) / (1.0 + flips), dtype=np.float64)


def holm(p_values: Values) -> Values:
    """Adjust (n, ...) p-values for asking n questions at once (Holm 1979)."""
    order = np.argsort(p_values, axis=0)
    multiplied = np.take_along_axis(p_values, order, axis=0).T * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(multiplied.T, axis=0).clip(max=1.0), axis=0)
    return adjusted


# -- if the photos were others of the same kind ------------------------------------------------------------------------


def groups_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """Return the (n,) group of each photo. It depends on the path, so it is the same in every index."""
    return np.array(
        [int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()) % GROUPS for key in keys],
        dtype=np.int64,
    )


def without_each_group(
    groups: NDArray[np.int64], hits: NDArray[np.int64], gains: Values, recall_ks: Sequence[int]
) -> Values:
    """Measure the ranking of one query with each group of photos removed from it.

    Args:
        groups: (n,) int64, the group of each image in the order of the ranking.
        hits: (r,) int64, the positions of the relevant images, from 0.
        gains: (r,) float64, the gain of each relevant image.
        recall_ks: the k of recall@k.

    Returns:
        (GROUPS, m) float64 in the order of ``metrics.names``; NaN if nothing relevant remains.
    """
    count = len(hits)
    next_hit = np.repeat(np.arange(count), np.diff(hits, prepend=-1))  # (last hit + 1,)
    removed = np.bincount(next_hit * GROUPS + groups[: len(next_hit)], minlength=count * GROUPS)
    removed = removed.reshape(count, GROUPS).cumsum(axis=0)  # (r, g): images removed at or before each hit
    kept = groups[hits][:, None] != np.arange(GROUPS)
    places = np.where(kept, (hits + 1)[:, None] - removed, LEFT_OUT)  # (r, g), ranks from 1
    return measured(places, gains, recall_ks)


def spread(replicates: Values, of_query: NDArray[np.int64]) -> tuple[Values, int]:
    """Return (m,) standard errors of the means, from (q, GROUPS, m) values without each group, and the groups used.

    ``of_query`` is the (q,) group of each query. The mean without a group also leaves out the queries of the group, and
    those with nothing relevant left. Only groups that have a query, and without which queries remain, are counted: with
    few photos, some groups are empty, and removing an empty group changes nothing. With fewer than two, the errors are
    0.
    """
    remaining = of_query[:, None] != np.arange(GROUPS)  # (q, g)
    remaining &= ~np.isnan(replicates).any(axis=2)
    count = remaining.sum(axis=0)
    sums = np.where(remaining[:, :, None], replicates, 0.0).sum(axis=0)  # (g, m)
    means = sums[count > 0] / count[count > 0, None]
    groups = len(np.intersect1d(of_query, np.flatnonzero(count)))
    factor = (groups - 1) / groups if groups else 0.0
    return np.asarray(np.sqrt(factor * ((means - means.mean(axis=0)) ** 2).sum(axis=0))), groups


def margin(errors: Values, groups: int) -> Values:
    """Return half the widths of the 95 % intervals for a number of groups; infinite with fewer than two."""
    from scipy.stats import t  # type: ignore[import-untyped]

    return np.asarray(t.ppf((1 + LEVEL) / 2, groups - 1) * errors) if groups > 1 else np.full_like(errors, math.inf)


def t_p(differences: Values, errors: Values, groups: int) -> Values:
    """Return two-sided p-values of Student's t, ``groups`` - 1 degrees of freedom; 1 with fewer than two groups."""
    from scipy.stats import t

    if groups < 2:
        return np.ones_like(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2.0 * t.sf(np.abs(differences) / errors, groups - 1)
    return np.where(differences == 0.0, 1.0, p)


# -- comparing evaluations --------------------------------------------------------------------------------------------


def compare(evaluations: Sequence[Evaluation], *, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare every pair of evaluations over their common queries, which are matched by path.

    The difference of each mean is tested in two ways. Would it hold for other photos of the same kind? The jackknife
    over photos answers this with an interval and a t-test. Would it hold for other queries on this very collection? A
    paired bootstrap interval and random signs answer this. P-values are adjusted for the number of pairs (Holm). One
    evaluation is called better if both tests of mean average precision say so, at p < 0.05.

    Args:
        evaluations: made with ``comparable``, and with the same k of recall@k.
        seed: the seed for all randomness.

    Raises:
        QueryError: two evaluations have no common query, or were not made with ``comparable``.
    """
    pairs = [_Pair(first, second, seed) for first, second in combinations(evaluations, 2)]
    names = [figure.name for figure in evaluations[0].figures] if evaluations else []
    p, p_here = (holm(np.array(p_values)) for p_values in ([pair.p for pair in pairs], [pair.p_here for pair in pairs]))
    return tuple(pair.compare(names, *adjusted) for pair, *adjusted in zip(pairs, p, p_here, strict=True))


class _Pair:
    """Two evaluations, before and after, over their common queries."""

    def __init__(self, first: Evaluation, second: Evaluation, seed: int) -> None:
        self.first, self.second = first, second
        rows = {key: row for row, key in enumerate(second.per_query.keys)}
        common = [(row, rows[key]) for row, key in enumerate(first.per_query.keys) if key in rows]
        if not common:
            raise QueryError(
                f"{first.name} and {second.name} have no query with the same path, so they cannot be compared query by "
                "query. Index the same image folder with both extractors."
            )
        without_before, without_after = first.per_query.replicates, second.per_query.replicates
        if without_before is None or without_after is None:
            raise QueryError("Only evaluations made with comparable=True can be compared.")
        self.rows = np.array(common, dtype=np.int64)  # (c, 2)
        rows_before, rows_after = self.rows[:, 0], self.rows[:, 1]
        self.values_before: NDArray[np.float64] = first.per_query.values[rows_before]  # (c, m)
        self.values_after: NDArray[np.float64] = second.per_query.values[rows_after]
        # Always after minus before.
        self.differences: NDArray[np.float64] = self.values_after - self.values_before
        random = np.random.default_rng(seed)
        self.low, self.high = interval(resampled_means(self.differences, random))
        self.p_here = sign_flip_p(self.differences, random)
        groups = groups_of([first.per_query.keys[row] for row in rows_before])
        replicates = np.float64(1.0) * without_after[rows_after] - without_before[rows_before]  # (c, groups, m)
        self.error, self.groups = spread(replicates, groups)
        self.p = t_p(self.differences.mean(axis=0), self.error, self.groups)

    def compare(self, names: Sequence[str], p: Values, p_here: Values) -> Comparison:
        """Return the comparison, with (m,) p-values that have been adjusted for the number of pairs."""
        means = self.differences.mean(axis=0)
        half = margin(self.error, self.groups)
        columns = (
            *(self.values_before.mean(axis=0), self.values_after.mean(axis=0), means, means - half, means + half),
            *(p, self.low, self.high, p_here),
        )
        rows = zip(names, *(column.tolist() for column in columns), strict=True)
        differences = [Difference(*row) for row in rows]
        if self.groups < 2:
            differences = [replace(difference, low=None, high=None) for difference in differences]
        main = next(difference for difference in differences if difference.name == MAIN)
        better = None
        if max(main.p, main.p_here) < _ALPHA:  # with few queries, the jackknife alone could be wrong
            better = self.second.name if main.difference > 0 else self.first.name
        return Comparison(
            self.first.name,
            self.second.name,
            len(self.rows),
            better,
            self._sentence(main),
            tuple(differences),
            self._classes(list(names).index(MAIN)),
            (*self._contrary(differences, better), *self._notes()),
        )

    def _sentence(self, main: Difference) -> str:
        on = f"these {len(self.rows)} queries" if len(self.rows) > 1 else "this one query"
        before, after = self.first.name, self.second.name
        if bool((self.values_before == self.values_after).all()):
            return f"{before} and {after} are equally good on {on}: every measure of every query is the same."
        interval = "too few photos for an interval"
        if main.low is not None and main.high is not None:
            interval = f"95 % interval {signed(main.low)} to {signed(main.high)}, {p_text(main.p)}"
        figures = (
            f"{MAIN} {main.first:.3f} before ({before}), {main.second:.3f} after ({after}), "
            f"a difference of {signed(main.difference)} ({interval})"
        )
        better, worse = (after, before) if main.difference > 0 else (before, after)
        if max(main.p, main.p_here) < _ALPHA:
            return f"{better} is better than {worse} on photos like these: {figures}."
        if main.p_here < _ALPHA:
            return (
                f"{better} does better than {worse} on {on}, but other photos like these could reverse that: {figures}."
            )
        return f"No difference between {before} and {after} can be shown: {figures}."

    def _classes(self, main: int) -> tuple[ClassDifference, ...]:
        labels = [self.first.per_query.labels[row] for row in self.rows[:, 0]]
        classes = [
            ClassDifference(
                label,
                len(numbers),
                float(self.values_before[numbers, main].mean()),
                float(self.values_after[numbers, main].mean()),
            )
            for label, numbers in members(labels).items()
        ]
        return tuple(sorted(classes, key=lambda row: (row.second - row.first, row.label)))

    def _contrary(self, differences: Sequence[Difference], better: str | None) -> list[str]:
        """Return sentences about measures whose differences disagree with that of the main measure."""
        measures: dict[str, list[str]] = {}
        for difference in differences:
            ahead = self.second.name if difference.difference > 0 else self.first.name
            if max(difference.p, difference.p_here) < _ALPHA and ahead != better:
                measures.setdefault(ahead, []).append(difference.name)
        return [f"By {', '.join(names)}, {ahead} is better." for ahead, names in measures.items()]

    def _notes(self) -> list[str]:
        notes = []
        for evaluation in (self.first, self.second):
            unmatched = evaluation.counts.queries - len(self.rows)
            if unmatched:
                queries = "query" if unmatched == 1 else "queries"
                notes.append(
                    f"{evaluation.name} has {unmatched} {queries} that the other lacks and that were left out."
                )
        if self.first.counts.collection != self.second.counts.collection:
            notes.append(
                f"The collections differ: {self.first.counts.collection} images against "
                f"{self.second.counts.collection}. A larger one leaves more room for errors."
            )
        changed = sum(
            set(self.first.per_query.labels[a]) != set(self.second.per_query.labels[b]) for a, b in self.rows.tolist()
        )
        if changed:
            notes.append(f"{changed} of the common queries have different labels in the two indexes.")
        return notes


def signed(number: float) -> str:
    """Format a number with its sign: "+0.012", "-0.012", or "0.000" if it rounds to zero."""
    text = f"{number:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def p_text(p: float) -> str:
    """Format a p-value: "p = 0.032" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
