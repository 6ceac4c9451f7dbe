"""An index in Milvus beside one in a folder: rows written a second, a query, and how many of the nearest are found.

    milvus-server --data /tmp/milvus --proxy-port 19530          # in another terminal
    python benchmarks/milvus_index.py --rows 100000 --index DIR

Features have the structure of those of the photos in an index (``structured.py``), or of made-up ones; held-out photos
are the queries. Both indexes hold the same, and are asked the same; the index in the folder compares every row, so that
its answers are the truth. The collection is dropped at the end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import load_average, percentile, say, table
from numpy.typing import NDArray
from structured import Source

from searchengine.address import MilvusAddress, MilvusOptions, parse_address
from searchengine.extractors import ExtractorSpec
from searchengine.index.local import LocalIndex
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.milvus.connection import Connection
from searchengine.index.protocol import Index, Writer
from searchengine.index.types import Batch, FileState, ImageRow
from searchengine.index.writer import IndexWriter

_COMMIT_ROWS = 2048  # as in a run
_K = 20
_SPEC = ExtractorSpec("fake", None, "none", "l2", "none", (2, 2), full_decode=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="milvus://127.0.0.1:19530/benchmark")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--index", type=Path, help="an index of real photos, as the source of the structure")
    parser.add_argument("--index-type", default=MilvusOptions().index_type)
    parser.add_argument("--index-params", default="", help="such as nlist=1024")
    parser.add_argument("--search-params", nargs="+", default=[""], help="such as ef=64 ef=512: one line for each")
    options = parser.parse_args()
    address = parse_address(options.address)
    assert isinstance(address, MilvusAddress)
    address = replace(address, options=MilvusOptions(index_type=options.index_type, index_params=options.index_params))
    source = Source.of(options.index, options.dimension)

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "index"
        seconds = fill(folder, address, source, options)
        exact = LocalIndex.open(folder, exact=True)
        truth, times = ask(exact, source.queries[: options.queries])
        lines = [line("folder", options.rows / seconds["folder"], times, 1.0)]
        for parameters in options.search_params:
            place = replace(address, options=replace(address.options, search_params=parameters))
            with closing(MilvusIndex(place, folder)) as served:
                found, times = ask(served, source.queries[: options.queries])
            recall = sum(len(ours & theirs) for ours, theirs in zip(found, truth, strict=True)) / sum(map(len, truth))
            way = " ".join(["Milvus,", options.index_type, options.index_params, parameters]).rstrip()
            lines.append(line(way, options.rows / seconds["Milvus"], times, recall))
        exact.close()
    print(f"{options.rows} x {options.dimension}, k {_K}; Milvus took {seconds['index']:.0f} s more to build its index")
    print(table(("index", "rows written/s", "query, p50", "p95", f"recall@{_K}", "load"), lines))
    with closing(Connection(address, timeout=60)) as connection:
        for collection in (connection.images, connection.whole):
            connection.ask(lambda client: client.drop_collection(collection))  # noqa: B023  (asked at once)


def fill(folder: Path, address: MilvusAddress, source: Source, options: argparse.Namespace) -> dict[str, float]:
    """Write the same to both; the seconds of each, and of Milvus after the last row."""
    manifest = {
        "spec": _SPEC.to_json(),
        "fingerprint": _SPEC.fingerprint,
        "extractor": "Random",
        "metric": "euclidean",
        "normalized": "1",
    }
    seconds = {"folder": 0.0, "Milvus": 0.0}
    with (
        closing(IndexWriter.create(folder, manifest, dimension=options.dimension)) as local,
        closing(MilvusWriter.create(address, manifest, dimension=options.dimension)) as milvus,
    ):
        for writer in (local, milvus):
            writer.set_roots([(1, b"/photos", "photos")])
        start = 0
        for block in source.blocks(options.rows):
            for at in range(0, len(block), _COMMIT_ROWS):
                part = block[at : at + _COMMIT_ROWS]
                seconds["folder"] += write(local, part, start)
                seconds["Milvus"] += write(milvus, part, start)
                start += len(part)
            say(f"{start} rows")
        started = time.perf_counter()
        milvus.back_up()
        wait_for_index(address)
        seconds["index"] = time.perf_counter() - started
    return seconds


def line(way: str, rate: float, times: list[float], recall: float) -> tuple[object, ...]:
    """Of the table."""
    p50, p95 = (f"{percentile(times, share) * 1e3:.1f} ms" for share in (0.5, 0.95))
    return way, f"{rate:.0f}", p50, p95, f"{recall:.3f}", load_average()


def wait_for_index(address: MilvusAddress) -> None:
    """Until Milvus has built its index of all that was written."""
    with closing(Connection(address)) as connection:
        while connection.ask(lambda client: client.describe_index(address.collection, "feature"))["pending_index_rows"]:
            time.sleep(1)
    time.sleep(10)  # until the index is loaded


def write(writer: Writer, block: NDArray[np.float32], start: int) -> float:
    """Seconds that a commit takes."""
    state = FileState(1, 1, settled=True)
    images = [
        ImageRow(None, 1, b"%d.jpg" % number, (f"label{number % 10}",), number.to_bytes(16, "big"), state, 4, 3)
        for number in range(start, start + len(block))
    ]
    started = time.perf_counter()
    writer.commit(Batch(stored=images, features=list(block)))
    return time.perf_counter() - started


def ask(index: Index, queries: NDArray[np.float32]) -> tuple[list[set[int]], list[float]]:
    """What each query finds, and the seconds that it takes; asked one after the other."""
    index.search(queries[0], _K)  # opened by the first search
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        found.append({hit.id for hit in index.search(query, _K)[0]})
        times.append(time.perf_counter() - started)
    return found, times


if __name__ == "__main__":
    main()
