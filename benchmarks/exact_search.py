"""Exact search against what people write by hand, and against the memory bandwidth of the machine, in one run.

    python benchmarks/exact_search.py --rows 10000 40000 --dimension 4096 256

Prints a row for each size: milliseconds of one query (median), of ``np.linalg.norm(features - query, axis=1)`` followed
by ``argsort``, their ratio, and the time in which a plain sum reads the same matrix once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from searchengine.index import exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--dimension", type=int, nargs="+", default=[4096, 256])
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print("    rows     d   one query   64 queries   naive norm   naive/ours   one pass over memory   ours/pass")
    for dimension in options.dimension:
        for rows in options.rows:
            row(rows, dimension, options.k, options.repeats)


def row(count: int, dimension: int, k: int, repeats: int) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((count, dimension), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    norms = np.einsum("ij,ij->i", features, features, dtype=np.float64)
    ids = np.arange(1, count + 1)
    queries = features[:64] + 0.01 * random.standard_normal((64, dimension), dtype=np.float32)

    ours = median(lambda: exact.euclidean(features, norms, ids, queries[:1], k), repeats)
    many = median(lambda: exact.euclidean(features, norms, ids, queries, k), max(3, repeats // 2))
    naive = median(lambda: np.argsort(np.linalg.norm(features - queries[0], axis=1))[:k], max(3, repeats // 2))
    ones = np.ones(dimension, dtype=np.float32)
    one_pass = median(lambda: features @ ones, repeats)
    print(
        f"{count:8d} {dimension:5d} {ours * 1e3:8.2f} ms {many * 1e3:9.1f} ms {naive * 1e3:9.1f} ms "
        f"{naive / ours:11.1f}x {one_pass * 1e3:19.2f} ms {ours / one_pass:11.2f}x"
    )


def median(work: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, the median of several after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
