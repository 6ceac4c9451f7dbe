"""How far are the measures from those of a full ranking in float64, query by query?

    python benchmarks/evaluation_exactness.py
    python benchmarks/evaluation_exactness.py --index-dir photos --every 5      features and labels of your own

Rankings are of float32 values beyond their first 20 places. Here every `--every`-th query is ranked once more, by the
length of float64 differences to all others, ties in the order of rows; the table says in how many queries each measure
differs, and by how much at most. Without an index, the features are made up: groups that overlap, of length 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import say, table
from numpy.typing import NDArray

from searchengine.analyse.evaluation import measuring, metrics
from searchengine.analyse.evaluation.ranking import Collection
from searchengine.analyse.evaluation.relevance import Relevance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index-dir", type=Path, help="an index with labels")
    parser.add_argument("--rows", type=int, default=5000, help="of made-up features (default: 5000)")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--every", type=int, default=10, help="which queries are ranked again (default: 10)")
    options = parser.parse_args()
    if options.index_dir:
        from searchengine.engine import open_index

        index = open_index(options.index_dir)
        features, labels = np.array(index.features), [label or "" for label in index.labels]
    else:
        features, labels = made_up(options.rows, options.dimension)
    asking = [i for i in range(0, len(features), options.every) if labels[i] and labels.count(labels[i]) > 1]
    say(f"{len(asking)} queries over {len(features)} x {features.shape[1]}")
    measured = as_measured(features, labels, asking)
    expected = np.array([in_float64(features, labels, query) for query in asking])  # (q, m)
    differences = np.abs(measured.values - expected)
    rows: list[tuple[object, ...]] = [
        (name, int((column > 1e-12).sum()), f"{column.max():.2g}")
        for name, column in zip(measured.names, differences.T, strict=True)
    ]
    print(table(("measure", f"of {len(asking)} queries differ", "by at most"), rows))


def made_up(rows: int, dimension: int) -> tuple[NDArray[np.float32], list[str]]:
    random = np.random.default_rng(0)
    middles = random.standard_normal((49, dimension), dtype=np.float32)
    labels = random.integers(0, len(middles), rows)
    noise = 4 * random.standard_normal((rows, dimension), dtype=np.float32)
    features = np.maximum(middles[labels] + noise, 0)
    return features / np.linalg.norm(features, axis=1, keepdims=True), [str(label) for label in labels]


def as_measured(features: NDArray[np.float32], labels: Sequence[str], asking: Sequence[int]) -> measuring.Measured:
    """By the product; one line a query."""
    of_rows = [(label,) if label else () for label in labels]
    queries = measuring.Queries(
        [of_rows[i] for i in asking],
        [np.array([i], dtype=np.int64) for i in asking],
        lambda part: features[np.asarray(asking)[part]],
    )
    return measuring.measure(Collection.of_features(features), Relevance(of_rows), queries, "euclidean")


def in_float64(features: NDArray[np.float32], labels: Sequence[str], query: int) -> list[float]:
    """The same measures of the ranking that a plain loop gives."""
    distances = np.linalg.norm(features.astype(np.float64) - features[query], axis=1)
    order = [int(i) for i in np.argsort(distances, kind="stable") if i != query]
    places = np.flatnonzero([labels[i] == labels[query] for i in order]) + 1
    worth = np.ones(len(places))
    return [
        *(metrics.precision_at(places, k) for k in metrics.PRECISION_AT),
        *(metrics.recall_at(places, k) for k in metrics.RECALL_AT),
        metrics.average_precision(places),
        metrics.ndcg_at(places, worth, metrics.NDCG_AT),
    ]


if __name__ == "__main__":
    main()
