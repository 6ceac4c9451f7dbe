"""A query over HTTP, through gunicorn, compared with the sum of its parts and with a tutorial-style server.

    python benchmarks/queries.py
    python benchmarks/queries.py --rows 40000 --queries 100 --model efficientnet-lite0

Each photo goes to the product (as a page and as JSON), then to its parts in a process without a server (decode, embed,
exact search), then to the reference system (reference_system.py; VGG16 only): in turn, under the same load. Then 8
clients send queries concurrently, as fast as they get responses.

The index has random features. The networks are real, VGG16 with random weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import vgg16
from indexing import LITE, load
from measuring import Way, Work, load_average, percentile, say, table
from photos import write_photos
from servers import Client, Server, make_index, serve_ours, serve_reference

_JSON, _PAGE = "application/json", "text/html"
_K = 30
HEADER = (
    "model", "images", "answer", "clients", "p50", "p95", "queries/s", "sum of parts, p50", "p50 / sum of parts",
    "reference system, p50", "reference / ours", "peak of the worker", "load",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=["vgg16", LITE], default=[LITE, "vgg16"])
    parser.add_argument("--rows", type=int, default=10_000, help="images in the index (default: 10000)")
    parser.add_argument("--queries", type=int, default=40, help="queries by a single client (default: 40)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--size", default="640x480", metavar="WxH", help="size of the query photos")
    vgg16.add_flags(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        cache = vgg16.set_cache(options, folder)
        width, height = map(int, options.size.split("x"))
        photos = [file.read_bytes() for file in write_photos(folder / "queries", 16, (width, height))]
        rows: list[tuple[object, ...]] = []
        parts: list[tuple[object, ...]] = []
        for model in options.model:
            weights = vgg16.weights(folder, options.weights) if model == "vgg16" else None
            index_dir = folder / f"index-{model}"
            say(f"{model}: making an index of {options.rows} rows ...")
            make_index(index_dir, folder / "images", load(model, weights), options.rows)
            measured, split = measure(folder, cache, index_dir, weights, photos, options)
            rows += measured
            parts.append((model, *(f"{seconds * 1e3:.1f} ms" for seconds in split)))
        print(table(HEADER, rows))
        print(table(("model", "decode", "embed", "search"), parts))
        print(f"Photos of {options.size}; k = {_K}. The clients run on the same processors as the server.\n")


def measure(
    folder: Path,
    cache: Path,
    index_dir: Path,
    weights: Path | None,
    photos: list[bytes],
    options: argparse.Namespace,
) -> tuple[list[tuple[object, ...]], list[float]]:
    """Return the rows of the table for a model, and the medians of its three parts."""
    model = "vgg16" if weights else LITE
    ours = serve_ours(index_dir, cache)
    reference = serve_reference(index_dir / "features.npy", weights, folder / "uploads") if weights else None
    parts = Way(parts_of, index_dir, photos)
    try:
        for server in filter(None, (ours, reference)):
            server.seconds_to(photos[0])
        rows, split = single_client(model, ours, reference, parts, photos, options)
        rows += several_clients(model, ours, reference, rows, photos, options)
    finally:
        ours.close()
        parts.close()
        if reference:
            reference.close()
    return rows, split


def single_client(
    model: str, ours: Server, reference: Server | None, parts: Way, photos: list[bytes], options: argparse.Namespace
) -> tuple[list[tuple[object, ...]], list[float]]:
    seconds: dict[str, list[float]] = {"page": [], "JSON": [], "parts": [], "reference": []}
    split: list[tuple[float, ...]] = []
    client, other = Client(ours.port), Client(reference.port) if reference else None
    for number in range(-3, options.queries):
        photo = photos[number % len(photos)]
        round_ = {"page": client.query(photo, _PAGE), "JSON": client.query(photo, _JSON), "parts": parts.round()[0]}
        if other:
            round_["reference"] = other.query(photo, _JSON)
        if number >= 0:  # the first three warm up
            for name, value in round_.items():
                seconds[name].append(value)
            split.append(parts.result)  # type: ignore[arg-type]
    say(f"{model}: single client done")
    rows = []
    for answer in ("page", "JSON"):
        ratio = statistics.median(a / b for a, b in zip(seconds[answer], seconds["parts"], strict=True))
        slower = ""
        if reference:
            slower = (
                f"{statistics.median(b / a for a, b in zip(seconds[answer], seconds['reference'], strict=True)):.1f}x"
            )
        rows.append(
            (
                model, options.rows, answer, 1, ms(percentile(seconds[answer], 0.5)),
                ms(percentile(seconds[answer], 0.95)), f"{1 / statistics.mean(seconds[answer]):.1f}",
                ms(percentile(seconds["parts"], 0.5)), f"**{ratio:.2f}x**",
                ms(percentile(seconds["reference"], 0.5)) if reference else "", slower,
                f"{ours.peak():.0f} MiB", load_average(),
            )
        )  # fmt: skip
    return rows, [statistics.median(values) for values in zip(*split, strict=True)]


def several_clients(
    model: str,
    ours: Server,
    reference: Server | None,
    alone: list[tuple[object, ...]],
    photos: list[bytes],
    options: argparse.Namespace,
) -> list[tuple[object, ...]]:
    """Run all clients at once, three times, in turn with the reference system."""
    each = max(2, options.queries // 8)
    gathered: dict[str, tuple[list[float], list[float]]] = {"ours": ([], []), "reference": ([], [])}
    for _ in range(3):
        for name, server in (("ours", ours), ("reference", reference)):
            if server is not None:
                latencies, rate = burst(server, photos, options.clients, each)
                gathered[name][0].extend(latencies)
                gathered[name][1].append(rate)
    say(f"{model}: {options.clients} clients done")
    mine, theirs = gathered["ours"], gathered["reference"]
    slower = (
        statistics.median(a / b for a, b in zip(*(g[1] for g in gathered.values()), strict=True)) if theirs[1] else 0
    )
    return [
        (
            model, options.rows, "JSON", options.clients, ms(percentile(mine[0], 0.5)), ms(percentile(mine[0], 0.95)),
            f"{statistics.median(mine[1]):.1f}", "", "", ms(percentile(theirs[0], 0.5)) if theirs[0] else "",
            f"{slower:.1f}x (queries/s)" if slower else "", f"{ours.peak():.0f} MiB", load_average(),
        )
    ]  # fmt: skip


def burst(server: Server, photos: list[bytes], clients: int, each: int) -> tuple[list[float], float]:
    """Return the latencies of ``clients`` that each send ``each`` queries at once, and all responses per second."""
    latencies: list[float] = []

    def ask(number: int) -> None:
        client = Client(server.port)
        for turn in range(each):
            seconds = client.query(photos[(number + turn) % len(photos)], _JSON)
            latencies.append(seconds)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(latencies) == clients * each, "a client failed; its error stands above"
    return latencies, len(latencies) / (time.perf_counter() - start)


def parts_of(index_dir: Path, photos: list[bytes]) -> Work:
    """Decode, embed and search only; the work returns the seconds of each."""
    from searchengine.engine import SearchEngine

    engine = SearchEngine.open(index_dir)
    engine.warm()
    extractor, turn = engine.extractor(), iter(range(10**9))

    def work() -> tuple[float, float, float]:
        photo = photos[(next(turn) - 3) % len(photos)]
        start = time.perf_counter()
        pixels = extractor.preprocess(photo).pixels
        decoded = time.perf_counter()
        feature = extractor.embed([pixels])
        embedded = time.perf_counter()
        engine.index.search(feature, _K)
        return decoded - start, embedded - decoded, time.perf_counter() - embedded

    return work


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
