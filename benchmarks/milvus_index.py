"""An index in Milvus compared with one in a folder: rows written per second, time of a query, and recall.

    milvus-server --data /tmp/milvus --proxy-port 19530          # in another terminal
    python benchmarks/milvus_index.py --rows 100000 --index DIR --into docs/SCALE.md

Features have the structure of those of the photos in an index (``structured.py``), or of synthetic ones; held-out
photos are the queries. Both indexes have the same content and get the same queries. The folder compares every row, so
its results are the reference. Milvus builds one index type after the other for the same rows; the collection is dropped
at the end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from every import splice
from measuring import load_average, percentile, say, table
from numpy.typing import NDArray
from structured import Source

from searchengine.address import MilvusAddress, MilvusOptions, parse_address
from searchengine.extractors import ExtractorSpec
from searchengine.index.local import LocalIndex
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.milvus.connection import STRONG, Connection
from searchengine.index.milvus.schema import ABOUT, FEATURE, INDEX_PARAMETERS, About
from searchengine.index.protocol import Index, Writer
from searchengine.index.types import Batch, FileState, ImageRow
from searchengine.index.writer import IndexWriter

_COMMIT_ROWS = 2048  # as in a run
_K = 20
_SPEC = ExtractorSpec("fake", None, "none", "l2", "none", (2, 2), full_decode=True)
_SEARCHES = {  # index type -> how it is searched
    "FLAT": [""],
    "IVF_FLAT": ["nprobe=8", "nprobe=32", "nprobe=64", "nprobe=128"],
    "IVF_SQ8": ["nprobe=64"],
    "HNSW": ["ef=64", "ef=128", "ef=512"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="milvus://127.0.0.1:19530/benchmark")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--index", type=Path, help="an index of real photos, as the source of the structure")
    parser.add_argument("--index-types", nargs="+", choices=list(_SEARCHES), default=list(_SEARCHES))
    parser.add_argument("--into", type=Path, metavar="FILE.md", help="write the table there, between its marks")
    options = parser.parse_args()
    address = parse_address(options.address)
    assert isinstance(address, MilvusAddress)
    source = Source.of(options.index, options.dimension)
    queries = source.queries[: options.queries]

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "index"
        seconds = fill(folder, address, source, options)
        with closing(LocalIndex.open(folder, exact=True)) as exact:
            truth, times = ask(exact, queries)
        written = f"{options.rows / seconds['folder']:.0f}"
        lines = [("folder", written, "", *figures(times), "1.000", load_average())]
        written = f"{options.rows / seconds['Milvus']:.0f}"
        for kind in options.index_types:
            built = f"{build(address, kind):.0f} s"
            for parameters in _SEARCHES[kind]:
                place = replace(address, options=MilvusOptions(search_params=parameters))
                with closing(MilvusIndex(place, folder)) as index:
                    answers, times = ask(index, queries)
                pairs = zip(answers, truth, strict=True)
                recall = sum(len(ours & theirs) for ours, theirs in pairs) / sum(map(len, truth))
                way = f"Milvus, {kind} {parameters}".rstrip()
                lines.append((way, written, built, *figures(times), f"{recall:.3f}", load_average()))
                say(f"  {way}: {lines[-1][2:]}")
                written = built = ""
    columns = ("index", "rows written/s", "index built in", "query, p50", "p95", f"recall@{_K}", "load")
    kinds = " ".join(options.index_types)
    command = f"python benchmarks/milvus_index.py --rows {options.rows} --index DIR --index-types {kinds}"
    section = (
        f"    {command}\n\n{options.rows} x {options.dimension}, {len(queries)} queries:\n\n{table(columns, lines)}"
    )
    print(section)
    if options.into:
        splice(options.into, f"milvus_{options.rows}", section)
    with closing(Connection(address, timeout=60)) as connection:
        for collection in (connection.images, connection.whole):
            connection.ask(lambda client: client.drop_collection(collection))  # noqa: B023  (asked at once)


def fill(folder: Path, address: MilvusAddress, source: Source, options: argparse.Namespace) -> dict[str, float]:
    """Write the same rows to both, and return the seconds of each."""
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
        milvus.back_up()
    return seconds


def build(address: MilvusAddress, kind: str) -> float:
    """Make Milvus build another index for the same rows, and return the seconds."""
    with closing(Connection(address, consistency=STRONG, timeout=1800)) as connection:
        about = About.from_text(connection.about() or "", address)
        about = replace(about, index_type=kind, index_params=INDEX_PARAMETERS.get(kind, {}))
        started = time.perf_counter()
        connection.ask(lambda client: make_index(client, address.collection, about))
        seconds = time.perf_counter() - started
        connection.put_about({ABOUT: about.to_text()})
        connection.count("place >= 0")
    return seconds


def make_index(client: Any, collection: str, about: About) -> None:
    """Replace the present index of Milvus, and return once the new one is built and loaded."""
    client.release_collection(collection)
    client.drop_index(collection, FEATURE)
    parameters = client.prepare_index_params()
    parameters.add_index(
        FEATURE, index_type=about.index_type, metric_type=about.measured, params=dict(about.index_params)
    )
    client.create_index(collection, parameters)
    client.load_collection(collection)


def figures(times: list[float]) -> tuple[str, str]:
    """Return the median and the 95th percentile of some seconds."""
    return f"{percentile(times, 0.5) * 1e3:.1f} ms", f"{percentile(times, 0.95) * 1e3:.1f} ms"


def write(writer: Writer, block: NDArray[np.float32], start: int) -> float:
    """Return the seconds of a commit."""
    state = FileState(1, 1, settled=True)
    images = [
        ImageRow(None, 1, b"%d.jpg" % number, (f"label{number % 10}",), number.to_bytes(16, "big"), state, 4, 3)
        for number in range(start, start + len(block))
    ]
    started = time.perf_counter()
    writer.commit(Batch(stored=images, features=list(block)))
    return time.perf_counter() - started


def ask(index: Index, queries: NDArray[np.float32]) -> tuple[list[set[int]], list[float]]:
    """Return the results and the seconds of each query, searched one after the other."""
    index.search(queries[0], _K)  # opened by the first search
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        found.append({hit.id for hit in index.search(query, _K)[0]})
        times.append(time.perf_counter() - started)
    return found, times


if __name__ == "__main__":
    main()
