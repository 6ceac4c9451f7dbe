"""An evaluation for people: lines for a terminal, and an HTML page with its styles, plots and pictures inside."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.analyse.evaluation.metrics import MAIN
from searchengine.analyse.evaluation.results import (
    LEAVE_ONE_OUT,
    Comparison,
    Difference,
    Evaluation,
    Figure,
    first_of,
)
from searchengine.analyse.evaluation.statistics import p_text, signed
from searchengine.errors import ImageError, IndexingError
from searchengine.files import read_regular
from searchengine.images import thumbnail
from searchengine.index.metrics import metric_title

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment

_HARDEST = 5
_CONFUSED = 5
_BELOW = 0.995  # a ceiling worth a remark
_HERE = Path(__file__).parent
_IN_HEAT_MAP = 60  # classes; more would not be read
_IN_TABLE = 200
_DIFFERING = 5  # classes at each end of a comparison
_THUMBNAIL = 192  # px: twice what is shown, for fine screens


def grouped(number: int) -> str:
    """4523 -> "4 523"."""
    return f"{number:,}".replace(",", " ")


def decimal(number: float) -> str:
    """Three places, and no minus before a zero."""
    return f"{number:.3f}".replace("-0.000", "0.000")


def percent(share: float) -> str:
    """0.934 -> "93 %"; only 0 and 1 themselves become 0 % and 100 %."""
    rounded = f"{100 * share:.0f}"
    if rounded == "100" and share < 1:
        return "> 99\N{NO-BREAK SPACE}%"
    if rounded == "0" and share > 0:
        return "< 1\N{NO-BREAK SPACE}%"
    return f"{rounded}\N{NO-BREAK SPACE}%"


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
            which = f" ({first_of(counts.alone)})" if counts.alone else ""
            sentences.append(f"{_count(counts.irrelevant, 'image')} whose label no other image has{which}: no queries.")
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


# -- one HTML page ----------------------------------------------------------------------------------------------------


def check_report(file: Path) -> None:
    """IndexingError if a report could not be written there; asked before the work is done."""
    if file.is_dir():
        raise IndexingError(f"{file} is a folder. Name the file of the report, e.g. {file / 'report.html'}.")
    folder = file.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise IndexingError(f"{file} cannot be written: {folder} is no folder that may be written to.")


def write_report(file: Path, evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> int:
    """Write the report, whole or not at all; returns its size in bytes. IndexingError if it cannot be written."""
    from searchengine.files import output_file

    page = render(evaluations, comparisons).encode()
    with output_file(file) as part:
        part.write_bytes(page)
    return len(page)


def templates() -> Mapping[str, BaseLoader]:
    """The loader of the templates below ``evaluation/``, for environments that include them."""
    from jinja2 import FileSystemLoader

    return {"evaluation": FileSystemLoader(_HERE)}


def render(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The report as HTML."""
    return (
        _environment()
        .get_template("evaluation/report.html")
        .render(
            title=" and ".join(evaluation.name for evaluation in evaluations)
            if len(evaluations) < 3
            else f"{len(evaluations)} rankings compared",
            evaluations=[shown(evaluation) for evaluation in evaluations],
            rows=list(zip(*((*evaluation.figures, evaluation.by_class) for evaluation in evaluations), strict=True)),
            comparisons=[(comparison, *_ends(comparison), _scale(comparison)) for comparison in comparisons],
            main=MAIN,
        )
    )


def shown(evaluation: Evaluation) -> dict[str, Any]:
    """What the templates show of one index, besides the results themselves."""
    return {
        "it": evaluation,
        "metric": metric_title(evaluation.metric),
        "protocol": protocol(evaluation),
        "remarks": [*left_out(evaluation), *evaluation.notes],
        "lead": _lead(evaluation),
        "ceilings": ceilings(evaluation),
        "classes": evaluation.classes[:_IN_TABLE],
        "more_classes": max(0, len(evaluation.classes) - _IN_TABLE),
        "heat": HeatMap.of(evaluation),
    }


def _lead(evaluation: Evaluation) -> str:
    first, tenth = evaluation.figure("P@1").value, evaluation.figure("P@10").value
    alike = "has the same label" if evaluation.counts.several_labels == 0 else "shares a label"
    return (
        f"For {percent(first)} of {_count(evaluation.counts.queries, 'picture')}, the first answer {alike}; of the "
        f"first ten answers, {tenth * 10:.1f} do on average."
    )


def _ends(comparison: Comparison) -> tuple[list[Any], list[Any]]:
    """The classes that gain most in the first, and in the second."""
    first = [row for row in comparison.classes if row.first > row.second][:_DIFFERING]
    second = [row for row in reversed(comparison.classes) if row.second > row.first][:_DIFFERING]
    return first, second


def _scale(comparison: Comparison) -> float:
    """The greatest distance from zero that the plot of differences has to show."""
    return max(
        1e-6,
        *(abs(end) for row in comparison.differences for end in (row.low, row.high, row.difference) if end is not None),
    )


def _environment() -> Environment:
    from jinja2 import Environment, PrefixLoader, StrictUndefined

    environment = Environment(
        loader=PrefixLoader(templates()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        decimal=decimal,
        signed=signed,
        percent=percent,
        grouped=grouped,
        interval=interval_text,
        p=p_text,
        uri=_data_uri,
        whole=lambda sentence: sentence.replace(" %", "\N{NO-BREAK SPACE}%"),  # not broken at the end of a line
    )
    return environment


@lru_cache(maxsize=512)
def _data_uri(file: Path | None) -> str | None:
    """A small JPEG as a ``data:`` address; None if there is no picture, or it cannot be read."""
    if file is None:
        return None
    try:
        small = thumbnail(read_regular(file), max_side=_THUMBNAIL)
    except (OSError, ImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(small).decode("ascii")


# -- the plot of confusions; ``sections.html`` draws it, and the curves ------------------------------------------------

_CELL = 15  # px at least, and at most twice that where there are few classes
_HEAT = 600
_LETTERS = 17  # of a label
_LETTER = 6.6  # px
_MIN_SHARE = 0.01  # a smaller share leaves its cell empty


@dataclass(frozen=True, slots=True)
class HeatMap:
    """For queries of each label (rows), the share of the first ten places that each label (columns) takes.

    ``shares`` has a line for each row, None for an empty cell. ``cell`` is its side, and ``edge`` where the cells
    begin, in pixels.
    """

    labels: Sequence[str]
    shares: Sequence[Sequence[float | None]]
    cell: int
    edge: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> HeatMap | None:
        """None where there are too many labels to be read."""
        right = {result.label: result.figure("P@10").value for result in evaluation.classes}
        labels, wrong = sorted(right), evaluation.confusion
        if len(labels) > _IN_HEAT_MAP:
            return None
        shares = [[right[row] if row == other else wrong.get((row, other), 0.0) for other in labels] for row in labels]
        return cls(
            labels,
            [[share if share >= _MIN_SHARE else None for share in row] for row in shares],
            cell=max(_CELL, min(2 * _CELL, _HEAT // max(len(labels), 1))),
            edge=round(12 + _LETTER * min(_LETTERS, max(map(len, labels), default=0))),
        )

    @property
    def side(self) -> int:
        """Of all cells together, in pixels."""
        return self.cell * len(self.labels)

    def short(self, label: str) -> str:
        """A label as it fits beside the cells."""
        return label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
