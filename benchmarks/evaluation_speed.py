"""Time and memory of leave-one-out evaluation, compared with `argsort` of every query's distances to all others.

python benchmarks/evaluation_speed.py
python benchmarks/evaluation_speed.py --rows 100000 --dimension 256 --queries 3000
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import Way, Work, closing, load_average, table, time_ways
from numpy.typing import NDArray

_CLASSES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=4096)
    parser.add_argument("--queries", type=int, help="number of rows with a label, used as queries (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    queries = options.queries or options.rows
    arguments = options.rows, options.dimension, queries
    ways = {"ours": Way(ours, *arguments), "plain": Way(plain, *arguments)}
    with closing(ways):
        timings = time_ways(ways, options.rounds, warm=0)
    ours_, plain_ = timings["ours"], timings["plain"]
    features_mib = options.rows * options.dimension * 4 / 2**20
    print(
        table(
            ("features", "queries", "all measures", "of the processors", "plain ranking, P@10 and mAP",
             "of the processors", "plain / ours", "peak, features of it", "plain's peak", "load"),
            [
                (
                    f"{options.rows} x {options.dimension}", queries, f"{ours_.wall:.1f} s", f"{ours_.processor:.1f} s",
                    f"{plain_.wall:.1f} s", f"{plain_.processor:.1f} s", f"**{plain_.over(ours_):.2f}x**",
                    f"{ours_.peak_mib:.0f} MiB, {features_mib:.0f}", f"{plain_.peak_mib:.0f} MiB", load_average(),
                )
            ],
        )
    )  # fmt: skip


def random_features(rows: int, dimension: int, queries: int) -> tuple[NDArray[np.float32], list[str]]:
    random = np.random.default_rng(0)
    features = np.empty((rows, dimension), dtype=np.float32)
    for start in range(0, rows, 1000):
        random.standard_normal(out=features[start : start + 1000], dtype=np.float32)
    return features, [str(i % _CLASSES) if i < queries else "" for i in range(rows)]


def ours(rows: int, dimension: int, queries: int) -> Work:
    from searchengine.analyse.evaluation import evaluate_features

    features, labels = random_features(rows, dimension, queries)
    return lambda: evaluate_features(features, labels)


def plain(rows: int, dimension: int, queries: int) -> Work:
    features, labels = random_features(rows, dimension, queries)
    names = np.array(labels)
    squares = np.einsum("ij,ij->i", features, features)

    def work() -> tuple[float, float]:
        first_ten, average = [], []
        for query in range(queries):
            order = np.argsort(squares - 2 * (features @ features[query]), kind="stable")
            relevant = names[order[order != query]] == names[query]  # (n - 1,)
            places = np.flatnonzero(relevant) + 1
            first_ten.append(relevant[:10].mean())
            average.append((np.arange(1, len(places) + 1) / places).mean())
        return float(np.mean(first_ten)), float(np.mean(average))

    return work


if __name__ == "__main__":
    main()
