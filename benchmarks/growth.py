"""How cost grows with the collection: images a second, a run with nothing to do, one query; and a plot of each.

    python benchmarks/growth.py                                    1000 and 10 000 images
    python benchmarks/growth.py --images 1000 10000 100000 --plots docs

Small JPEGs are made on the spot, read and decoded for real. The network is left out, for it costs each image the same
however many there are: features, of as many numbers as the compact model's, are made up. So what grows is what is seen:
the catalog, the matrix, the walk through the folder, the search. Queries are of a feature, in this process, k = 30,
against `np.linalg.norm` and `argsort` over the same matrix.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import in_turn, load_average, peak_mib, say, table
from PIL import Image
from plot import Line, write_plot

_PER_FOLDER = 1000
_DIMENSION = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write growth-*.svg there")
    parser.add_argument("--run", nargs=2, metavar=("IMAGES", "INDEX"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(Path(options.run[0]), Path(options.run[1]))
        return
    rows: list[tuple[object, ...]] = []
    measured: list[tuple[int, float, float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for count in sorted(options.images):
            say(f"{count} images: making them ...")
            make_images(folder / "images", count)
            say(f"{count} images: indexing ...")
            first, again = indexed(folder), indexed(folder)
            ours, naive = queries(folder / "index")
            shutil.rmtree(folder / "index")
            rate = count / first["seconds"]
            measured.append((count, rate, again["seconds"], ours * 1e3, naive * 1e3))
            rows.append(
                (
                    count, f"{rate:.0f}", f"{count / first['processor']:.0f}", f"{first['peak']:.0f} MiB",
                    f"{again['seconds']:.2f} s", f"{ours * 1e3:.2f} ms", f"{naive * 1e3:.2f} ms",
                    f"**{naive / ours:.1f}x**", load_average(),
                )
            )  # fmt: skip
    print(
        table(
            ("images", "images/s", "per processor second", "peak", "run with nothing to do", "one query",
             "norm + argsort", "norm + argsort / ours", "load"),
            rows,
        )
    )  # fmt: skip
    if options.plots:
        counts = [row[0] for row in measured]
        write_plot(
            options.plots / "growth-indexing.svg",
            "Indexing, network left out: images a second",
            "images in the folder",
            [Line("images/s", counts, [row[1] for row in measured])],
        )
        write_plot(
            options.plots / "growth-query.svg",
            f"One query, {_DIMENSION} numbers a feature: milliseconds",
            "images in the index",
            [
                Line("this index", counts, [row[3] for row in measured]),
                Line("norm + argsort", counts, [row[4] for row in measured]),
            ],
        )


def make_images(folder: Path, count: int) -> None:
    """Small JPEGs, a thousand a folder, those that are not there yet."""
    for number in range(count):
        file = folder / f"{number // _PER_FOLDER:04d}" / f"{number:06d}.jpg"
        if number % _PER_FOLDER == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(file, quality=88)


def indexed(folder: Path) -> dict[str, float]:
    """One run, in a process of its own: seconds, processor seconds, peak MiB."""
    command = [sys.executable, __file__, "--run", str(folder / "images"), str(folder / "index")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def run(images: Path, index_dir: Path) -> None:
    """What the process does."""
    from servers import MadeUp

    from searchengine.extractors import make_spec
    from searchengine.extractors.pixels import preprocess
    from searchengine.images import DecodedImage
    from searchengine.indexing import update_index

    spec = make_spec("compact")

    class Decoding(MadeUp):
        """Decodes for real."""

        def preprocess(self, data: bytes, max_pixels: int = 10**9) -> tuple[DecodedImage, np.ndarray]:
            return preprocess(spec, data, max_pixels)

    processor, wall = time.process_time(), time.perf_counter()
    update_index([images], index_dir, extractor=Decoding(spec, _DIMENSION))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(json.dumps({"seconds": wall, "processor": processor, "peak": peak_mib()}))


def queries(index_dir: Path) -> tuple[float, float]:
    """Seconds of one query, and of the naive way; the same in turn."""
    from searchengine.engine import open_index

    index = open_index(index_dir)
    features = np.array(index.features)
    query = features[7] + np.float32(0.01)
    timings = in_turn(
        {
            "ours": lambda: index.search(query, 30),
            "naive": lambda: np.argsort(np.linalg.norm(features - query, axis=1))[:30],
        },
        15,
    )
    index.close()
    return timings["ours"].wall, timings["naive"].wall


if __name__ == "__main__":
    main()
