"""Commands that analyse a whole collection: ``searchengine neighbours``, ``map``, ``cluster`` and ``evaluate``."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.address import Address, name_of
from searchengine.cli.command import COUNT, PATH, choice, flag, json_flag, option, options, verb
from searchengine.cli.options import (
    ENGINE,
    INDEX,
    INDEX_DIRS,
    MILVUS,
    metric_option,
    open_engine,
    open_index,
    settings_options,
)
from searchengine.cli.output import print_answer, print_json, print_note, print_result
from searchengine.errors import IndexingError, QueryError, with_index_dir
from searchengine.files import file_size
from searchengine.index.metrics import METRICS, rank_alike
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.analyse.evaluation import Evaluation, EvaluationOptions
    from searchengine.engine import SearchEngine
    from searchengine.settings import Settings

_NEIGHBOURS = "Example:\n  searchengine neighbours --index-dir coco -k 10 --out coco-neighbours --pictures"
_MAP = "Example:\n  searchengine map --index-dir coco --png coco-map.png"
_CLUSTER = "Example:\n  searchengine cluster --index-dir coco --out coco-groups"


@verb("neighbours", _NEIGHBOURS)
@settings_options(*INDEX)
@option("--out DIR", "Folder to write to.", PATH, required=True)
@option("-k K", "Number of neighbours per image (default: 10).", COUNT, default=10)
@metric_option("the metric of the index")
@option(
    "--format",
    "Format of the table (default: csv). parquet needs PyArrow.",
    choice("csv", "parquet"),
    default="csv",
)
@flag("--pictures", "Draw a contact sheet for each image.")
@json_flag
def neighbours(settings: Settings, out: Path, as_json: bool, **flags: Any) -> None:
    """Find the nearest neighbours of every image in an index.

    The search is exact, or finds about 99 % of the neighbours if a large index has a structure for approximate search.

    The neighbours are written to a table, DIR/neighbours.csv, with the columns id, path, label, rank, neighbour,
    neighbour_path, neighbour_label, distance and score. With --pictures, a contact sheet is drawn for each image,
    DIR/pictures/ID.jpg.

    To resume an interrupted run, run the same command again. Existing sheets are drawn again only if a picture that
    they lack has become available. Sheets of images that are no longer in the index are deleted.
    """
    from searchengine.analyse.neighbours import NeighboursOptions, write_neighbours

    with closing(open_index(settings)) as index, Bar() as bar:
        written = write_neighbours(index, out.expanduser(), NeighboursOptions(**flags), bar)
    sheets = f"; {written.pictures} sheets drawn" if flags["pictures"] else ""
    sheets += f", {written.removed} of removed images deleted" if written.removed else ""
    text = f"{written.table}: {written.neighbours} neighbours of {written.images} images by {written.metric}{sheets}"
    print_answer(asdict(written), text, as_json=as_json)


@verb("map", _MAP)
@settings_options(*INDEX)
@option(
    "--perplexity P",
    "Roughly how many neighbours each image should stay close to (default: the value used last time, or 30).",
    click.FLOAT,
)
@option("--iterations N", "Number of t-SNE iterations (default: the value used last time, or 750).", COUNT)
@option("--seed S", "Seed for all randomness (default: the value used last time, or 0).", click.INT)
@flag("--rebuild", "Lay out the whole map again.")
@option("--png FILE", "Also draw the map, as a picture made of the images.", PATH)
@json_flag
def map_(settings: Settings, png: Path | None, as_json: bool, **flags: Any) -> None:
    """Lay out similar images close together on a map, by t-SNE.

    The map is stored in the index folder and shown at /map. If there is a map already, only new or changed images are
    placed on it, and the others stay where they are. Different settings, another model or metric, or --rebuild lay out
    the whole map again. The same settings give the same map. Distances are Euclidean, or cosine if that is the metric
    of the index.
    """
    from searchengine.analyse.map import MapOptions, make_map, write_png

    options = MapOptions(**flags)
    with closing(open_index(settings)) as index, Bar() as bar:
        summary = make_map(index, options, bar)
        drawn = None if png is None else write_png(index, png.expanduser(), bar)
    if as_json:
        print_json({**asdict(summary), "png": None if drawn is None else asdict(drawn)})
        return
    if summary.kept:
        outcome = "nothing new, so the map is unchanged"
    else:
        outcome = "newly made" if summary.whole else f"{summary.placed} placed on the existing map"
    print_result(f"{summary.file}: {_counted(summary.images, 'image')}, {outcome}")
    if drawn is not None:
        print_result(f"{drawn.file}: {drawn.width} x {drawn.height} pixels, each picture within {drawn.side}")
    if options.perplexity is not None and summary.perplexity < options.perplexity:
        print_note(
            f"A perplexity of {options.perplexity:g} needs at least {3 * options.perplexity + 1:.0f} images. "
            f"This map of {summary.of_those_fitted} was made with {summary.perplexity:.3g}."
        )
    if summary.remark:
        print_note(summary.remark)
    if summary.outgrown:
        print_note(
            "Most of the images were added after the map was made. Lay it out again with: "
            f"{with_index_dir('searchengine map --rebuild', settings.index_dir[0])}"
        )


@verb("cluster", _CLUSTER)
@settings_options(*INDEX)
@option("-k K", "Number of clusters (default: chosen by the silhouette of a sample).", COUNT)
@option("--threshold T", "Threshold for near-duplicates, explained above (default: 0.2).", click.FLOAT, default=0.2)
@option("--seed S", "Seed for all randomness (default: 0).", click.INT, default=0)
@option("--out DIR", "Write a contact sheet of each group to this folder, and delete those of an earlier run.", PATH)
@json_flag
def cluster(settings: Settings, out: Path | None, as_json: bool, **flags: Any) -> None:
    """Group similar images by k-means, and find near-duplicates.

    The groups are stored in the index folder and shown at /groups.

    Near-duplicates are images connected by distances of at most the threshold, which is relative to the typical length
    of a feature. For features of length 1 (--normalize l2) it is the Euclidean distance itself, and a threshold of T
    means a cosine of at least 1 - T*T/2: 0.2 means 0.98. Distances are Euclidean whatever the metric of the index; if
    that is cosine, features are scaled to length 1 first.
    """
    from searchengine.analyse.groups import GroupOptions, make_groups

    options = GroupOptions(out=None if out is None else out.expanduser(), **flags)
    with closing(open_index(settings)) as index, Bar() as bar:
        summary = make_groups(index, options, bar)
    if as_json:
        print_json(asdict(summary))
        return
    silhouette = "" if summary.silhouette is None else f" (silhouette {summary.silhouette:.2f})"
    print_result(
        f"{summary.file}: {_counted(summary.images, 'image')} in {_counted(summary.clusters, 'cluster')}{silhouette}; "
        f"{_counted(summary.duplicates, 'group')} of near-duplicates with {_counted(summary.in_duplicates, 'image')}, "
        f"within {summary.limit:.4g}"
    )
    if out is not None:
        print_result(f"{out}: {_counted(summary.sheets, 'contact sheet')}")
    if summary.remark:
        print_note(summary.remark)


def _counted(number: int, noun: str) -> str:
    """1 -> "1 group", 9 -> "9 groups"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


