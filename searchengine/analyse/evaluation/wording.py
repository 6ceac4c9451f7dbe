"""An evaluation in words and columns, for a terminal; the report shares the words."""

from __future__ import annotations

from collections.abc import Sequence

from searchengine.analyse.evaluation.comparing import p_text, signed
from searchengine.analyse.evaluation.metrics import MAIN
from searchengine.analyse.evaluation.results import (
    LEAVE_ONE_OUT,
    Comparison,
    Difference,
    Evaluation,
    Figure,
    first_of,
)
from searchengine.index.metrics import metric_title

_HARDEST = 5
_CONFUSED = 5
_BELOW = 0.995  # a ceiling worth a remark


def grouped(number: int) -> str:
    """4523 -> "4523", 100000 -> "100,000"."""
    return str(number) if number < 10_000 else f"{number:,}"


def protocol(evaluation: Evaluation) -> str:
    """The protocol, e.g. "leave-one-out: each of 713 images against the 712 others, 10 labels"."""
    counts = evaluation.counts
    if evaluation.protocol == LEAVE_ONE_OUT:
        who = "each" if counts.queries == counts.collection else f"{grouped(counts.queries)}"
        queries = f"{who} of {grouped(counts.collection)} images against the {grouped(counts.collection - 1)} others"
    else:
        queries = f"{_count(counts.queries, 'query image')} against the {grouped(counts.collection)} of the index"
    return f"{evaluation.protocol}: {queries}, {_count(counts.labels, 'label')}"


def left_out(evaluation: Evaluation) -> list[str]:
    """Which images were no queries, and why."""
    counts = evaluation.counts
    sentences = []
    if counts.unlabelled:
        where = (
            "they are ranked but are no queries" if evaluation.protocol == LEAVE_ONE_OUT else "they cannot be judged"
        )
        sentences.append(f"{_count(counts.unlabelled, 'image')} without a label: {where}.")
    if counts.irrelevant:
        if evaluation.protocol == LEAVE_ONE_OUT:
            named = f" ({first_of(counts.alone)})" if counts.alone else ""
            sentences.append(f"{_count(counts.irrelevant, 'image')} whose label no other image has{named}: no queries.")
        else:
            sentences.append(
                f"{_count(counts.irrelevant, 'query image')} whose labels no image of the index shares: left out."
            )
    if counts.unreadable:
        sentences.append(f"{_count(counts.unreadable, 'query file')} could not be read: left out.")
    return sentences


def ceilings(evaluation: Evaluation) -> str | None:
    """What a perfect ranking would score, where that is less than 1."""
    low = [figure for figure in evaluation.figures if figure.ceiling < _BELOW]
    if not low:
        return None
    return "At best, classes being as large as they are: " + ", ".join(
        f"{figure.name} {figure.ceiling:.3f}" for figure in low
    )


def as_text(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> list[str]:
    """Lines for a terminal: one index in detail, or several side by side with their comparisons."""
    lines: list[str] = []
    for evaluation in evaluations:
        extractor = f"{evaluation.extractor}; " if evaluation.extractor else ""
        lines.append(f"{evaluation.name}: {extractor}{metric_title(evaluation.metric)}")
        lines.append(f"  {protocol(evaluation)}")
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
    hard = [result for result in evaluation.classes[:_HARDEST] if result.figure(MAIN).value < 1.0]
    lines += ["", f"Hardest classes ({MAIN}):" if hard else f"No class is hard: {MAIN} is 1 for each."]
    for result in hard:
        figure = result.figure(MAIN)
        taken = f"; most often {result.taken_for} instead" if result.taken_for else ""
        lines.append(
            f"  {figure.value:.3f}  {interval_text(figure):13}  {result.label} ({result.images} images{taken})"
        )
    if evaluation.confused:
        lines += ["", "Most often confused, by the share of the first ten places:"]
        lines += [f"  {pair.share:4.0%}  {pair.label}: {pair.taken_for}" for pair in evaluation.confused[:_CONFUSED]]
    return lines


def _side_by_side(evaluations: Sequence[Evaluation]) -> list[str]:
    width = max(20, *(len(evaluation.name) for evaluation in evaluations))
    lines = ["".join([f"{'':12}", *(f"  {evaluation.name:>{width}}" for evaluation in evaluations)])]
    for row in zip(*((*evaluation.figures, evaluation.by_class) for evaluation in evaluations), strict=True):
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
            f"  {row.name:12}   {row.first:.3f}  {row.second:.3f}  {signed(row.difference):>10}  {_between(row)}  "
            f"{p_text(row.p):9}  {signed(row.low_here):>6} to {signed(row.high_here):6}  {p_text(row.p_here)}"
            for row in comparison.differences
        ),
    ]


def _between(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return f"{'-':>6}{'':10}"
    return f"{signed(difference.low):>6} to {signed(difference.high):6}"


def interval_text(figure: Figure) -> str:
    """ "0.412 to 0.438", or "-" where there is none."""
    return "-" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"


def _count(count: int, what: str) -> str:
    return f"{grouped(count)} {what}{'' if count == 1 else 's'}"
