"""An index in Milvus beside one in a folder: rows written a second, a query, and how many of the nearest are found.

    milvus-server --data /tmp/milvus --proxy-port 19530          # in another terminal
    python benchmarks/milvus_index.py --rows 100000 --index DIR

Features have the structure of those of the photos in an index (``structured.py``), or of made-up ones; held-out photos
are the queries. Both indexes hold the same, and are asked the same in turn; the index in the folder compares every row,
so that its answers are the truth.
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
    options = parser.parse_args()
    address = parse_address(options.address)
    assert isinstance(address, MilvusAddress)
    address = replace(address, options=MilvusOptions(index_type=options.index_type))
    manifest = {
        "spec": _SPEC.to_json(),
        "fingerprint": _SPEC.fingerprint,
        "extractor": "Random",
        "metric": "euclidean",
        "normalized": "1",
    }
    source = Source.of(options.index, options.dimension)

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "index"
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
            say(f"Milvus has built its index: {time.perf_counter() - started:.1f} s")
        queries = source.queries[: options.queries]
        with closing(LocalIndex.open(folder, exact=True)) as exact, closing(MilvusIndex(address, folder)) as served:
            measured = ask({"folder": exact, "Milvus": served}, queries)
    rows = [
        (
            where,
            f"{options.rows / seconds[where]:.0f}",
            f"{percentile(times, 0.5) * 1e3:.1f} ms",
            f"{percentile(times, 0.95) * 1e3:.1f} ms",
            f"{recall:.3f}",
            load_average(),
        )
        for where, (times, recall) in measured.items()
    ]
    print(f"{options.rows} x {options.dimension}, k {_K}, {options.index_type}")
    print(table(("index", "rows written/s", "query, p50", "p95", f"recall@{_K}", "load"), rows))


def wait_for_index(address: MilvusAddress) -> None:
    """Until Milvus has built its index of all that was written."""
    with closing(Connection(address)) as connection:
        while connection.ask(lambda client: client.describe_index(address.collection, "feature"))["pending_index_rows"]:
            time.sleep(1)
    time.sleep(5)  # until the index is loaded


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


def ask(indexes: dict[str, Index], queries: NDArray[np.float32]) -> dict[str, tuple[list[float], float]]:
    """The seconds of each query, and the share of the truly nearest that is found."""
    times: dict[str, list[float]] = {where: [] for where in indexes}
    found: dict[str, list[float]] = {where: [] for where in indexes}
    for index in indexes.values():
        index.search(queries[0], _K)  # opened by the first search
    for query in queries:
        truth: set[int] = set()
        for where, index in indexes.items():
            started = time.perf_counter()
            ids = {hit.id for hit in index.search(query, _K)[0]}
            times[where].append(time.perf_counter() - started)
            truth = truth or ids
            found[where].append(len(ids & truth) / len(truth))
    return {where: (times[where], float(np.mean(found[where]))) for where in indexes}


if __name__ == "__main__":
    main()
