"""Exact search compared with hand-written code, and with the memory bandwidth of the machine, in one run.

    python benchmarks/exact_search.py
    python benchmarks/exact_search.py --rows 10000 --dimension 256 --repeats 21

Medians of four measurements taken in turn: one query to the index; `np.linalg.norm(features - query, axis=1)` and
`argsort`; reading the matrix once, with the fastest reader on this machine (BLAS times a vector of ones, or NumPy on
each processor); and 64 queries at once. A query cannot be faster than one reading of the matrix. If the matrix fits
into the processor's cache (10 000 x 256 is 10 MB), the reading is from the cache.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from measuring import Timing, in_turn, load_average, say, table
from numpy.typing import NDArray

from searchengine.index.exact import Searcher

_MANY = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 40_000, 100_000])
    parser.add_argument("--dimension", type=int, nargs="+", default=[4096, 256])
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    rows = [
        row(count, dimension, options.k, options.repeats) for dimension in options.dimension for count in options.rows
    ]
    print(
        table(
            ("features", "one query", "norm + argsort", "norm + argsort / ours", "in processor time",
             "matrix read once", "ours / read once", "GB/s", "64 queries", "64 / naive loop", "load"),
            rows,
        )
    )  # fmt: skip


def row(count: int, dimension: int, k: int, repeats: int) -> tuple[object, ...]:
    say(f"{count} x {dimension}")
    random = np.random.default_rng(0)
    features = random.standard_normal((count, dimension), dtype=np.float32)
    for start in range(0, count, 4096):
        block = features[start : start + 4096]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    norms = np.einsum("ij,ij->i", features, features, dtype=np.float64)
    queries = features[:_MANY] + 0.01 * random.standard_normal((_MANY, dimension), dtype=np.float32)
    searcher = Searcher("euclidean", features, norms, np.arange(1, count + 1))
    ones = np.ones(dimension, dtype=np.float32)
    pool = ThreadPoolExecutor(os.cpu_count())
    parts = np.array_split(features.reshape(-1).view(np.int64), os.cpu_count() or 1)
    # Ours never follows BLAS, whose threads keep a processor busy for a while after their work.
    naive_repeats = max(3, repeats // 3)
    single = in_turn(
        {
            "ours": lambda: searcher.nearest(queries[:1], k),
            "gemv": lambda: features @ ones,
            "sums": lambda: list(pool.map(_read, parts)),
        },
        3 * repeats,
    )
    slow = in_turn(
        {
            "many": lambda: searcher.nearest(queries, k),
            "naive": lambda: np.argsort(np.linalg.norm(features - queries[0], axis=1))[:k],
            "ours": lambda: searcher.nearest(queries[:1], k),
        },
        naive_repeats,
    )
    pool.shutdown()
    reading: Timing = min((single["gemv"], single["sums"]), key=lambda timing: timing.wall)
    return (
        f"{count} x {dimension}",
        f"{single['ours'].wall * 1e3:.2f} ms",
        f"{slow['naive'].wall * 1e3:.1f} ms",
        f"**{slow['naive'].over(slow['ours']):.1f}x**",
        f"{slow['naive'].processor_over(slow['ours']):.1f}x",
        f"{reading.wall * 1e3:.2f} ms",
        f"**{single['ours'].over(reading):.2f}x**",
        f"{features.nbytes / reading.wall / 1e9:.0f}",
        f"{slow['many'].wall * 1e3:.0f} ms",
        f"{_MANY * slow['naive'].over(slow['many']):.0f}x",
        load_average(),
    )


def _read(part: NDArray[np.int64]) -> np.int64:
    """Read every byte, in the widest registers that NumPy uses."""
    return np.bitwise_or.reduce(part)


if __name__ == "__main__":
    main()
