"""Time and memory of a leave-one-out evaluation: ``python -m tests.evaluation.speed --rows 5000 --dimension 4096``."""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from searchengine.evaluation import evaluate_features

_CLASSES = 50


def main() -> None:
    """Random features; ``--queries`` of them have a label and ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=4096)
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    rows = np.empty((options.rows, options.dimension), dtype=np.float32)
    for start in range(0, options.rows, 1000):
        random.standard_normal(out=rows[start : start + 1000], dtype=np.float32)
    asking = options.queries or options.rows
    labels = [str(i % _CLASSES) if i < asking else "" for i in range(options.rows)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    evaluate_features(rows, labels)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    beyond = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    print(
        f"{options.rows} x {options.dimension}, {asking} queries: {wall:.1f} s, {processor:.1f} s of processor time, "
        f"{beyond:.0f} MiB beyond the features' {rows.nbytes / 2**20:.0f}"
    )


if __name__ == "__main__":
    main()
