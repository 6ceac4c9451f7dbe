"""Indexing by actors of Ray, beside the threads of one process, in turn on the same processors.

    python benchmarks/ray_actors.py
    python benchmarks/ray_actors.py --images 100 300 --rounds 5

Each way indexes a small and a large folder by EfficientNet-Lite0, the quickest network, for which what Ray costs weighs
most. The rate is that of the images between the two; what remains of the small one is the start: of the actors and
their models in Ray, which runs already (its own start is timed once). "overhead" is how much longer an image takes
than with threads: the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import load_average, say, table
from photos import write_photos

from searchengine.extractors import load_extractor
from searchengine.indexing import update_index

WAYS: dict[str, dict[str, Any]] = {
    "threads": {},
    "1 actor, 1 processor": {"ray": "auto", "ray_actors": 1, "ray_cpus": 1},
    "1 actor, 2 processors": {"ray": "auto", "ray_actors": 1, "ray_cpus": 2},
    "2 actors, 1 processor each": {"ray": "auto", "ray_actors": 2, "ray_cpus": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs=2, type=int, default=(150, 450), help="in the two folders (default: 150 450)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on the loopback interface only
    import ray

    start = time.perf_counter()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=128 * 10**6)  # fmt: skip
    say(f"Ray: {time.perf_counter() - start:.1f} s")
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            measured = measure(Path(name), options.images, options.rounds)
    finally:
        ray.shutdown()
    print(table(("way", "images/s", "start", "overhead an image", "load"), rows(measured, options.images)))


def measure(folder: Path, counts: tuple[int, int], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """For each way, the seconds of the two folders in each round."""
    extractor = load_extractor("efficientnet-lite0")
    for count in counts:
        write_photos(folder / str(count), count, (500, 375))
    measured: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(-1, rounds):
        for way, flags in WAYS.items():
            seconds = []
            for count in counts:
                index = folder / f"index-{number}-{count}-{WAYS[way].get('ray_actors')}-{WAYS[way].get('ray_cpus')}"
                summary = update_index(folder / str(count), index, extractor=extractor, **flags)
                assert summary.embedded == count, summary
                seconds.append(summary.seconds)
            say(f"  {way}: {seconds[0]:.2f} s, {seconds[1]:.2f} s{'' if number >= 0 else ' (not counted)'}")
            if number >= 0:
                measured[way].append((seconds[0], seconds[1]))
    return measured


def rows(measured: dict[str, list[tuple[float, float]]], counts: tuple[int, int]) -> list[tuple[object, ...]]:
    """One for each way."""
    between = counts[1] - counts[0]
    each = {way: [(large - small) / between for small, large in seconds] for way, seconds in measured.items()}
    lines: list[tuple[object, ...]] = []
    for way, seconds in measured.items():
        overhead = statistics.median(mine / theirs for mine, theirs in zip(each[way], each["threads"], strict=True))
        start = statistics.median(s - counts[0] * a for (s, _), a in zip(seconds, each[way], strict=True))
        lines.append(
            (
                way,
                f"{1 / statistics.median(each[way]):.1f}",
                f"{start:.1f} s",
                f"**{overhead - 1:+.0%}**",
                load_average(),
            )
        )
    return lines


if __name__ == "__main__":
    main()
