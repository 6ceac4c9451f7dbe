"""Top k of a whole set: time and peak memory, against a plain product of all rows with all rows where that fits.

    python benchmarks/neighbours.py --rows 10000 --dimension 256 --metric euclidean manhattan
    python benchmarks/neighbours.py --rows 100000 --dimension 512 --plain-rows 0

Each line is a process of its own. The plain way is what people write by hand: ``np.argsort`` of the whole N x N matrix
of distances, in float32.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_PLAIN = """
import resource, sys, time
import numpy as np
x = np.load(sys.argv[1]); k = int(sys.argv[2])
start = time.perf_counter()
norms = np.einsum("ij,ij->i", x, x)
distances = norms[:, None] - 2 * (x @ x.T) + norms[None, :]
np.argsort(distances, axis=1)[:, 1 : k + 1].copy()
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""
_OURS = """
import resource, sys, time
from pathlib import Path
from searchengine.engine import open_index
from searchengine.neighbours import NeighboursOptions, write_neighbours
index = open_index(sys.argv[1])
start = time.perf_counter()
write_neighbours(index, Path(sys.argv[1]) / "out", NeighboursOptions(int(sys.argv[2]), sys.argv[3]))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--metric", nargs="+", default=["euclidean"])
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--plain-rows", type=int, default=12_000, help="the plain way only up to so many rows")
    options = parser.parse_args()
    print("    rows     d  metric          seconds   peak MiB   plain s   plain MiB   plain/ours")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), rows, options)


def compare(folder: Path, rows: int, options: argparse.Namespace) -> None:
    from searchengine.exchange import import_features

    random = np.random.default_rng(0)
    features = random.standard_normal((rows, options.dimension), dtype=np.float32)
    np.save(folder / "features.npy", features)
    import_features(folder / "features.npy", folder / "index")
    plain = None
    if rows <= options.plain_rows:
        plain = run(_PLAIN, str(folder / "features.npy"), str(options.k))
    for metric in options.metric:
        seconds, peak = run(_OURS, str(folder / "index"), str(options.k), metric)
        beside = f"{plain[0]:9.1f} {plain[1]:11.0f} {plain[0] / seconds:12.2f}" if plain else ""
        print(f"{rows:8d} {options.dimension:5d}  {metric:14s} {seconds:8.1f} {peak:10.0f} {beside}", flush=True)


def run(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak MiB of a program that prints them."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


if __name__ == "__main__":
    main()
