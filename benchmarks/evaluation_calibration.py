"""How often the comparison calls one of two equally good extractors better.

    python benchmarks/evaluation_calibration.py --photos 120 --rounds 120

Each round draws new photos, and two sets of features that differ only by noise of the same size. A test at p < 0.05
should find a difference in 5 of 100 rounds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import ranking, statistics
from searchengine.analyse.evaluation.ranking import Collection, Queries

CLASSES = 6


def main() -> None:
    """Print the fraction of rounds in which each test is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count, random = options.photos, np.random.default_rng(options.seed)
    labels = [(str(i % CLASSES),) for i in range(count)]
    groups = statistics.groups_of([f"{i}.jpg" for i in range(count)])
    wrong = {"jackknife over photos": 0, "permutation over queries": 0}
    for _ in range(options.rounds):
        photos = np.eye(CLASSES)[np.arange(count) % CLASSES] + 0.5 * random.standard_normal((count, CLASSES))
        one, other = (
            _measured(photos + 0.3 * random.standard_normal(photos.shape), labels, groups) for _ in ("one", "other")
        )
        main_one = one.names.index("mAP")
        differences = (one.values - other.values)[:, [main_one]]
        assert one.replicates is not None
        assert other.replicates is not None
        without = (one.replicates.astype(np.float64) - other.replicates)[:, :, [main_one]]
        errors, held = statistics.spread(without, groups)
        wrong["jackknife over photos"] += int(statistics.t_p(differences.mean(axis=0), errors, held)[0] < 0.05)
        wrong["permutation over queries"] += float(statistics.sign_flip_p(differences, random, 999)[0]) < 0.05
    for name, times in wrong.items():
        print(f"{name:26} {times / options.rounds:6.1%} of {options.rounds} rounds, {count} photos")


def _measured(
    features: NDArray[np.float64], labels: list[tuple[str, ...]], groups: NDArray[np.int64]
) -> ranking.QueryScores:
    collection = replace(Collection.of_features(features.astype(np.float32), labels), groups=groups)
    return ranking.measure(collection, Queries.leave_one_out(collection), "euclidean")


if __name__ == "__main__":
    main()
