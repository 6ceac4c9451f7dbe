"""``searchengine evaluate``: how good the answers of an index are, or which of several indexes is the better one."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.cli.options import (
    add_images_dir,
    add_json,
    add_running,
    print_json,
    print_note,
    print_result,
    whole_number,
)
from searchengine.index.metrics import METRICS

if TYPE_CHECKING:
    from searchengine.analyse.evaluation import Evaluation
    from searchengine.derived import Source
    from searchengine.engine import SearchEngine

_DESCRIPTION = """\
Measure an index on its labels: each labelled image asks for the others, itself left out (leave-one-out), and an answer
is right if it shares a label. Or ask with a folder of images that stand apart: --queries. Means come with 95 %
intervals. With several indexes, or several metrics, the differences are tested over the queries that all have, so that
"is fc1 better than fc2 on my photos" has an answer. What is measured by the index's own metric, leave-one-out, is kept
with the index, and the page /evaluation shows it.
"""
_EPILOG = """\
examples:
  searchengine evaluate
  searchengine evaluate --index-dir fc1 --index-dir fc2 --report fc1-fc2.html
  searchengine evaluate --index-dir raw --metric euclidean cosine manhattan
  searchengine evaluate --queries new-photos --json

docs/EVALUATION.md says what each number means.
"""


def add_verbs(verbs: Any) -> None:
    """Add ``evaluate``."""
    parser = verbs.add_parser(
        "evaluate",
        help="measure how good the answers are, by labels",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    parser.add_argument(
        "--index-dir",
        metavar="DIR",
        type=Path,
        nargs="+",
        action="extend",
        help="the index folder, or several to compare (default: $SEARCHENGINE_INDEX_DIR, several of them separated by "
        f"{os.pathsep!r}, or ./index)",
    )
    add_images_dir(parser)
    parser.add_argument(
        "--queries", metavar="DIR", type=Path, help="ask with these images, in a folder for each label, instead"
    )
    parser.add_argument(
        "--metric",
        choices=METRICS,
        nargs="+",
        action="extend",
        help="what a distance is measured in, or several to compare (default: that of the index)",
    )
    parser.add_argument(
        "--recall-at", metavar="K", type=whole_number, nargs="+", help="the k of recall@k (default: 10 100)"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", type=Path, help="write a page with plots and pictures, one file"
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="of the random resampling (default: 0); same seed, same figures",
    )
    add_running(parser)
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.analyse.evaluation import compare, find_queries, to_json
    from searchengine.analyse.evaluation.report import check_report, write_report
    from searchengine.analyse.evaluation.wording import as_text
    from searchengine.settings import load_settings

    folders = list(load_settings({"index_dir": options.index_dir or None}, only=("index_dir",)).index_dir)
    if options.seed < 0:
        from searchengine.errors import QueryError

        raise QueryError(f"--seed must be a whole number of at least 0, not {options.seed}.")
    if options.report is not None:
        check_report(options.report)  # told before the work, not after
    if options.queries is not None:
        find_queries(options.queries)
    evaluations: list[Evaluation] = []
    for folder, name in zip(folders, _names(folders), strict=True):
        several = len(folders) > 1 or len(set(options.metric or [])) > 1
        evaluations += _evaluate(folder, name, options, several=several)
    comparisons = compare(evaluations, seed=options.seed)
    if options.json:
        print_json({"evaluations": to_json(evaluations), "comparisons": to_json(comparisons)})
    else:
        for line in as_text(evaluations, comparisons):
            print_result(line)
    if options.report is not None:
        size = write_report(options.report, evaluations, comparisons)
        print_note(f"{options.report}: the report, {size / 1e6:.1f} MB; it stands alone.")
    return 0


def _evaluate(folder: Path, name: str, options: argparse.Namespace, *, several: bool) -> list[Evaluation]:
    """One index, by each metric asked for."""
    from searchengine.analyse.evaluation import (
        EvaluationOptions,
        evaluation_source,
        leave_one_out,
        query_folder,
        read_queries,
    )
    from searchengine.analyse.evaluation.metrics import RECALL_AT
    from searchengine.engine import SearchEngine
    from searchengine.progress import Bar

    engine = SearchEngine.open(
        folder, images_dir=options.images_dir, precision=options.precision, runtime=options.runtime
    )
    try:
        metrics = list(dict.fromkeys(options.metric or [engine.index.metric]))
        _note_alike(engine, metrics, name)
        recall_at = tuple(sorted(set(options.recall_at))) if options.recall_at else RECALL_AT
        asked = None
        if options.queries is not None:
            with Bar() as bar:
                asked = read_queries(options.queries, engine.extractor(), bar)
        found = []
        for metric in metrics:
            wanted = EvaluationOptions(
                metric=metric,
                name=f"{name}, {metric}" if len(metrics) > 1 else name,
                recall_at=recall_at,
                seed=options.seed,
                comparable=several,
            )
            source = evaluation_source(engine.index)
            with Bar() as bar:
                found.append(
                    leave_one_out(engine.index, wanted, bar)
                    if asked is None
                    else query_folder(engine.index, asked, wanted, bar)
                )
            if asked is None and metric == engine.index.metric:
                _keep(engine, found[-1], source)
        return found
    finally:
        engine.close()


def _keep(engine: SearchEngine, evaluation: Evaluation, source: Source) -> None:
    """With the index, for the page; one that cannot be written to does without."""
    from searchengine.analyse.evaluation import keep_evaluation
    from searchengine.errors import IndexingError

    try:
        keep_evaluation(engine.index, evaluation, source)
    except IndexingError as error:
        print_note(f"Not kept for the page: {error}")
    else:
        print_note(f"Kept with {engine.index.folder}: the page /evaluation shows it.")


def _note_alike(engine: SearchEngine, metrics: list[str], name: str) -> None:
    from searchengine.index.metrics import rank_alike

    normalized = engine.index.normalized
    for i, one in enumerate(metrics):
        for other in metrics[i + 1 :]:
            if rank_alike(one, other, normalized=normalized):
                print_note(f"The features of {name} have length 1: {one} and {other} give the same order.")


def _names(folders: list[Path]) -> list[str]:
    """The last part of each, or all of it where that would not tell them apart."""
    short = [folder.resolve().name for folder in folders]
    times = Counter(short)
    return [str(folder) if times[name] > 1 else name for folder, name in zip(folders, short, strict=True)]