# -- evaluate ----------------------------------------------------------------------------------------------------------

_EVALUATE = """\
Examples:
  searchengine evaluate
  searchengine evaluate --index-dir fc1 --index-dir fc2 --report fc1-fc2.html
  searchengine evaluate --index-dir raw --metric euclidean cosine manhattan
  searchengine evaluate --queries new-photos --json

docs/EVALUATION.md explains the numbers.
"""


@verb("evaluate", _EVALUATE)
@settings_options(*ENGINE, *MILVUS, index_dir=INDEX_DIRS)
@option("--queries DIR", "Use the images in this folder as queries, with one subfolder per label.", PATH)
@options(
    "--metric",
    "Distance metric, or several to compare (default: the metric of the index).",
    choice(*METRICS),
    name="metrics",
    greedy=True,
)
@options("--recall-at K", "One or more values of k for recall@k (default: 10 100).", COUNT, greedy=True)
@option("--report FILE.html", "Write a report with plots and pictures to one file.", PATH)
@option("--seed N", "Seed for the resampling; the same seed gives the same figures (default: 0).", click.INT, default=0)
@json_flag
def evaluate(
    settings: Settings,
    queries: Path | None,
    metrics: tuple[str, ...],
    recall_at: tuple[int, ...],
    report: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure how good the results of an index are, using labels.

    Each labelled image is used as a query for all the others (leave-one-out), and a result is correct if it shares a
    label with the query. With --queries, other images are the queries. Means are given with 95 % intervals.

    With several indexes or metrics, the differences are tested on their common queries, which answers questions such as
    "is fc1 better than fc2 on my photos?". The leave-one-out result for the metric of the index is stored with the
    index and shown at /evaluation.
    """
    from searchengine.analyse.evaluation import EvaluationOptions, check_queries, compare, to_json
    from searchengine.analyse.evaluation.metrics import RECALL_AT
    from searchengine.analyse.evaluation.report import as_text, check_report, write_report

    if seed < 0:
        raise QueryError(f"--seed must be a whole number of at least 0, not {seed}.")
    if report is not None:
        check_report(report)  # before the work, not after it
    if queries is not None:
        check_queries(queries)
    metrics = tuple(dict.fromkeys(metrics))
    addresses = settings.index_dir
    options = EvaluationOptions(
        recall_at=tuple(sorted(set(recall_at))) or RECALL_AT,
        seed=seed,
        comparable=len(addresses) > 1 or len(metrics) > 1,
    )
    evaluations: list[Evaluation] = []
    for address, name in zip(addresses, _names(addresses), strict=True):
        with closing(open_engine(settings, address)) as engine:
            evaluations += _evaluate(engine, replace(options, name=name), metrics, queries)
    comparisons = compare(evaluations, seed=seed)
    answer = {"evaluations": to_json(evaluations), "comparisons": to_json(comparisons)}
    print_answer(answer, "\n".join(as_text(evaluations, comparisons)), as_json=as_json)
    if report is not None:
        size = write_report(report, evaluations, comparisons)
        print_note(f"The report is in {report} ({file_size(size)}).")


def _evaluate(
    engine: SearchEngine, options: EvaluationOptions, metrics: tuple[str, ...], queries: Path | None
) -> list[Evaluation]:
    """Evaluate one index by each of the metrics, or by its own."""
    from searchengine.analyse.evaluation import leave_one_out, query_folder, read_queries

    name = options.name or name_of(engine.index.address)
    metrics = metrics or (engine.index.metric,)
    _note_alike(engine, metrics, name)
    query_set = None
    if queries is not None:
        with Bar() as bar:
            query_set = read_queries(queries, engine.extractor(), bar)
    evaluations = []
    for metric in metrics:
        options = replace(options, metric=metric, name=f"{name}, {metric}" if len(metrics) > 1 else name)
        with Bar() as bar:
            if query_set is not None:
                evaluations.append(query_folder(engine.index, query_set, options, bar))
                continue
            evaluations.append(leave_one_out(engine.index, options, bar))
        if metric == engine.index.metric:
            _store(engine, evaluations[-1])
    return evaluations


def _store(engine: SearchEngine, evaluation: Evaluation) -> None:
    """Store an evaluation with the index, for the page, unless the index is read-only."""
    from searchengine.analyse.evaluation import keep_evaluation

    try:
        keep_evaluation(engine.index, evaluation)
    except IndexingError as error:
        print_note(f"The result was not stored for the page: {error}")
    else:
        print_note(f"The result is stored in {engine.index.folder} and shown at /evaluation.")


def _note_alike(engine: SearchEngine, metrics: tuple[str, ...], name: str) -> None:
    normalized = engine.index.normalized
    for first, second in combinations(metrics, 2):
        if rank_alike(first, second, normalized=normalized):
            print_note(f"The features of {name} have length 1, so {first} and {second} give the same order.")


def _names(addresses: tuple[Address, ...]) -> list[str]:
    """Return the last part of each path or address, or all of it if several have the same last part."""
    short = [name_of(address) for address in addresses]
    times = Counter(short)
    return [str(address) if times[name] > 1 else name for address, name in zip(addresses, short, strict=True)]
