"""Leave-one-out evaluation against the plain way: `argsort` of every query's distances to all others. Time and memory.

python benchmarks/evaluation_speed.py
python benchmarks/evaluation_speed.py --rows 100000 --dimension 256 --queries 3000
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import Way, Work, load_average, rounds_of, table, ways
from numpy.typing import NDArray

_CLASSES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=4096)
    parser.add_argument("--queries", type=int, help="so many of them have a label and ask (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    asking = options.queries or options.rows
    arguments = options.rows, options.dimension, asking
    made = {"ours": Way(ours, *arguments), "plain": Way(plain, *arguments)}
    with ways(**made):
        timings = rounds_of(made, options.rounds, warm=0)
    mine, theirs = timings["ours"], timings["plain"]
    held = options.rows * options.dimension * 4 / 2**20
    print(
        table(
            ("features", "queries", "all measures", "of the processors", "plain ranking, P@10 and mAP",
             "of the processors", "plain / ours", "peak, features of it", "plain's peak", "load"),
            [
                (
                    f"{options.rows} x {options.dimension}", asking, f"{mine.wall:.1f} s", f"{mine.processor:.1f} s",
                    f"{theirs.wall:.1f} s", f"{theirs.processor:.1f} s", f"**{theirs.over(mine):.2f}x**",
                    f"{mine.peak_mib:.0f} MiB, {held:.0f}", f"{theirs.peak_mib:.0f} MiB", load_average(),
                )
            ],
        )
    )  # fmt: skip


def made_up(rows: int, dimension: int, asking: int) -> tuple[NDArray[np.float32], list[str]]:
    random = np.random.default_rng(0)
    features = np.empty((rows, dimension), dtype=np.float32)
    for start in range(0, rows, 1000):
        random.standard_normal(out=features[start : start + 1000], dtype=np.float32)
    return features, [str(i % _CLASSES) if i < asking else "" for i in range(rows)]


def ours(rows: int, dimension: int, asking: int) -> Work:
    from searchengine.analyse.evaluation import evaluate_features

    features, labels = made_up(rows, dimension, asking)
    return lambda: evaluate_features(features, labels)


def plain(rows: int, dimension: int, asking: int) -> Work:
    features, labels = made_up(rows, dimension, asking)
    names = np.array(labels)
    squares = np.einsum("ij,ij->i", features, features)

    def work() -> tuple[float, float]:
        first_ten, average = [], []
        for query in range(asking):
            order = np.argsort(squares - 2 * (features @ features[query]), kind="stable")
            relevant = names[order[order != query]] == names[query]  # (n - 1,)
            places = np.flatnonzero(relevant) + 1
            first_ten.append(relevant[:10].mean())
            average.append((np.arange(1, len(places) + 1) / places).mean())
        return float(np.mean(first_ten)), float(np.mean(average))

    return work


if __name__ == "__main__":
    main()
