"""The gain from three likes and three dislikes: P@20 of the remaining images, before and after, for each rule.

    python benchmarks/feedback.py --images DIR [--images DIR ...] [--queries 1000] [--rule rocchio]
    python benchmarks/feedback.py --index-dir DIR [--index-dir DIR ...]

DIR has one folder per class, or is an index with labels. Each image is a query for the others of its class. On its
first page (20 images), the first three of its class are liked and the first three of other classes are disliked. These
six are then removed from both rankings, the old and the new (residual collection; Salton and Buckley 1990), so that
having been shown gains nothing. Two groups of queries are reported: all whose first page has at least one of each kind,
with up to three judged of each; and those whose first page has three of each. Intervals: 95 %, bootstrap over
queries.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photos import labelled_files

from searchengine.analyse.evaluation.statistics import interval, resampled_means
from searchengine.feedback import (
    COST_JUDGED,
    COST_RANDOM,
    RANDOM_NEGATIVES,
    exemplar_svm,
    rocchio,
    unit,
)
from searchengine.query import EXEMPLAR_SVM, ROCCHIO, RULES

PAGE = 20
JUDGED = 3
Rows = NDArray[np.float32]
Rule = Callable[[Rows, Rows, Rows, Rows], Rows]  # query, liked, disliked, random -> direction


@dataclass(frozen=True)
class Labelled:
    """A name, unit rows (n, d) float32 and class numbers (n,)."""

    name: str
    features: Rows
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """P@20 of the other images before and after, (q,) float64; the number judged; seconds per query of the rule."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    liked: NDArray[np.int64]
    disliked: NDArray[np.int64]
    seconds: float


def from_images(folder: Path, model: str) -> Labelled:
    """Return the features of a folder of labelled images."""
    from searchengine.extractors import load_extractor

    files, names = labelled_files(folder)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int64)
    print(f"embedding {len(files)} images of {folder.name}", file=sys.stderr)
    extractor = load_extractor(model)
    parts = [extractor.embed(files[i : i + 64]) for i in range(0, len(files), 64)]
    return Labelled(folder.name, unit(np.concatenate(parts)).astype(np.float32), labels)


def from_index(folder: Path) -> Labelled:
    """Return the features of an index."""
    from searchengine.engine import open_index
    from searchengine.learn import training_set

    index = open_index(folder)
    data = training_set(index)
    index.close()
    truth = np.unique(data.labels, return_inverse=True)[1].astype(np.int64)
    return Labelled(folder.name, unit(data.features).astype(np.float32), truth)


def rule_of(name: str, judged_cost: float = COST_JUDGED, random_cost: float = COST_RANDOM) -> Rule:
    """Return one of the rules, used as on the page, with the query as one more example."""
    if name == ROCCHIO:
        return lambda query, liked, disliked, _: rocchio(liked, disliked, query)
    return lambda query, liked, disliked, random: exemplar_svm(
        np.concatenate([query, liked]), disliked, random, judged_cost=judged_cost, random_cost=random_cost
    )


def simulate(data: Labelled, rule: Rule, queries: int, seed: int = 0) -> Outcome:
    """Search, judge and search again, for a random choice of images whose first page has at least one of each kind."""
    generator = np.random.default_rng(seed)
    results = []
    seconds = 0.0
    for query in generator.permutation(len(data.truth))[:queries].tolist():
        relevant = data.truth == data.truth[query]
        order = ranking(data.features, data.features[query], np.array([query]))
        page = order[:PAGE]
        liked, disliked = page[relevant[page]][:JUDGED], page[~relevant[page]][:JUDGED]
        if not len(liked) or not len(disliked):
            continue
        seen = np.concatenate([[query], liked, disliked])
        others = np.setdiff1d(np.arange(len(data.truth)), seen)
        random = np.random.default_rng(0).permutation(others)[:RANDOM_NEGATIVES]
        start = time.perf_counter()
        row = data.features[[query]]
        w = rule(row, data.features[liked], data.features[disliked], data.features[random])
        seconds += time.perf_counter() - start
        before = relevant[ranking(data.features, data.features[query], seen)[:PAGE]].mean()
        after = relevant[ranking(data.features, w, seen)[:PAGE]].mean()
        results.append((before, after, len(liked), len(disliked)))
    if not results:
        raise SystemExit(f"{data.name}: no first page has images both of the query's class and of others.")
    before, after, likes, dislikes = (np.array(column) for column in zip(*results, strict=True))
    return Outcome(before, after, likes, dislikes, seconds / len(results))


def ranking(features: Rows, w: Rows, without: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank all rows except some by cosine with a direction, the nearest first; ties in order of number."""
    order = np.argsort(-(features @ w), kind="stable")  # (n, d) @ (d,) -> (n,)
    return order[~np.isin(order, without)]


def lines(name: str, rule: str, outcome: Outcome) -> Iterator[str]:
    """Return two lines of the table."""
    full = (outcome.liked == JUDGED) & (outcome.disliked == JUDGED)
    for title, chosen in (("1 to 3 of each", np.ones(len(full), dtype=bool)), ("3 and 3", full)):
        if chosen.any():
            before, after = outcome.before[chosen], outcome.after[chosen]
            means = resampled_means((after - before)[:, None], np.random.default_rng(0))
            (low,), (high,) = interval(means)
            yield (
                f"| {name} | {rule} | {title} | {chosen.sum()} | {before.mean():.3f} | {after.mean():.3f} "
                f"| {(after - before).mean():+.3f} ({low:+.3f} to {high:+.3f}) | {1000 * outcome.seconds:.1f} |"
            )


def main() -> None:
    """Parse the arguments, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="DIR", help="one folder per class")
    parser.add_argument("--index-dir", type=Path, action="append", default=[], metavar="DIR", help="a labelled index")
    parser.add_argument("--model", default="efficientnet-lite0", help="embeds the photos (default: %(default)s)")
    parser.add_argument(
        "--queries", type=int, default=1000, help="maximum number of queries, drawn at random (default: 1000)"
    )
    parser.add_argument("--rule", choices=RULES, action="append", help="default: all of them")
    parser.add_argument("--costs", type=float, nargs=2, action="append", metavar=("JUDGED", "RANDOM"),
                        help="C of the exemplar SVM; may be repeated")  # fmt: skip
    options = parser.parse_args()
    sets = [*(from_images(folder, options.model) for folder in options.images), *map(from_index, options.index_dir)]
    if not sets:
        parser.error("name --images or --index-dir")
    print("| set | rule | judged | queries | P@20 before | P@20 after | gain (95 % interval) | ms a query |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for data in sets:
        for name in options.rule or RULES:
            if name == EXEMPLAR_SVM and options.costs:
                for judged, random in options.costs:
                    outcome = simulate(data, rule_of(name, judged, random), options.queries)
                    print("\n".join(lines(data.name, f"{name} {judged:g}/{random:g}", outcome)), flush=True)
                continue
            print("\n".join(lines(data.name, name, simulate(data, rule_of(name), options.queries))), flush=True)


if __name__ == "__main__":
    main()
