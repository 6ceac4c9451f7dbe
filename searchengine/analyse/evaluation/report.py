"""The report: one HTML file with its styles, plots and pictures inside, for any browser and without a network."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.analyse.evaluation import charts, metrics, wording
from searchengine.analyse.evaluation.comparing import p_text, signed
from searchengine.analyse.evaluation.results import Comparison, Evaluation
from searchengine.errors import ImageError, IndexingError
from searchengine.files import read_regular
from searchengine.images import thumbnail
from searchengine.index.metrics import metric_title

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment

_HERE = Path(__file__).parent
_IN_HEAT_MAP = 60  # classes; more would not be read
_IN_TABLE = 200
_DIFFERING = 5  # classes at each end of a comparison
_THUMBNAIL = 192  # px: twice what is shown, for fine screens


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
    main = metrics.MAIN
    return (
        _environment()
        .get_template("evaluation/report.html")
        .render(
            title=" and ".join(evaluation.name for evaluation in evaluations)
            if len(evaluations) < 3
            else f"{len(evaluations)} rankings compared",
            style=(_HERE / "report.css").read_text(encoding="utf-8"),
            evaluations=[shown(evaluation) for evaluation in evaluations],
            rows=list(zip(*((*evaluation.figures, evaluation.by_class) for evaluation in evaluations), strict=True)),
            comparisons=[(comparison, *_ends(comparison), _scale(comparison)) for comparison in comparisons],
            curves=charts.curves([(evaluation.name, evaluation.curve) for evaluation in evaluations]),
            main=main,
        )
    )


def shown(evaluation: Evaluation) -> dict[str, Any]:
    """What the templates show of one index, besides the results themselves."""
    right = {result.label: result.figure("P@10").value for result in evaluation.classes}
    labels = sorted(right)
    return {
        "it": evaluation,
        "metric": metric_title(evaluation.metric),
        "protocol": wording.protocol(evaluation),
        "remarks": [*wording.left_out(evaluation), *evaluation.notes],
        "lead": _lead(evaluation),
        "ceilings": wording.ceilings(evaluation),
        "classes": evaluation.classes[:_IN_TABLE],
        "more_classes": max(0, len(evaluation.classes) - _IN_TABLE),
        "heat": charts.heat(labels, right, evaluation.confusion) if len(labels) <= _IN_HEAT_MAP else None,
    }


def _lead(evaluation: Evaluation) -> str:
    first, tenth, main = (evaluation.figure(name) for name in ("P@1", "P@10", metrics.MAIN))
    nearest, others = (
        ("is of the same class", "are") if evaluation.counts.several_labels == 0 else ("shares a label", "do")
    )
    sure = f" (95\N{NO-BREAK SPACE}% interval {wording.interval_text(main)})" if main.low is not None else ""
    return (
        f"For {_percent(first.value)} of the queries the nearest image {nearest}; of the first ten, "
        f"{tenth.value * 10:.1f} {others} on average. Mean average precision is {main.value:.3f}{sure}."
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
        decimal=lambda number: f"{number:.3f}",
        signed=signed,
        percent=_percent,
        grouped=wording.grouped,
        interval=wording.interval_text,
        p=p_text,
        uri=_data_uri,
        whole=lambda sentence: sentence.replace(" %", "\N{NO-BREAK SPACE}%"),  # not broken at the end of a line
    )
    return environment


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


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
