"""An evaluation in words and columns, for a terminal; the report shares the words."""

from __future__ import annotations

from collections.abc import Sequence

from searchengine.analyse.evaluation.comparing import p_text, signed
from searchengine.analyse.evaluation.metrics import MAIN
from searchengine.analyse.evaluation.protocols import LEAVE_ONE_OUT
from searchengine.analyse.evaluation.results import Comparison, Difference, Evaluation, Figure
from searchengine.index.metrics import metric_title

_HARDEST = 5
_CONFUSED = 5
_BELOW = 0.995  # a ceiling worth a remark


def grouped(number: int) -> str:
    """4523 -> "4523", 100000 -> "100,000"."""
    return str(number) if number < 10_000 else f"{number:,}"


def asked(evaluation: Evaluation) -> str:
    """Who asked whom, e.g. "leave-one-out: each of 713 images against the 712 others, 10 labels"."""
    counts = evaluation.counts
    if evaluation.protocol == LEAVE_ONE_OUT:
        who = "each" if counts.queries == counts.collection else f"{grouped(counts.queries)}"
        told = f"{who} of {grouped(counts.collection)} images against the {grouped(counts.collection - 1)} others"
    else:
        told = f"{_count(counts.queries, 'query image')} against the {grouped(counts.collection)} of the index"
    return f"{evaluation.protocol}: {told}, {_count(counts.labels, 'label')}"


def left_out(evaluation: Evaluation) -> list[str]:
    """Which images were no queries, and why."""
    counts = evaluation.counts
    told = []
    if counts.unlabelled:
        where = "they are ranked but do not ask" if evaluation.protocol == LEAVE_ONE_OUT else "they cannot be judged"
        told.append(f"{_count(counts.unlabelled, 'image')} without a label: {where}.")
    if counts.irrelevant:
        if evaluation.protocol == LEAVE_ONE_OUT:
            named = f" ({_named(counts.alone)})" if counts.alone else ""
            told.append(f"{_count(counts.irrelevant, 'image')} whose label no other image has{named}: no queries.")
        else:
            told.append(f"{_count(counts.irrelevant, 'query image')} of which the index holds no like: left out.")
    if counts.unreadable:
        told.append(f"{_count(counts.unreadable, 'query file')} could not be read: left out.")
    return told


def ceilings(evaluation: Evaluation) -> str | None:
    """What even a perfect ranking could not have, where that is less than 1."""
    low = [figure for figure in evaluation.figures if figure.ceiling < _BELOW]
    if not low:
        return None
    return "At best, classes being as large as they are: " + ", ".join(
        f"{figure.name} {figure.ceiling:.3f}" for figure in low
    )


def as_text(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> list[str]:
    """Lines for a terminal: one index in detail, or several side by side with what can be said of them."""
    lines: list[str] = []
    for evaluation in evaluations:
        extractor = f"{evaluation.extractor}; " if evaluation.extractor else ""
        lines.append(f"{evaluation.name}: {extractor}{metric_title(evaluation.metric)}")
        lines.append(f"  {asked(evaluation)}")
        lines += [f"  {sentence}" for sentence in (*left_out(evaluation), *evaluation.notes)]
    lines.append("")
    lines += _single(evaluations[0]) if len(evaluations) == 1 else _side_by_side(evaluations)
    for comparison in comparisons:
        lines += ["", *_compared(comparison)]
    return lines


def _single(evaluation: Evaluation) -> list[str]:
    lines = [f"{'':12}  value  95 % interval"]
    lines += [
        f"{figure.name:12}  {figure.value:.3f}  {interval_text(figure)}"
        for figure in (*evaluation.figures, evaluation.by_class)
    ]
    best = ceilings(evaluation)
    lines += [best] if best else []
    hard = [one for one in evaluation.classes[:_HARDEST] if one.figure(MAIN).value < 1.0]
    lines += ["", f"Hardest classes ({MAIN}):" if hard else f"No class is hard: {MAIN} is 1 for each."]
    for one in hard:
        figure = one.figure(MAIN)
        taken = f"; most often {one.taken_for} instead" if one.taken_for else ""
        lines.append(f"  {figure.value:.3f}  {interval_text(figure):13}  {one.label} ({one.images} images{taken})")
    if evaluation.confused:
        lines += ["", "Most often confused, by the share of the first ten places:"]
        lines += [f"  {one.share:4.0%}  {one.label}: {one.taken_for}" for one in evaluation.confused[:_CONFUSED]]
    return lines


def _side_by_side(evaluations: Sequence[Evaluation]) -> list[str]:
    width = max(20, *(len(one.name) for one in evaluations))
    lines = ["".join([f"{'':12}", *(f"  {one.name:>{width}}" for one in evaluations)])]
    for row in zip(*((*one.figures, one.by_class) for one in evaluations), strict=True):
        cells = [f"{figure.value:.3f} ({interval_text(figure)})" for figure in row]
        lines.append("".join([f"{row[0].name:12}", *(f"  {cell:>{width}}" for cell in cells)]))
    return lines


def _compared(comparison: Comparison) -> list[str]:
    return [
        comparison.sentence,
        *comparison.notes,
        f"  Before: {comparison.first}. After: {comparison.second}. The difference is after minus before.",
        f"  {'':12}  before  after  difference  {'on photos like these':27}  on this very collection",
        *(
            f"  {one.name:12}   {one.first:.3f}  {one.second:.3f}  {signed(one.difference):>10}  {_between(one)}  "
            f"{p_text(one.p):9}  {signed(one.low_here):>6} to {signed(one.high_here):6}  {p_text(one.p_here)}"
            for one in comparison.differences
        ),
    ]


def _between(one: Difference) -> str:
    if one.low is None or one.high is None:
        return f"{'-':>6}{'':10}"
    return f"{signed(one.low):>6} to {signed(one.high):6}"


def interval_text(figure: Figure) -> str:
    """ "0.412 to 0.438", or "-" where there is none."""
    return "-" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"


def _count(count: int, what: str) -> str:
    return f"{grouped(count)} {what}{'' if count == 1 else 's'}"


def _named(labels: Sequence[str], most: int = 5) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more
