"""Approximate search of a million pictures compared with exact results: `make bench-million`.

    python benchmarks/million.py --index DIR             DIR: an index made with EfficientNet-Lite0, for realistic rows
    python benchmarks/million.py --rows 100000 --dimension 256 1280
    python benchmarks/million.py --folder DIR            keep the index there, or use the one that is there already

Needs 4 bytes of disk for each number: 5 GB for a million x 1280. The structure is built as by `searchengine index`.
Each query is searched twice, and the second time counts, because its rows are in memory then. Under a filter, the
images that pass are random ones. --verbs also runs commands that work on all images; with a million, each takes at
least a quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import describe_machine, load_average, peak_mib, percentile, say, table
from numpy.typing import NDArray
from structured import Source

K = 20
SHARES = {"even": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
HEADER = (
    "features",
    "structure",
    "built in",
    "of the processors",
    "peak",
    "file",
    "open to first answer",
    "private memory",
)
WHOLE_SET_HEADER = ("features", "verb", "wall", "of the processors", "private memory at most", "load")
SEARCH_HEADER = ("features", "search", "recall@20", "p50", "p95", "of a processor", "exact", "load")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, metavar="DIR", help="an index of photos (default: synthetic features)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, nargs="+", default=[1280])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the indexes there")
    parser.add_argument("--cold", action="store_true", help="open the index with none of it in memory")
    parser.add_argument("--verbs", nargs="+", default=[], choices=("neighbours", "cluster", "map"))
    options = parser.parse_args()
    print(describe_machine())
    builds, searches, whole_sets = [], [], []
    for dimension in options.dimension:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = (options.folder or Path(name)) / f"{options.rows}x{dimension}"
            source = Source.of(options.index, dimension)
            make_index(folder, source, options.rows)
            build, rows = measure(folder, source.queries[: options.queries], cold=options.cold)
            builds.append(build)
            searches += rows
            whole_sets += [whole_set(folder, verb) for verb in options.verbs]
    print(table(HEADER, builds))
    print(table(SEARCH_HEADER, searches))
    if whole_sets:
        print(table(WHOLE_SET_HEADER, whole_sets))


def make_index(folder: Path, source: Source, rows: int) -> None:
    """Make an index with this number of rows, some of them labelled, unless it exists."""
    from searchengine.index import column_reader
    from searchengine.index.catalog import FILE_NAME
    from searchengine.index.types import FileState, ImageRow
    from searchengine.index.writer import IndexWriter

    if (folder / FILE_NAME).exists():
        return
    say(f"{rows} x {source.queries.shape[1]}: making an index ...")
    manifest = {"spec": "{}", "fingerprint": "none", "extractor": "none", "metric": "euclidean", "normalized": "1"}
    random, state = np.random.default_rng(4), FileState(10**6, 10**18, settled=True)
    with IndexWriter.create(folder, manifest, dimension=source.queries.shape[1]) as writer:
        writer.set_roots([(1, b"/photos", "photos")])
        number = 0
        for block in source.blocks(rows):
            drawn = random.random((len(block), len(SHARES)))
            images = [
                ImageRow(
                    None, 1, f"{at % 1000}/{at}.jpg".encode(),
                    tuple(label for label, value in zip(SHARES, values, strict=True) if value < SHARES[label]),
                    None, state, 640, 480, "#102030", "JPEG",
                )
                for at, values in enumerate(drawn, number)
            ]  # fmt: skip
            number += len(block)
            writer.commit_ready([block], images)
    column_reader.keep(folder)


def measure(
    folder: Path, queries: NDArray[np.float32], *, cold: bool = False
) -> tuple[tuple[object, ...], list[tuple[object, ...]]]:
    """Return the row of the table of builds, and the rows of the table of searches."""
    from searchengine.index import building
    from searchengine.index.approximate import STRUCTURE
    from searchengine.index.filters import EVERYTHING, Filter
    from searchengine.index.local import LocalIndex

    built = ("", "", "")
    if STRUCTURE.identity(folder) is None:
        say("building the structure ...")
        exact = LocalIndex.open(folder, exact=True)
        processor, wall = time.process_time(), time.perf_counter()
        building.build(folder, exact.state())
        seconds = (time.perf_counter() - wall, time.process_time() - processor)
        built = (f"{seconds[0]:.0f} s", f"{seconds[1]:.0f} s", f"{peak_mib():.0f} MiB")
        exact.close()
    if cold:
        forget(folder)
    wall, before = time.perf_counter(), private_mib()
    index = LocalIndex.open(folder)
    index.search(queries[0], K)
    opened, private = time.perf_counter() - wall, private_mib() - before
    sheet = index.approximation()
    assert sheet is not None
    exact = LocalIndex.open(folder, exact=True)
    title = f"{len(index)} x {index.dimension}"
    rows = []
    for name, filter in {
        "all": EVERYTHING,
        **{f"{share:g}": Filter(labels=(label,)) for label, share in SHARES.items()},
    }.items():
        say(f"{title}, {name} ...")
        walls, processors, hits = timed(lambda query: index.search(query, K, filter=filter)[0], queries)  # noqa: B023
        start = time.perf_counter()
        expected = exact.search(queries, K, filter=filter)
        many = (time.perf_counter() - start) / len(queries)
        single = timed(lambda query: exact.search(query, K, filter=filter), queries[:5])[0]  # noqa: B023
        say(f"exact, many at once: {many * 1e3:.0f} ms each")
        shares = [
            len({hit.id for hit in found} & {hit.id for hit in wanted}) / len(wanted)
            for found, wanted in zip(hits, expected, strict=True)
        ]
        rows.append(
            (title, name, f"**{np.mean(shares):.4f}**", f"**{percentile(walls, 0.5) * 1e3:.2f} ms**",
             f"{percentile(walls, 0.95) * 1e3:.2f} ms", f"{percentile(processors, 0.5) * 1e3:.2f} ms",
             f"{percentile(single, 0.5) * 1e3:.0f} ms", load_average())
        )  # fmt: skip
    structure = f"{sheet.factory}, {sheet.nprobe} lists, {sheet.depth * K} candidates"
    return (title, structure, *built, f"{sheet.size / 1e6:.0f} MB", f"{opened:.2f} s", f"{private:.0f} MiB"), rows


def forget(folder: Path) -> None:
    """Make the system drop its cache of an index, which no process may have open."""
    os.sync()
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def whole_set(folder: Path, verb: str) -> tuple[object, ...]:
    """Return the row of a command that works on all images, run in a separate process as users run it."""
    say(f"{folder.name}: {verb} ...")
    with tempfile.TemporaryDirectory(prefix="bench-") as out:
        command = [sys.executable, "-m", "searchengine", verb, "--index-dir", str(folder)]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen(command + (["--out", out] if verb == "neighbours" else []))
        most = 0.0
        while process.poll() is None:
            most = max(most, private_mib(process.pid))
            time.sleep(0.2)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    end = "" if process.returncode == 0 else f" (exit code {process.returncode})"
    return folder.name, verb + end, f"{wall:.0f} s", f"{processor:.0f} s", f"{most:.0f} MiB", load_average()


def timed(
    search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]
) -> tuple[list[float], list[float], list[list[object]]]:
    """Return wall and processor seconds of the second search for each query, and its results."""
    walls, processors, answers = [], [], []
    for query in queries:
        search(query)
        processor, wall = time.thread_time(), time.perf_counter()
        answers.append(search(query))
        walls.append(time.perf_counter() - wall)
        processors.append(time.thread_time() - processor)
    return walls, processors, answers  # type: ignore[return-value]


def private_mib(process: int | str = "self") -> float:
    """Return the memory of a process that is not backed by files; 0 without /proc."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 2**10 for line in lines if line.startswith("RssAnon:")), 0.0)


if __name__ == "__main__":
    main()
