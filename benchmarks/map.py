"""Time and peak memory of the map and the groups of a collection, each a whole run in a separate process.

    python benchmarks/map.py --rows 10000
    python benchmarks/map.py --rows 100000 --verb map
    python benchmarks/map.py --rows 2000 --against-scikit-learn

The rows are random: 60 groups of features like those of a convolutional network, non-negative and of length 1. With
`--against-scikit-learn`, its t-SNE lays out the same rows after the same kind of PCA, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import load_average, say, table

_MEASURED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from measuring import peak_mib, processor_seconds
start = time.perf_counter()
{work}
print(time.perf_counter() - start, processor_seconds(), peak_mib())
"""
_VERB = _MEASURED.format(
    work="""from searchengine.cli import main
if main([sys.argv[3], "--index-dir", sys.argv[2]]): sys.exit(1)"""
)
_SCIKIT_LEARN = _MEASURED.format(
    work="""import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
TSNE(random_state=0).fit_transform(PCA(50, random_state=0).fit_transform(np.load(sys.argv[2])))"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--verb", nargs="+", choices=["map", "cluster"], default=["map", "cluster"])
    parser.add_argument("--against-scikit-learn", action="store_true")
    options = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for count in options.rows:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            say(f"making {count} x {options.dimension} ...")
            index_dir = make_index(folder, count, options.dimension)
            features = f"{count} x {options.dimension}"
            seconds = {}
            for verb in options.verb:
                say(f"{verb} ...")
                seconds[verb], *rest = run(_VERB, str(index_dir), verb)
                rows.append((features, f"`{verb}`", f"{seconds[verb]:.1f} s", *cells(rest), "", load_average()))
            if options.against_scikit_learn:
                say("scikit-learn's t-SNE ...")
                plain, *rest = run(_SCIKIT_LEARN, str(folder / "features.npy"))
                ratio = f"**{plain / seconds['map']:.1f}x** `map`" if "map" in seconds else ""
                rows.append(
                    (features, "PCA, t-SNE of scikit-learn", f"{plain:.1f} s", *cells(rest), ratio, load_average())
                )
    print(table(("features", "what", "time", "of the processors", "peak", "ratio", "load"), rows))


def cells(measured: list[float]) -> tuple[str, str]:
    processor, peak = measured
    return f"{processor:.1f} s", f"{peak:.0f} MiB"


def run(code: str, *arguments: str) -> list[float]:
    """Return seconds, processor seconds and peak MiB of a program, which it prints last."""
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


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
