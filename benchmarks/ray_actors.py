"""Indexing with Ray actors, compared with the threads of one process, in turn on the same processors.

    python benchmarks/ray_actors.py
    python benchmarks/ray_actors.py --images 100 400 --rounds 5

Each alternative indexes a small and a large folder with EfficientNet-Lite0, the fastest network, where the overhead of
Ray matters most. The cost of an image is the difference between the two, in wall time and in processor time of this
process and the actors. The rest is the start of the actors and their models, in a Ray that is already running.
"overhead" is the additional processor time per image compared with threads, the median over the rounds and the range;
it depends less than wall time on other programs. "daemons" is the share of one processor used by Ray's own processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import load_average, say, table
from photos import write_photos

from searchengine.extractors import load_extractor
from searchengine.indexing import update_index

WAYS: dict[str, dict[str, Any]] = {
    "threads": {},
    "1 actor, 2 processors": {"ray": "auto", "ray_actors": 1, "ray_cpus": 2},
    "2 actors, 1 processor each": {"ray": "auto", "ray_actors": 2, "ray_cpus": 1},
}
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds for an additional image, and for the start, from two folders."""

    wall: float
    processor: float
    start: float
    daemons: float  # of one processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", nargs=2, type=int, default=(100, 400), help="images in the two folders (default: 100 400)"
    )
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
            costs = measure(Path(name), options.images, options.rounds)
    finally:
        ray.shutdown()
    print(table(("way", "images/s", "per processor second", "start", "overhead", "daemons", "load"), rows(costs)))


def measure(folder: Path, counts: tuple[int, int], rounds: int) -> dict[str, list[Cost]]:
    """Return the cost of each alternative in each round."""
    extractor = load_extractor("efficientnet-lite0")
    for count in counts:
        write_photos(folder / str(count), count, (500, 375))
    costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way, flags in WAYS.items():
            walls, processors = [], []
            for count in counts:
                with Watch() as watch:
                    place = folder / f"index-{number}-{way}-{count}"
                    summary = update_index(folder / str(count), place, extractor=extractor, **flags)
                assert summary.embedded == count, summary
                walls.append(summary.seconds)
                processors.append(watch.seconds)
            wall, processor = ((large - small) / (counts[1] - counts[0]) for small, large in (walls, processors))
            say(f"  {way}: {wall * 1e3:.1f} ms an image, {processor * 1e3:.1f} ms of the processors")
            costs[way].append(Cost(wall, processor, walls[0] - counts[0] * wall, watch.daemons / walls[1]))
    return costs


def rows(costs: dict[str, list[Cost]]) -> list[tuple[object, ...]]:
    """Return one row for each alternative."""
    lines: list[tuple[object, ...]] = []
    for way, rounds in costs.items():
        wall = statistics.median(cost.wall for cost in rounds)
        processor = statistics.median(cost.processor for cost in rounds)
        start = max(0.0, statistics.median(cost.start for cost in rounds))
        pairs = zip(rounds, costs["threads"], strict=True)
        overheads = sorted(mine.processor / theirs.processor - 1 for mine, theirs in pairs)
        overhead = f"**{statistics.median(overheads):+.0%}** ({overheads[0]:+.0%} to {overheads[-1]:+.0%})"
        rates = f"{1 / wall:.1f}", f"{1 / processor:.1f}"
        daemons = statistics.median(cost.daemons for cost in rounds)
        lines.append((way, *rates, f"{start:.1f} s", overhead, f"{daemons:.0%}", load_average()))
    return lines


class Watch:
    """Processor time of this process and its descendants, sampled regularly because actors end."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, bool], float] = {}
        self._before: dict[tuple[int, bool], float] = {}
        self._own = 0.0  # what looking takes
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._before = processor_times()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._seen |= processor_times()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self._seen |= processor_times()
        self._own = time.thread_time()

    @property
    def seconds(self) -> float:
        """Return the time used by this process and by actors between the beginning and the end."""
        return self._used(daemons=False) - self._own

    @property
    def daemons(self) -> float:
        """Return the time used by Ray's own processes."""
        return self._used(daemons=True)

    def _used(self, *, daemons: bool) -> float:
        seen = ((key, used) for key, used in self._seen.items() if key[1] == daemons)
        return sum(used - self._before.get(key, 0) for key, used in seen)


def processor_times() -> dict[tuple[int, bool], float]:
    """Return (process, whether it is a daemon of Ray) -> seconds, for this process and its descendants."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICK
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    times: dict[tuple[int, bool], float] = {}
    for pid in ours & used.keys():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if command:  # else it has ended
                times[pid, pid != os.getpid() and not command.startswith(b"ray::Worker")] = used[pid]
    return times


if __name__ == "__main__":
    main()
