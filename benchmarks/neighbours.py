"""Time and peak memory of the top k of a whole set, compared with a plain product of all rows with all rows if it fits.

    python benchmarks/neighbours.py --rows 10000 --dimension 256 --metric euclidean manhattan
    python benchmarks/neighbours.py --rows 100000 --dimension 512 --plain-rows 0

Each runs in a separate process, in turn. The plain method is ``np.argsort`` of the whole N x N matrix of distances, in
float32.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from measuring import Way, Work, closing, load_average, say, table, time_ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--metric", nargs="+", default=["euclidean"])
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--plain-rows", type=int, default=12_000, help="maximum number of rows for the plain method")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for count in options.rows:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            make(folder, count, options.dimension)
            rows += [compare(folder, count, metric, options) for metric in options.metric]
    print(
        table(
            ("features", "metric", "`neighbours`", "of the processors", "peak", "plain", "plain's peak",
             "plain / ours", "load"),
            rows,
        )
    )  # fmt: skip


def make(folder: Path, rows: int, dimension: int) -> None:
    from searchengine.exchange import import_features

    say(f"making {rows} x {dimension} ...")
    np.save(folder / "features.npy", np.random.default_rng(0).standard_normal((rows, dimension), dtype=np.float32))
    import_features(folder / "features.npy", folder / "index")


def compare(folder: Path, count: int, metric: str, options: argparse.Namespace) -> tuple[object, ...]:
    ways = {"ours": Way(ours, folder / "index", options.k, metric)}
    if count <= options.plain_rows and metric == "euclidean":
        ways["plain"] = Way(plain, folder / "features.npy", options.k)
    with closing(ways):
        timings = time_ways(ways, options.rounds, warm=0)
    ours_, plain_ = timings["ours"], timings.get("plain")
    return (
        f"{count} x {options.dimension}",
        metric,
        f"{ours_.wall:.1f} s",
        f"{ours_.processor:.1f} s",
        f"{ours_.peak_mib:.0f} MiB",
        f"{plain_.wall:.1f} s" if plain_ else "",
        f"{plain_.peak_mib:.0f} MiB" if plain_ else "",
        f"**{plain_.over(ours_):.1f}x**" if plain_ else "",
        load_average(),
    )


def ours(index_dir: Path, k: int, metric: str) -> Work:
    from searchengine.analyse.neighbours import NeighboursOptions, write_neighbours
    from searchengine.engine import open_index

    index, out = open_index(index_dir), index_dir.with_name(f"out-{os.getpid()}")

    def work() -> None:
        write_neighbours(index, out, NeighboursOptions(k, metric))
        shutil.rmtree(out)

    return work


def plain(features: Path, k: int) -> Work:
    x = np.load(features)

    def work() -> None:
        norms = np.einsum("ij,ij->i", x, x)
        distances = norms[:, None] - 2 * (x @ x.T) + norms[None, :]
        np.argsort(distances, axis=1)[:, 1 : k + 1].copy()

    return work


if __name__ == "__main__":
    main()
