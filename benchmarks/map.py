"""The map and the groups of a collection: time and peak memory of each stage's whole run, a process each.

    python benchmarks/map.py --rows 10000
    python benchmarks/map.py --rows 10000 100000 --dimension 512

The rows are made up: 60 groups of features like those of a convolutional network, not negative, of length 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_RUN = """
import resource, sys, time
from searchengine.cli import main
start = time.perf_counter()
if main([sys.argv[2], "--index-dir", sys.argv[1]]):
    sys.exit(1)
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - start, used.ru_utime, used.ru_maxrss / 2**10)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dimension", type=int, default=512)
    options = parser.parse_args()
    print("    rows     d  verb       seconds   processor s   peak MiB")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            index = make_index(Path(folder), rows, options.dimension)
            for verb in ("map", "cluster"):
                command = [sys.executable, "-c", _RUN, str(index), verb]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                seconds, processor, peak = map(float, done.stdout.splitlines()[-1].split())
                print(
                    f"{rows:8} {options.dimension:5}  {verb:8} {seconds:9.1f} {processor:13.1f} {peak:10.0f}",
                    flush=True,
                )


def make_index(folder: Path, rows: int, dimension: int) -> Path:
    from searchengine.exchange import import_features

    random = np.random.default_rng(0)
    middles = random.standard_normal((60, dimension), dtype=np.float32)
    features = np.empty((rows, dimension), dtype=np.float32)
    for start in range(0, rows, 4096):
        place = slice(start, min(start + 4096, rows))
        size = place.stop - start
        noise = 0.8 * random.standard_normal((size, dimension), dtype=np.float32)
        features[place] = np.maximum(middles[random.integers(0, 60, size)] + noise, 0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.save(folder / "features.npy", features)
    import_features(folder / "features.npy", folder / "index")
    return folder / "index"


if __name__ == "__main__":
    main()
