"""Time from the start of the server's process to its first response to a photo, and its memory then.

    python benchmarks/starting.py
    python benchmarks/starting.py --model vgg16 --rounds 5

*warm*: the exported model is in the cache, as after the first start or `searchengine prepare`. *cold*: it is not, so
the server exports it first. *reference*: a tutorial-style server, which loads Keras and the weights at each start
(reference_system.py). Each starts a new process, in turn; files stay in the system's page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import vgg16
from indexing import LITE, load
from measuring import load_average, say, table
from photos import write_photos
from servers import Server, make_index, serve_ours, serve_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=["vgg16", LITE], default=[LITE, "vgg16"])
    parser.add_argument("--rows", type=int, default=10_000, help="images in the index (default: 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="warm starts (default: 3)")
    vgg16.add_flags(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        cache = vgg16.set_cache(options, folder)
        photo = write_photos(folder / "queries", 1, (640, 480))[0].read_bytes()
        rows: list[tuple[object, ...]] = []
        for model in options.model:
            weights = vgg16.weights(folder, options.weights) if model == "vgg16" else None
            index_dir = folder / f"index-{model}"
            say(f"{model}: making an index of {options.rows} rows ...")
            make_index(index_dir, folder / "images", load(model, weights), options.rows)
            note_weights(index_dir, weights)
            warm: list[tuple[float, float]] = []
            other: list[tuple[float, float]] = []
            for _ in range(options.rounds):
                warm.append(start(serve_ours(index_dir, cache), photo))
                if weights:
                    server = serve_reference(index_dir / "features.npy", weights, folder / "uploads")
                    other.append(start(server, photo))
            cold = f"{start(serve_ours(index_dir, folder / 'cold'), photo)[0]:.1f} s"
            rows.append(row(model, options.rows, warm, other, cold))
        print(
            table(
                ("model", "images", "warm: first answer after", "cold", "reference system",
                 "reference / warm", "peak of the worker", "of the reference's", "load"),
                rows,
            )
        )  # fmt: skip


def note_weights(index_dir: Path, weights: Path | None) -> None:
    """Record the weights file in the manifest, as indexing does, so that a server can export the model itself."""
    from searchengine.index.writer import IndexWriter

    if weights is None:
        return
    writer = IndexWriter.open(index_dir)
    try:
        writer.set({"weights_file": str(weights.absolute())})
    finally:
        writer.close()


def start(server: Server, photo: bytes) -> tuple[float, float]:
    """Return the seconds until the first response, and the worker's peak in MiB after ten responses."""
    try:
        seconds = server.seconds_to(photo)
        for _ in range(9):
            server.seconds_to(photo)
        return seconds, server.peak()
    finally:
        server.close()


def row(
    model: str, images: int, warm: list[tuple[float, float]], other: list[tuple[float, float]], cold: str
) -> tuple[object, ...]:
    """Return one row of the table."""
    ours = statistics.median(seconds for seconds, _ in warm)
    theirs = statistics.median(seconds for seconds, _ in other) if other else 0.0
    return (
        model,
        images,
        f"{ours:.2f} s",
        cold,
        f"{theirs:.2f} s" if other else "",
        f"**{statistics.median(b[0] / a[0] for a, b in zip(warm, other, strict=True)):.1f}x**" if other else "",
        f"{max(peak for _, peak in warm):.0f} MiB",
        f"{max(peak for _, peak in other):.0f} MiB" if other else "",
        load_average(),
    )


if __name__ == "__main__":
    main()
