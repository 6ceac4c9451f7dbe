"""``searchengine evaluate``: how good the answers of an index are, or which of several indexes is the better one."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchengine.address import Address, name_of
from searchengine.cli.command import COUNT, PATH, choice, json_flag, option, options, verb
from searchengine.cli.options import ENGINE, MILVUS, open_engine, settings_options
from searchengine.cli.output import print_json, print_note, print_result
from searchengine.errors import IndexingError, QueryError
from searchengine.files import file_size
from searchengine.index.metrics import METRICS, rank_alike
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.analyse.evaluation import Evaluation, EvaluationOptions
    from searchengine.analyse.evaluation.results import Source
    from searchengine.engine import SearchEngine
    from searchengine.settings import Settings

_EXAMPLES = """\
examples:
  searchengine evaluate
  searchengine evaluate --index-dir fc1 --index-dir fc2 --report fc1-fc2.html
  searchengine evaluate --index-dir raw --metric euclidean cosine manhattan
  searchengine evaluate --queries new-photos --json

docs/EVALUATION.md says what each number means.
"""


@verb("evaluate", "measure how good the answers are, by labels", _EXAMPLES)
@settings_options(*ENGINE, *MILVUS, several=True)
@option("--queries DIR", "use these images as queries, in a folder for each label", PATH)
@options(
    "--metric",
    "the metric of distances, or several to compare (default: that of the index)",
    choice(*METRICS),
    name="metrics",
    greedy=True,
)
@options("--recall-at K", "each k of recall@k (default: 10 100)", COUNT, greedy=True)
@option("--report FILE.html", "write a report with plots and pictures, in one file", PATH)
@option("--seed N", "of the random resampling; the same seed gives the same figures (default: 0)", click.INT, default=0)
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
    """Measure how good the answers of an index are, by its labels.

    Each labelled image is a query for all others (leave-one-out), and an answer is right if it shares a label. With
    --queries, other images are the queries. Means come with 95 % intervals. With several indexes, or several metrics,
    the differences are tested over their common queries, so that "is fc1 better than fc2 on my photos" has an answer.
    The leave-one-out result by the index's own metric is stored with the index and shown on the page /evaluation.
    """
    from searchengine.analyse.evaluation import EvaluationOptions, compare, find_queries, to_json
    from searchengine.analyse.evaluation.metrics import RECALL_AT
    from searchengine.analyse.evaluation.report import as_text, check_report, write_report

    if seed < 0:
        raise QueryError(f"--seed must be a whole number of at least 0, not {seed}.")
    if report is not None:
        check_report(report)  # refused before the work, not after
    if queries is not None:
        find_queries(queries)
    metrics = tuple(dict.fromkeys(metrics))
    addresses = settings.index_dir
    wanted = EvaluationOptions(
        recall_at=tuple(sorted(set(recall_at))) or RECALL_AT,
        seed=seed,
        comparable=len(addresses) > 1 or len(metrics) > 1,
    )
    evaluations: list[Evaluation] = []
    for address, name in zip(addresses, _names(addresses), strict=True):
        with closing(open_engine(settings, address)) as engine:
            evaluations += _evaluate(engine, replace(wanted, name=name), metrics, queries)
    comparisons = compare(evaluations, seed=seed)
    if as_json:
        print_json({"evaluations": to_json(evaluations), "comparisons": to_json(comparisons)})
    else:
        for line in as_text(evaluations, comparisons):
            print_result(line)
    if report is not None:
        size = write_report(report, evaluations, comparisons)
        print_note(f"{report}: the report, {file_size(size)}, in one file.")


def _evaluate(
    engine: SearchEngine, wanted: EvaluationOptions, metrics: tuple[str, ...], queries: Path | None
) -> list[Evaluation]:
    """One index, by each metric that is asked for."""
    from searchengine.analyse.evaluation import evaluation_source, leave_one_out, query_folder, read_queries

    name = wanted.name or name_of(engine.index.address)
    metrics = metrics or (engine.index.metric,)
    _note_alike(engine, metrics, name)
    query_set = None
    if queries is not None:
        with Bar() as bar:
            query_set = read_queries(queries, engine.extractor(), bar)
    evaluations = []
    for metric in metrics:
        wanted = replace(wanted, metric=metric, name=f"{name}, {metric}" if len(metrics) > 1 else name)
        source = evaluation_source(engine.index)
        with Bar() as bar:
            if query_set is not None:
                evaluations.append(query_folder(engine.index, query_set, wanted, bar))
                continue
            evaluations.append(leave_one_out(engine.index, wanted, bar))
        if metric == engine.index.metric:
            _keep(engine, evaluations[-1], source)
    return evaluations


def _keep(engine: SearchEngine, evaluation: Evaluation, source: Source) -> None:
    """Keep it with the index, for the page, unless the index cannot be written to."""
    from searchengine.analyse.evaluation import keep_evaluation

    try:
        keep_evaluation(engine.index, evaluation, source)
    except IndexingError as error:
        print_note(f"Not kept for the page: {error}")
    else:
        print_note(f"Kept with {engine.index.folder}: the page /evaluation shows it.")


def _note_alike(engine: SearchEngine, metrics: tuple[str, ...], name: str) -> None:
    normalized = engine.index.normalized
    for first, second in combinations(metrics, 2):
        if rank_alike(first, second, normalized=normalized):
            print_note(f"The features of {name} have length 1: {first} and {second} give the same order.")


def _names(addresses: tuple[Address, ...]) -> list[str]:
    """The last part of each path or address, or the whole where several end alike."""
    short = [name_of(address) for address in addresses]
    times = Counter(short)
    return [str(address) if times[name] > 1 else name for address, name in zip(addresses, short, strict=True)]
