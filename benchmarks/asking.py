"""Queries by a whole photo and by a part of it, as a page and as JSON, compared with an older version of the project.

    git clone . /tmp/before && git -C /tmp/before checkout COMMIT
    python benchmarks/asking.py --before /tmp/before --rows 10000 100000

Each photo goes to both servers, and to decoding, embedding and exact search in a process without a server, in turn and
under the same load. Each version serves its own index of the same random features; the network is EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from indexing import LITE
from measuring import Way, load_average, percentile, say, table
from photos import write_photos
from queries import ms, parts_of
from servers import ROOT, Client, Server, serve_ours

_ACCEPT = {"page": "text/html", "JSON": "application/json"}
_BOX = "0.25,0.25,0.5,0.5"
HEADER = (
    "images",
    "query",
    "answer",
    "p50 before",
    "p50 now",
    "now / before",
    "now / (decode + embed + search)",
    "load",
)
_MAKE = """
import sys; from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
from indexing import load; from servers import make_index
make_index(Path(sys.argv[2]), Path(sys.argv[3]), load(sys.argv[4], None), int(sys.argv[5]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a clone of the project at an older commit")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="images in the index")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="folder that keeps the indexes for a later run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = options.keep or Path(name)
        photos = [file.read_bytes() for file in write_photos(Path(name) / "queries", 16, (640, 480))]
        rows = []
        for count in options.rows:
            before = made(options.before, folder / f"before-{count}", folder / f"images-{count}", count)
            now = made(ROOT, folder / f"now-{count}", folder / f"images-{count}", count)
            rows += measure(count, options, before, now, photos)
        print(table(HEADER, rows))
        print(f"Photos of 640x480; the box is {_BOX}, which the older state ignores.\n")


def made(root: Path, index_dir: Path, images: Path, rows: int) -> Path:
    """Return an index made by the version of the project in ``root``."""
    if not (index_dir / "catalog.sqlite").exists():
        say(f"making {index_dir.name} ...")
        arguments = [sys.executable, "-c", _MAKE, *map(str, (root, index_dir, images, LITE, rows))]
        subprocess.run(arguments, check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    return index_dir


def measure(
    count: int, options: argparse.Namespace, before: Path, now: Path, photos: list[bytes]
) -> list[tuple[object, ...]]:
    cache = Path.home() / ".cache" / "searchengine"
    servers: dict[str, Server] = {
        "before": serve_ours(before, cache, options.before.resolve()),
        "now": serve_ours(now, cache),
    }
    parts = Way(parts_of, now, photos)
    seconds: dict[tuple[str, str, str], list[float]] = {}
    plain: list[float] = []
    try:
        for server in servers.values():
            server.seconds_to(photos[0])
        clients = {name: Client(server.port) for name, server in servers.items()}
        for number in range(-3, options.queries):  # the first three warm up
            photo = photos[number % len(photos)]
            took = parts.round()[0]
            plain += [took] if number >= 0 else []
            for query, fields in (("whole", {}), ("box", {"box": _BOX})):
                for answer, accept in _ACCEPT.items():
                    for name, client in clients.items():
                        took = client.query(photo, accept, **fields)
                        if number >= 0:
                            seconds.setdefault((query, answer, name), []).append(took)
    finally:
        parts.close()
        for server in servers.values():
            server.close()
    rows: list[tuple[object, ...]] = []
    for query in ("whole", "box"):
        for answer in _ACCEPT:
            old, new = seconds[query, answer, "before"], seconds[query, answer, "now"]
            ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
            over = statistics.median(b / a for a, b in zip(plain, new, strict=True))
            medians = ms(percentile(old, 0.5)), ms(percentile(new, 0.5))
            rows.append((count, query, answer, *medians, f"{ratio:.2f}x", f"**{over:.2f}x**", load_average()))
    return rows


if __name__ == "__main__":
    main()
