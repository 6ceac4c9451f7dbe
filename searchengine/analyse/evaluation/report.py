"""The report: one HTML file with its styles, plots and pictures inside, for any browser and without a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.analyse.evaluation import charts, metrics, wording
from searchengine.analyse.evaluation.comparing import p_text, signed
from searchengine.analyse.evaluation.pictures import data_uri
from searchengine.analyse.evaluation.results import Comparison, Evaluation
from searchengine.errors import IndexingError
from searchengine.index.metrics import metric_title

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment

_HERE = Path(__file__).parent
_IN_HEAT_MAP = 60  # classes; more would not be read
_IN_TABLE = 200
_DIFFERING = 5  # classes at each end of a comparison


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
    """Where templates below ``evaluation/`` are, for an environment that wants to include them."""
    from jinja2 import FileSystemLoader

    return {"evaluation": FileSystemLoader(_HERE)}


def render(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> str:
    """The report as HTML."""
    main = metrics.MAIN
    return (
        _environment()
        .get_template("evaluation/report.html")
        .render(
            title=" and ".join(one.name for one in evaluations)
            if len(evaluations) < 3
            else f"{len(evaluations)} rankings compared",
            style=(_HERE / "report.css").read_text(encoding="utf-8"),
            evaluations=[shown(one) for one in evaluations],
            rows=list(zip(*((*one.figures, one.by_class) for one in evaluations), strict=True)),
            comparisons=[(one, *_ends(one), _scale(one)) for one in comparisons],
            curves=charts.curves([(one.name, one.curve) for one in evaluations]),
            main=main,
        )
    )


def shown(evaluation: Evaluation) -> dict[str, Any]:
    """What the template needs to know of one index besides the results themselves."""
    labels = sorted(one.label for one in evaluation.classes)
    right = {one.label: one.figure("P@10").value for one in evaluation.classes}
    return {
        "it": evaluation,
        "metric": metric_title(evaluation.metric),
        "asked": wording.asked(evaluation),
        "remarks": [*wording.left_out(evaluation), *evaluation.notes],
        "lead": _lead(evaluation),
        "ceilings": wording.ceilings(evaluation),
        "classes": evaluation.classes[:_IN_TABLE],
        "more_classes": max(0, len(evaluation.classes) - _IN_TABLE),
        "heat": charts.heat(labels, right, evaluation.confusion) if len(labels) <= _IN_HEAT_MAP else None,
    }


def _lead(evaluation: Evaluation) -> str:
    first, tenth, main = (evaluation.figure(name) for name in ("P@1", "P@10", metrics.MAIN))
    one = "is of the same class" if evaluation.counts.several_labels == 0 else "shares a label"
    are = "are" if one.startswith("is") else "do"
    sure = f" (95\N{NO-BREAK SPACE}% interval {wording.interval_text(main)})" if main.low is not None else ""
    return (
        f"For {_percent(first.value)} of the queries the nearest image {one}; of the first ten, "
        f"{tenth.value * 10:.1f} {are} on average. Mean average precision is {main.value:.3f}{sure}."
    )


def _ends(comparison: Comparison) -> tuple[list[Any], list[Any]]:
    """The classes that gain most in the first, and in the second."""
    first = [one for one in comparison.classes if one.first > one.second][:_DIFFERING]
    second = [one for one in reversed(comparison.classes) if one.second > one.first][:_DIFFERING]
    return first, second


def _scale(comparison: Comparison) -> float:
    """The greatest distance from zero that the plot of differences has to show."""
    return max(
        1e-6,
        *(abs(end) for one in comparison.differences for end in (one.low, one.high, one.difference) if end is not None),
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
        decimal=lambda number: f"{number:.3f}",
        signed=signed,
        percent=_percent,
        grouped=wording.grouped,
        interval=wording.interval_text,
        p=p_text,
        uri=data_uri,
        whole=lambda sentence: sentence.replace(" %", "\N{NO-BREAK SPACE}%"),  # not broken at the end of a line
    )
    return environment


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
