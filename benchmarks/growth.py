"""Growth of the cost with the collection: images per second, a run with nothing to do, one query; with plots.

    python benchmarks/growth.py                                    1000 and 10 000 images
    python benchmarks/growth.py --images 1000 10000 100000 --plots docs

Small JPEGs are generated, read and actually decoded. The network is left out, because its cost per image does not
depend on their number; features are random. So the benchmark measures the parts that grow: the catalog, the matrix, the
walk through the folder, and the search. Queries are features, searched in this process, k = 30, compared with
`np.linalg.norm` and `argsort` on the same matrix.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from measuring import in_turn, load_average, peak_mib, say, table
from PIL import Image

_PER_FOLDER = 1000
_DIMENSION = 1280
_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 44, 48
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #555 } .title { font-size: 14px; fill: #222 } .value { fill: #222 }
.grid { stroke: #ddd } .l0 { stroke: #2a6fdb } .l1 { stroke: #c2571a; stroke-dasharray: 6 4 }
.d0 { fill: #2a6fdb } .d1 { fill: #c2571a } polyline { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #aaa } .title, .value { fill: #eee } .grid { stroke: #444 }
  .l0 { stroke: #7db0ff } .l1 { stroke: #ff9d5c } .d0 { fill: #7db0ff } .d1 { fill: #ff9d5c }
}
"""


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
            first, again = index(folder), index(folder)
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
    """Make the small JPEGs that do not exist yet, a thousand per folder."""
    for number in range(count):
        file = folder / f"{number // _PER_FOLDER:04d}" / f"{number:06d}.jpg"
        if number % _PER_FOLDER == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(file, quality=88)


def index(folder: Path) -> dict[str, float]:
    """Index in a subprocess, and return seconds, processor seconds and peak MiB."""
    command = [sys.executable, __file__, "--run", str(folder / "images"), str(folder / "index")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def run(images: Path, index_dir: Path) -> None:
    """Run the subprocess."""
    from servers import RandomExtractor

    from searchengine.extractors import make_spec
    from searchengine.extractors.extractor import preprocess
    from searchengine.images import DecodedImage
    from searchengine.indexing import update_index

    spec = make_spec("efficientnet-lite0")

    class Decoding(RandomExtractor):
        """An extractor with real decoding and random features."""

        def preprocess(self, data: bytes, max_pixels: int = 10**9) -> DecodedImage:
            return preprocess(spec, data, max_pixels)

    processor, wall = time.process_time(), time.perf_counter()
    update_index([images], index_dir, extractor=Decoding(spec, _DIMENSION))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(json.dumps({"seconds": wall, "processor": processor, "peak": peak_mib()}))


def queries(index_dir: Path) -> tuple[float, float]:
    """Return the seconds of one query, and of `norm` and `argsort`, timed in turn."""
    from searchengine.engine import open_index

    collection = open_index(index_dir)
    features = np.array(collection.features)
    query = features[7] + np.float32(0.01)
    timings = in_turn(
        {
            "ours": lambda: collection.search(query, 30),
            "naive": lambda: np.argsort(np.linalg.norm(features - query, axis=1))[:30],
        },
        15,
    )
    collection.close()
    return timings["ours"].wall, timings["naive"].wall


# -- plots -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of a plot; all numbers are positive."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def write_plot(file: Path, title: str, below: str, lines: Sequence[Line]) -> None:
    """Write one or two lines as a small SVG file with logarithmic axes, in the reader's light or dark colours."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    left, right = min(xs) / 1.4, max(xs) * 1.4
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys) * 1.01))

    def at(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / left) / math.log(right / left)
        up = math.log(y / low) / math.log(high / low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>']
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = at(left, 10**power)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:,g}</text>')
    parts += [
        f'<text x="{at(x, low)[0]:.1f}" y="{_HEIGHT - 28}" text-anchor="middle">{x:,.0f}</text>'
        for x in sorted(set(xs))
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(below)}</text>')
    for number, line in enumerate(lines):
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        parts.append(f'<polyline class="l{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        for (x, y), value in zip(points, line.y, strict=True):
            offset = 20 if number == 0 and len(lines) > 1 else -10  # of two, the first is the lower one
            parts.append(f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
            parts.append(
                f'<text class="value" x="{x:.1f}" y="{y + offset:.1f}" text-anchor="middle">{_short(value)}</text>'
            )
        if len(lines) > 1:
            x = _LEFT + 8 + 160 * number
            parts.append(f'<line class="l{number}" x1="{x}" x2="{x + 24}" y1="36" y2="36" stroke-width="2"/>')
            parts.append(f'<text x="{x + 30}" y="40">{escape(line.name)}</text>')
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
