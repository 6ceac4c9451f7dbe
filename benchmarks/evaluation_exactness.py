"""Differences between the measures and those of a full float64 ranking, query by query.

    python benchmarks/evaluation_exactness.py
    python benchmarks/evaluation_exactness.py --index-dir photos --every 5      your own features and labels

After the first 20 places, rankings use float32 values. Here every `--every`-th query is ranked again by float64
distances to all others, with ties in row order. The table shows for how many queries each measure differs, and by how
much at most. Without an index, the features are random: overlapping groups, of length 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import say, table
from numpy.typing import NDArray

from searchengine.analyse.evaluation import metrics, ranking
from searchengine.analyse.evaluation.ranking import Collection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index-dir", type=Path, help="an index with labels")
    parser.add_argument("--rows", type=int, default=5000, help="number of random features (default: 5000)")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--every", type=int, default=10, help="which queries are ranked again (default: 10)")
    options = parser.parse_args()
    if options.index_dir:
        from searchengine.engine import open_index

        index = open_index(options.index_dir)
        features, labels = np.array(index.features), [label or "" for label in index.labels]
    else:
        features, labels = random_features(options.rows, options.dimension)
    queries = [i for i in range(0, len(features), options.every) if labels[i] and labels.count(labels[i]) > 1]
    say(f"{len(queries)} queries over {len(features)} x {features.shape[1]}")
    measured = measure(features, labels, queries)
    expected = np.array([in_float64(features, labels, query) for query in queries])  # (q, m)
    differences = np.abs(measured.values - expected)
    rows: list[tuple[object, ...]] = [
        (name, int((column > 1e-12).sum()), f"{column.max():.2g}")
        for name, column in zip(measured.names, differences.T, strict=True)
    ]
    print(table(("measure", f"of {len(queries)} queries differ", "by at most"), rows))


def random_features(rows: int, dimension: int) -> tuple[NDArray[np.float32], list[str]]:
    random = np.random.default_rng(0)
    middles = random.standard_normal((49, dimension), dtype=np.float32)
    labels = random.integers(0, len(middles), rows)
    noise = 4 * random.standard_normal((rows, dimension), dtype=np.float32)
    features = np.maximum(middles[labels] + noise, 0)
    return features / np.linalg.norm(features, axis=1, keepdims=True), [str(label) for label in labels]


def measure(features: NDArray[np.float32], labels: Sequence[str], queries: Sequence[int]) -> ranking.QueryScores:
    """Return the measures of the product, (q, m)."""
    of_rows = [(label,) if label else () for label in labels]
    asked = ranking.Queries(
        [of_rows[i] for i in queries],
        [np.array([i], dtype=np.int64) for i in queries],
        lambda part: features[np.asarray(queries)[part]],
    )
    return ranking.measure(Collection.of_features(features, of_rows), asked, "euclidean")


def in_float64(features: NDArray[np.float32], labels: Sequence[str], query: int) -> NDArray[np.float64]:
    """Return the same measures for a plain float64 ranking."""
    distances = np.linalg.norm(features.astype(np.float64) - features[query], axis=1)
    order = [int(i) for i in np.argsort(distances, kind="stable") if i != query]
    places = np.flatnonzero([labels[i] == labels[query] for i in order]) + 1
    return metrics.measured(places, np.ones(len(places)))


if __name__ == "__main__":
    main()
