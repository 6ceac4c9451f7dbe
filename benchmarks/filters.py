"""Search with and without filters, further pages, and facets, in turn on one index.

    python benchmarks/filters.py
    python benchmarks/filters.py --rows 10000 100000 --facets 100000 1000000 --before ../checkout-of-an-earlier-version

Features are random, with a thousand labels and folders, and 50 cameras. ``--before`` adds the plain search of another
checkout, in a separate process, on an index that it makes from the same features.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from measuring import Way, Work, closing, in_turn, load_average, percentile, say, table, time_ways

_K = 30
_QUERIES = 20  # of a round
_BLOCK = 50_000  # rows that are committed together
HEADER = ("images", "features", "search", "p50", "/ plain", "load")
FACETS_HEADER = ("images", "columns read once", "facets, no filter", "facets, 50 %", "facets, 1 %", "load")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000], help="numbers of rows for the searches")
    parser.add_argument("--facets", type=int, nargs="*", default=[100_000], help="numbers of rows for the facets")
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout to compare the plain search with")
    options = parser.parse_args()
    searches = [row for rows in options.rows for row in time_searches(rows, options)]
    print(table(HEADER, searches))
    print(table(FACETS_HEADER, [time_facets(rows) for rows in options.facets]))
    print(f"k = {_K}; half of the images have the label for 50 %, and every hundredth has the label for 1 %.\n")


def time_searches(rows: int, options: argparse.Namespace) -> list[tuple[object, ...]]:
    """Return a row of the table for each kind of search."""
    checkouts = {"": Path(__file__).parent.parent}
    if options.before:
        checkouts["before: "] = options.before.resolve()
    kinds = {"plain": "", "50 %": "even", "1 %": "hundredth", "page 100": "cursor"}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        ways = {}
        for title, checkout in checkouts.items():
            say(f"{rows} rows, {title or 'ours'}: making an index ...")
            for kind, choice in kinds.items() if not title else [("plain", "")]:
                folder = Path(name) / (title.strip(": ") or "ours")
                ways[title + kind] = Way(searching, checkout, folder, rows, options.dimension, choice)
        with closing(ways):
            timings = time_ways(ways, options.rounds, warm=2)
    return [
        (rows, f"{options.dimension}-d", kind, f"{timing.wall / _QUERIES * 1e3:.2f} ms",
         f"**{timing.over(timings['plain']):.2f}x**", load_average())
        for kind, timing in timings.items()
    ]  # fmt: skip


def searching(checkout: Path, folder: Path, rows: int, dimension: int, choice: str) -> Work:
    """Run some queries of one kind with the code of a checkout."""
    sys.path.insert(0, str(checkout))
    from searchengine.index.local import LocalIndex

    make_index(folder, rows, dimension)
    index = LocalIndex.open(folder)
    queries = np.random.default_rng(9).standard_normal((_QUERIES, dimension)).astype(np.float32)
    if choice == "cursor":
        from searchengine.index.filters import Cursor

        hits = [index.search(query, 100 * _K)[0][-1] for query in queries]
        cursors = [Cursor(hit.distance, hit.id) for hit in hits]
        return lambda: [index.search(query, _K, after=at) for query, at in zip(queries, cursors, strict=True)]
    if choice:
        from searchengine.index.filters import Filter

        return lambda: [index.search(query, _K, filter=Filter(labels=(choice,))) for query in queries]
    return lambda: [index.search(query, _K) for query in queries]


def time_facets(rows: int) -> tuple[object, ...]:
    """Return a row of the table; each filter is new, so that nothing is cached."""
    from searchengine.index.filters import Filter
    from searchengine.index.local import LocalIndex

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        say(f"{rows} rows: making an index ...")
        make_index(Path(name), rows, 4)
        index = LocalIndex.open(name)
        first = in_turn({"columns": lambda: index.count(Filter(labels=("even",)))}, 1, warm=0)["columns"].wall
        turn = iter(range(1, 10**6))
        timings = in_turn(
            {
                choice: lambda labels=labels: index.facets(Filter(labels=labels, min_width=next(turn)))  # type: ignore[misc]
                for choice, labels in {"none": (), "50 %": ("even",), "1 %": ("hundredth",)}.items()
            },
            15,
        )
        index.close()
    walls = [f"{percentile(timing.walls, 0.5) * 1e3:.1f} ms" for timing in timings.values()]
    return rows, f"{first:.2f} s", *walls, load_average()


def make_index(folder: Path, rows: int, dimension: int) -> None:
    """Make an index with random features, labels, folders, formats, cameras and dates, unless the folder has one."""
    from searchengine.index.catalog import FILE_NAME
    from searchengine.index.types import FileState, ImageRow
    from searchengine.index.writer import IndexWriter

    if (folder / FILE_NAME).exists():
        return
    random = np.random.default_rng(0)
    manifest = {"spec": "{}", "fingerprint": "none", "extractor": "none", "metric": "euclidean", "normalized": "0"}
    with IndexWriter.create(folder, manifest, dimension=dimension) as writer:
        writer.set_roots([(1, b"/photos", "photos")])
        for start in range(0, rows, _BLOCK):
            numbers = range(start, min(start + _BLOCK, rows))
            images = [
                ImageRow(
                    None, 1, f"year/{n % 20}/event {n % 1000}/{n}.jpg".encode(), labels_of(n), hash_of(n),
                    FileState(10**6, n * 10**13 % (10**18), settled=True), 100 + n % 4000, 100 + n % 3000, "#102030",
                    ("JPEG", "PNG", "HEIC")[n % 3],
                )
                for n in numbers
            ]  # fmt: skip
            writer.commit_ready([random.standard_normal((len(numbers), dimension)).astype(np.float32)], images)
        columns = {row[1] for row in writer.catalog.rows("PRAGMA table_info(images)")}
        if "taken" in columns:
            with writer.catalog.transaction():
                writer.catalog.change_many(
                    "UPDATE images SET taken = ?, camera = ? WHERE id = ?",
                    ((taken(n), f"Camera {n % 50}", n + 1) for n in range(0, rows, 2)),
                )


def hash_of(n: int) -> bytes:
    return hashlib.blake2b(b"%d" % n, digest_size=16).digest()


def labels_of(n: int) -> tuple[str, ...]:
    return tuple(filter(None, (f"label {n % 1000}", "even" * (n % 2 == 0), "hundredth" * (n % 100 == 0))))


def taken(n: int) -> str:
    return (datetime(2005, 1, 1) + timedelta(hours=n % 150_000)).isoformat()


if __name__ == "__main__":
    main()
