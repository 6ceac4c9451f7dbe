"""Reports of evaluations: lines for a terminal, and an HTML page with its styles, plots and pictures embedded."""

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
from searchengine.files import output_file, read_regular
from searchengine.images import thumbnail
from searchengine.index.metrics import metric_title

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment

_HARDEST = 5  # classes listed in a terminal
_CONFUSED = 5  # pairs listed in a terminal
_LOW_CEILING = 0.995  # ceilings below this are reported
_TEMPLATES = Path(__file__).parent
_IN_HEAT_MAP = 60  # classes; more would be illegible
_IN_TABLE = 200  # classes
_DIFFERING = 5  # classes at each end of a comparison
_THUMBNAIL = 192  # px, twice the size shown, for high-resolution screens


def grouped(number: int) -> str:
    """Format a number with grouped digits: 4523 -> "4 523"."""
    return f"{number:,}".replace(",", " ")


def decimal(number: float) -> str:
    """Format a number with three decimals, and without a minus if it rounds to zero."""
    return f"{number:.3f}".replace("-0.000", "0.000")


def percent(share: float) -> str:
    """Format a fraction in percent: 0.934 -> "93 %". Only 0 and 1 themselves become 0 % and 100 %."""
    rounded = f"{100 * share:.0f}"
    if rounded == "100" and share < 1:
        return "> 99\N{NO-BREAK SPACE}%"
    if rounded == "0" and share > 0:
        return "< 1\N{NO-BREAK SPACE}%"
    return f"{rounded}\N{NO-BREAK SPACE}%"


def protocol(evaluation: Evaluation) -> str:
    """Describe the protocol, e.g. "leave-one-out: each of 713 images against the 712 others, 10 labels"."""
    counts = evaluation.counts
    if evaluation.protocol == LEAVE_ONE_OUT:
        which = "each" if counts.queries == counts.collection else grouped(counts.queries)
        queries = f"{which} of {grouped(counts.collection)} images against the {grouped(counts.collection - 1)} others"
    else:
        queries = f"{_count(counts.queries, 'query image')} against the {grouped(counts.collection)} of the index"
    return f"{evaluation.protocol}: {queries}, {_count(counts.labels, 'label')}"


def left_out(evaluation: Evaluation) -> list[str]:
    """Explain which images were not queries, and why."""
    counts = evaluation.counts
    sentences = []
    if counts.unlabelled:
        treatment = "ranked, but not queries" if evaluation.protocol == LEAVE_ONE_OUT else "left out"
        sentences.append(f"{_count(counts.unlabelled, 'image')} without a label: {treatment}.")
    if counts.irrelevant:
        if evaluation.protocol == LEAVE_ONE_OUT:
            which = f" ({first_of(counts.alone)})" if counts.alone else ""
            sentences.append(
                f"{_count(counts.irrelevant, 'image')} whose label no other image has{which}: not queries."
            )
        else:
            sentences.append(
                f"{_count(counts.irrelevant, 'query image')} whose labels no image of the index shares: left out."
            )
    if counts.unreadable:
        sentences.append(f"{_count(counts.unreadable, 'query file')} could not be read: left out.")
    return sentences


def ceilings(evaluation: Evaluation) -> str | None:
    """List the scores of a perfect ranking that are below 1, if any."""
    low = [figure for figure in evaluation.figures if figure.ceiling < _LOW_CEILING]
    if not low:
        return None
    return "A perfect ranking of these classes would have: " + ", ".join(
        f"{figure.name} {figure.ceiling:.3f}" for figure in low
    )


def as_text(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> list[str]:
    """Return lines for a terminal: one index in detail, or several side by side with their comparisons."""
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
        lines += ["", "Most often confused, with the share of the first ten places:"]
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
    """Format the interval of a figure as "0.412 to 0.438", or "-" if it has none."""
    return "-" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"


def _count(count: int, what: str) -> str:
    return f"{grouped(count)} {what}{'' if count == 1 else 's'}"


# -- one HTML page ----------------------------------------------------------------------------------------------------


def check_report(file: Path) -> None:
    """Raise IndexingError if a report could not be written to a file, to be called before the work begins."""
    if file.is_dir():
        raise IndexingError(f"{file} is a folder. Name a file for the report, e.g. {file / 'report.html'}.")
    folder = file.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise IndexingError(f"{file} cannot be written: {folder} is not a writable folder.")


def write_report(file: Path, evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> int:
    """Write the report in one step, and return its size in bytes; IndexingError if it cannot be written."""
    page = render(evaluations, comparisons).encode()
    with output_file(file) as part:
        part.write_bytes(page)
    return len(page)


def templates() -> Mapping[str, BaseLoader]:
    """Return the loader of the templates below ``evaluation/``, for environments that include them."""
    from jinja2 import FileSystemLoader

    return {"evaluation": FileSystemLoader(_TEMPLATES)}


def render(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """Render the report as HTML."""
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
    """Return the variables of the templates for one index: the evaluation (``it``) and texts about it."""
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
    right = "has the same label" if evaluation.counts.several_labels == 0 else "shares a label"
    return (
        f"For {percent(first)} of {_count(evaluation.counts.queries, 'picture')}, the first answer {right}; of the "
        f"first ten answers, {tenth * 10:.1f} do on average."
    )


def _ends(comparison: Comparison) -> tuple[list[Any], list[Any]]:
    """Return the classes that are better in the first evaluation, and those that are better in the second."""
    first = [row for row in comparison.classes if row.first > row.second][:_DIFFERING]
    second = [row for row in reversed(comparison.classes) if row.second > row.first][:_DIFFERING]
    return first, second


def _scale(comparison: Comparison) -> float:
    """Return the largest distance from zero that the plot of differences has to show."""
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
        whole=lambda sentence: sentence.replace(" %", "\N{NO-BREAK SPACE}%"),  # keep numbers and % on one line
    )
    return environment


@lru_cache(maxsize=512)
def _data_uri(file: Path | None) -> str | None:
    """Encode a small JPEG as a ``data:`` address; None if there is no picture, or it cannot be read."""
    if file is None:
        return None
    try:
        small = thumbnail(read_regular(file), max_side=_THUMBNAIL)
    except (OSError, ImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(small).decode("ascii")


# -- the heat map of confusions, drawn by ``sections.html`` ------------------------------------------------------------

_CELL = 15  # px at least; up to twice that if there are few classes
_HEAT = 600  # px, side of all cells together, about
_LETTERS = 17  # of a label at most
_LETTER = 6.6  # px, width
_MIN_SHARE = 0.01  # cells with smaller shares are empty


@dataclass(frozen=True, slots=True)
class HeatMap:
    """For queries of each label (rows), the share of the first ten places that each label (columns) takes.

    ``shares`` is a list of rows; empty cells are None. ``cell`` is the side of a cell and ``edge`` the space before the
    first one, in pixels.
    """

    labels: Sequence[str]
    shares: Sequence[Sequence[float | None]]
    cell: int
    edge: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> HeatMap | None:
        """Make the heat map; None if there are too many labels for it to be legible."""
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
        """The side of all cells together, in pixels."""
        return self.cell * len(self.labels)

    def short(self, label: str) -> str:
        """Shorten a label to fit beside the cells."""
        return label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
