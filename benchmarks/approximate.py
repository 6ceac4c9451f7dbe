"""Approximate search compared with other libraries, on the same realistic rows, in one run.

    python benchmarks/approximate.py --index DIR         DIR: an index made with EfficientNet-Lite0, for realistic rows
    pip install usearch numkong                          to include usearch

FAISS flat and our exact search read every row. FAISS IVF is built from its factory string, with lists trained on 39
rows each (the fewest that give no warning), and searches as many lists as it takes to find 99 % for these queries.
usearch is its default HNSW in float32, with the expansion that reaches the same recall. Ours is built and calibrated
as by `searchengine index`, and also looks up images in the catalog. One thread answers one query at a time; our exact
search and FAISS flat use all processors.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import describe_machine, in_turn, load_average, percentile, say, table
from million import K, make_index
from numpy.typing import NDArray
from structured import Source

_GOAL = 0.99
_PER_LIST = 39
HEADER = ("features", "search", "recall@20", "p50", "/ ours", "built in", "of the processors", "bytes a row", "load")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, metavar="DIR", help="an index of photos (default: synthetic features)")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the index there")
    options = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = (options.folder or Path(name)) / f"{options.rows}x{options.dimension}"
        source = Source.of(options.index, options.dimension)
        make_index(folder, source, options.rows)
        print(table(HEADER, compare(folder, source.queries[: options.queries])))


def compare(folder: Path, queries: NDArray[np.float32]) -> list[tuple[object, ...]]:
    """Return a row of the table for each method."""
    from searchengine.index import building
    from searchengine.index.local import LocalIndex

    exact = LocalIndex.open(folder, exact=True)
    rows = np.array(exact.features)
    expected = [{hit.id - 1 for hit in hits} for hits in exact.search(queries, K)]

    def recall(search: Callable[[NDArray[np.float32]], set[int]]) -> float:
        return float(
            np.mean([len(search(query) & wanted) / K for query, wanted in zip(queries, expected, strict=True)])
        )

    costs: dict[str, tuple[float, float, float]] = {}
    ways: dict[str, Callable[[NDArray[np.float32]], set[int]]] = {}

    def built(title: str, build: Callable[[], Any], size: Callable[[Any], float]) -> Any:
        say(f"{title} ...")
        processor, wall = time.process_time(), time.perf_counter()
        result = build()
        costs[title] = (time.perf_counter() - wall, time.process_time() - processor, size(result) / len(rows))
        return result

    sheet = built("ours", lambda: building.build(folder, exact.state()), lambda sheet: sheet.size)
    index = LocalIndex.open(folder)
    ways["ours"] = lambda query: {hit.id - 1 for hit in index.search(query, K)[0]}
    ways["ours, exact"] = lambda query: {hit.id - 1 for hit in exact.search(query, K)[0]}
    import faiss

    flat = built("FAISS flat", lambda: faiss_index(faiss, "Flat", rows), lambda _: rows.nbytes)
    ways["FAISS flat"] = lambda query: with_threads(faiss, 0, flat, query)
    lists = sheet.factory.split("IVF")[1].split(",")[0]
    for factory in (f"IVF{lists},Flat", f"IVF{lists},SQ8"):
        ivf = built(f"FAISS {factory}", lambda factory=factory: faiss_index(faiss, factory, rows), size_of(faiss))
        ways[f"FAISS {factory}"] = lambda query, ivf=ivf: with_threads(faiss, 1, ivf, query)
        for nprobe in (1, 2, 4, 8, 16, 32, 64, 128, 256, int(lists)):
            ivf.nprobe = nprobe
            if recall(ways[f"FAISS {factory}"]) >= _GOAL:
                say(f"{nprobe} lists")
                break
    try:
        from usearch.index import Index
    except ImportError:
        say("usearch is not installed, and left out.")
    else:
        hnsw = built("usearch", lambda: usearch_index(Index, rows), lambda index: index.memory_usage)
        ways["usearch"] = lambda query: {*hnsw.search(query, K, threads=1).keys.tolist()}
        while recall(ways["usearch"]) < _GOAL and hnsw.expansion_search < 4096:
            hnsw.expansion_search *= 2
    turns = {title: iter(np.tile(queries, (2, 1))) for title in ways}
    timings = in_turn(
        {title: lambda title=title: ways[title](next(turns[title])) for title in ways},
        len(queries),
        warm=len(queries) // 2,
    )
    return [
        (f"{len(rows)} x {rows.shape[1]}", title, f"**{recall(ways[title]):.4f}**",
         f"{percentile(timing.walls, 0.5) * 1e3:.2f} ms", f"**{timing.over(timings['ours']):.2f}x**",
         *(f"{value:.0f} {unit}" for value, unit in zip(costs.get(title, ()), ("s", "s", ""), strict=False)),
         *("" for _ in range(0 if title in costs else 3)), load_average())
        for title, timing in timings.items()
    ]  # fmt: skip


def faiss_index(faiss: Any, factory: str, rows: NDArray[np.float32]) -> Any:
    """Build a FAISS index on all processors."""
    faiss.omp_set_num_threads(os.cpu_count())
    index = faiss.index_factory(rows.shape[1], factory)
    if hasattr(index, "cp"):
        index.cp.max_points_per_centroid = _PER_LIST  # of 256, k-means of 1280 numbers takes minutes
    index.train(rows)
    index.add(rows)
    return index


def size_of(faiss: Any) -> Callable[[Any], float]:
    return lambda index: faiss.serialize_index(index).nbytes


def with_threads(faiss: Any, threads: int, index: Any, query: NDArray[np.float32]) -> set[int]:
    """Search FAISS with this number of threads; 0 means all processors."""
    faiss.omp_set_num_threads(threads or os.cpu_count())
    return {*index.search(query[None], K)[1][0].tolist()}


def usearch_index(index: Any, rows: NDArray[np.float32]) -> Any:
    hnsw = index(ndim=rows.shape[1], metric="l2sq", dtype="f32")
    hnsw.add(np.arange(len(rows)), rows)
    return hnsw


if __name__ == "__main__":
    main()
