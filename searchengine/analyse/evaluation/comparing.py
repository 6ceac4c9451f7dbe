"""Is one index better than another on these images? A paired test over their common queries, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import statistics
from searchengine.analyse.evaluation.metrics import MAIN, members
from searchengine.analyse.evaluation.results import ClassDifference, Comparison, Difference, Evaluation
from searchengine.errors import QueryError

_ALPHA = 0.05


def compare(evaluations: Sequence[Evaluation], *, seed: int = 0) -> tuple[Comparison, ...]:
    """Every two of the evaluations over their common queries, which are matched by path.

    Two questions are answered for the difference of each mean. For other photos of the same kind: interval and t-test
    of a jackknife over photos. For this very collection: a paired bootstrap interval, and a p-value by random signs.
    P-values are raised for the number of pairs (Holm). One is called better if mean average precision says so under
    both, at p < 0.05.

    Args:
        evaluations: made with ``comparable``; with the same k of recall@k.
        seed: of all that is random.

    Raises:
        QueryError: two evaluations have no query in common, or were not made to be compared.
    """
    pairs = [_Pair(first, second, seed) for first, second in combinations(evaluations, 2)]
    names = [figure.name for figure in evaluations[0].figures] if evaluations else []
    raised = [statistics.holm([float(pair.p[i]) for pair in pairs]) for i in range(len(names))]
    raised_here = [statistics.holm([float(pair.p_here[i]) for pair in pairs]) for i in range(len(names))]
    return tuple(
        pair.compare(names, [of_name[n] for of_name in raised], [of_name[n] for of_name in raised_here])
        for n, pair in enumerate(pairs)
    )


class _Pair:
    def __init__(self, first: Evaluation, second: Evaluation, seed: int) -> None:
        self.first, self.second = first, second
        rows = {key: row for row, key in enumerate(second.per_query.keys)}
        common = [(row, rows[key]) for row, key in enumerate(first.per_query.keys) if key in rows]
        if not common:
            raise QueryError(
                f"{first.name} and {second.name} have no query in common, by path, so they cannot be compared query by "
                "query. Index the same image folder with both extractors."
            )
        without_before, without_after = first.per_query.replicates, second.per_query.replicates
        if without_before is None or without_after is None:
            raise QueryError("Only evaluations that were made with comparable=True can be compared.")
        self.rows = np.array(common, dtype=np.int64)  # (c, 2)
        rows_before, rows_after = self.rows[:, 0], self.rows[:, 1]
        self.values_before: NDArray[np.float64] = first.per_query.values[rows_before]  # (c, m)
        self.values_after: NDArray[np.float64] = second.per_query.values[rows_after]
        # After minus before: the one rule for every sign.
        self.differences: NDArray[np.float64] = self.values_after - self.values_before
        random = np.random.default_rng(seed)
        self.low, self.high = statistics.interval(statistics.resampled_means(self.differences, random))
        self.p_here = statistics.sign_flip_p(self.differences, random)
        groups = statistics.groups_of([first.per_query.keys[row] for row in rows_before])
        replicates = np.float64(1.0) * without_after[rows_after] - without_before[rows_before]  # (c, groups, m)
        self.error = statistics.spread(replicates, groups)  # (m,)
        self.groups = statistics.usable_groups(replicates, groups)
        means = self.differences.mean(axis=0)
        self.p = [statistics.t_p(float(d), float(e), self.groups) for d, e in zip(means, self.error, strict=True)]

    def compare(self, names: Sequence[str], p: Sequence[float], p_here: Sequence[float]) -> Comparison:
        differences = []
        for i, name in enumerate(names):
            mean = float(self.differences[:, i].mean())
            margin = statistics.margin(float(self.error[i]), self.groups)
            differences.append(
                Difference(
                    name,
                    float(self.values_before[:, i].mean()),
                    float(self.values_after[:, i].mean()),
                    mean,
                    mean - margin if self.groups > 1 else None,
                    mean + margin if self.groups > 1 else None,
                    p[i],
                    float(self.low[i]),
                    float(self.high[i]),
                    p_here[i],
                )
            )
        main = next(difference for difference in differences if difference.name == MAIN)
        better = None
        if max(main.p, main.p_here) < _ALPHA:  # with a handful of queries, the jackknife alone could be wrong
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
        """Sentences for measures that show a difference where the main one shows none, or the contrary one."""
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
                notes.append(f"{evaluation.name} has {unmatched} {queries} that the other lacks; not compared.")
        if self.first.counts.collection != self.second.counts.collection:
            notes.append(
                f"The collections differ: {self.first.counts.collection} images against "
                f"{self.second.counts.collection}. In the larger one there is more to get wrong."
            )
        changed = sum(
            set(self.first.per_query.labels[a]) != set(self.second.per_query.labels[b]) for a, b in self.rows.tolist()
        )
        if changed:
            notes.append(f"{changed} of the common queries have different labels in the two indexes.")
        return notes


def signed(number: float) -> str:
    """ "+0.012", "-0.012", and "0.000" for what rounds to it."""
    text = f"{number:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def p_text(p: float) -> str:
    """ "p = 0.032", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
