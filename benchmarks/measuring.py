"""Several ways of doing one thing, measured in turn, A B C A B C ..., so that ratios hold while the machine drifts.

Each way is a process of its own: it has its own libraries, threads and peak of memory, and waits while another's turn
is on. What is quoted is the median over the rounds; processor time (of all threads) stands beside wall time, because
on a machine that others use too it is disturbed less.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of each round, in their order: by the clock, and of the processors; and the process's peak in MiB."""

    walls: tuple[float, ...]
    processors: tuple[float, ...]
    peak_mib: float = 0.0

    @property
    def wall(self) -> float:
        """The median."""
        return statistics.median(self.walls)

    @property
    def processor(self) -> float:
        """The median."""
        return statistics.median(self.processors)

    def over(self, other: Timing) -> float:
        """How many times as long as the other's: the median of the ratios round by round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.walls, other.walls, strict=True))

    def processor_over(self, other: Timing) -> float:
        """The same in processor time."""
        pairs = zip(self.processors, other.processors, strict=True)
        return statistics.median(mine / max(theirs, 1e-9) for mine, theirs in pairs)


def in_turn(works: Mapping[str, Work], rounds: int, *, warm: int = 1) -> dict[str, Timing]:
    """Ways that can live in this process, for what takes milliseconds; ``warm`` rounds before are not counted."""
    walls: dict[str, list[float]] = {name: [] for name in works}
    processors: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm, rounds):
        for name, work in works.items():
            processor, wall = processor_seconds(), time.perf_counter()
            work()
            wall, processor = time.perf_counter() - wall, processor_seconds() - processor
            if number >= 0:
                walls[name].append(wall)
                processors[name].append(processor)
    return {name: Timing(tuple(walls[name]), tuple(processors[name]), peak_mib()) for name in works}


class Way:
    """One way, in a process of its own. ``make(*arguments)`` is called there and gives the work of a round."""

    def __init__(
        self, make: Callable[..., Work], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, arguments, dict(environment or {})), daemon=True
        )
        self._process.start()
        theirs.close()
        self.result: object = None
        """What the work of the last round returned."""
        self._answer()  # made ready

    def round(self) -> tuple[float, float, float]:
        """Wall and processor seconds of one round, and the peak of memory so far in MiB."""
        self._ours.send("go")
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> tuple[float, float, float]:
        try:
            wall, processor, peak, self.result = self._ours.recv()
        except EOFError:
            self._process.join()
            sys.exit(f"One of the ways ended with exit code {self._process.exitcode}; what it said stands above.")
        return wall, processor, peak


@contextmanager
def ways(**made: Way) -> Iterator[dict[str, Way]]:
    """Closes them at the end."""
    try:
        yield made
    finally:
        for way in made.values():
            way.close()


def rounds_of(made: Mapping[str, Way], rounds: int, *, warm: int = 1) -> dict[str, Timing]:
    """Let each have its turn, ``rounds`` times after ``warm`` that are not counted."""
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in made}
    for number in range(-warm, rounds):
        for name, way in made.items():
            result = way.round()
            say(f"  {name}: {result[0]:.2f} s{'' if number >= 0 else ' (not counted)'}")
            if number >= 0:
                results[name].append(result)
    return {
        name: Timing(tuple(r[0] for r in all_), tuple(r[1] for r in all_), max(r[2] for r in all_))
        for name, all_ in results.items()
    }


def _serve(
    pipe: Connection, make: Callable[..., Work], arguments: tuple[Any, ...], environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    work = make(*arguments)
    pipe.send((0.0, 0.0, peak_mib(), None))
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        processor, wall = processor_seconds(), time.perf_counter()
        result = work()
        wall, processor = time.perf_counter() - wall, processor_seconds() - processor
        pipe.send((wall, processor, peak_mib(), result))


def processor_seconds() -> float:
    """Of this process, all threads, in the kernel too."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib(pid: int | str = "self") -> float:
    """The most memory a process has held. Not ``ru_maxrss`` where it can be helped: that begins with the parent's."""
    value = _status_kib(pid, "VmHWM")
    if value is not None:
        return value / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _status_kib(pid: int | str, field: str) -> float | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def percentile(values: list[float] | tuple[float, ...], share: float) -> float:
    """The value below which that share of the values lies, the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *(tuple(str(cell) for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def load_average() -> str:
    """Processes that ran or wanted to, over the last minute; what is measured here is among them."""
    return f"{os.getloadavg()[0]:.1f}"
