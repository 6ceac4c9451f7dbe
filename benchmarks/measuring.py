"""Alternatives measured in turn, A B C A B C ..., so that ratios hold although the machine's speed drifts.

Each alternative runs in a separate process, with its own libraries, threads and peak memory, and waits while another
one is measured. The median over the rounds is reported, with the processor time of all threads beside the wall time,
because it varies less on a busy machine.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Work = Callable[[], object]

_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "bfloat16 (AVX-512)",
    "amx_bf16": "bfloat16 (AMX)",
    "bf16": "bfloat16",
}
_LIBRARIES = ("numpy", "openvino", "keras", "tensorflow", "pillow", "flask", "gunicorn")


@dataclass(frozen=True)
class Timing:
    """Wall and processor seconds of each round, in order, and the process's peak memory in MiB."""

    walls: tuple[float, ...]
    processors: tuple[float, ...]
    peak_mib: float = 0.0

    @property
    def wall(self) -> float:
        """Return the median wall time."""
        return statistics.median(self.walls)

    @property
    def processor(self) -> float:
        """Return the median processor time."""
        return statistics.median(self.processors)

    def over(self, other: Timing) -> float:
        """Return how many times as long as ``other`` this takes: the median of the ratios of each round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.walls, other.walls, strict=True))

    def processor_over(self, other: Timing) -> float:
        """Return the same ratio for processor time."""
        pairs = zip(self.processors, other.processors, strict=True)
        return statistics.median(mine / max(theirs, 1e-9) for mine, theirs in pairs)


def in_turn(works: Mapping[str, Work], rounds: int, *, warm: int = 1) -> dict[str, Timing]:
    """Time alternatives that take milliseconds, in this process. The first ``warm`` rounds are not counted."""
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
    """One alternative in a separate process, where ``make(*arguments)`` returns the work of a round."""

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
        self.result: object = None  # of the last round's work
        self._receive()  # once it is ready

    def round(self) -> tuple[float, float, float]:
        """Run one round; return wall and processor seconds, and the peak memory so far in MiB."""
        self._ours.send("go")
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> tuple[float, float, float]:
        try:
            wall, processor, peak, self.result = self._ours.recv()
        except EOFError:
            self._process.join()
            sys.exit(f"A benchmark process ended with exit code {self._process.exitcode}; its output stands above.")
        return wall, processor, peak


@contextmanager
def closing(ways: Mapping[str, Way]) -> Iterator[None]:
    """Close all alternatives at the end."""
    try:
        yield
    finally:
        for way in ways.values():
            way.close()


def time_ways(ways: Mapping[str, Way], rounds: int, *, warm: int = 1) -> dict[str, Timing]:
    """Time each alternative in turn, ``rounds`` times after ``warm`` rounds that are not counted."""
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(-warm, rounds):
        for name, way in ways.items():
            result = way.round()
            say(f"  {name}: {result[0]:.2f} s{'' if number >= 0 else ' (not counted)'}")
            if number >= 0:
                results[name].append(result)
    return {
        name: Timing(tuple(r[0] for r in rounds_), tuple(r[1] for r in rounds_), max(r[2] for r in rounds_))
        for name, rounds_ in results.items()
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
    """Return the user and system time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib(pid: int | str = "self") -> float:
    """Return the peak memory of a process; without /proc it is ``ru_maxrss``, which starts with the parent's peak."""
    value = _status_kib(pid, "VmHWM")
    if value is not None:
        return value / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def resident_mib(pid: int | str) -> float:
    """Return the current memory of a process in MiB; 0 without /proc."""
    return (_status_kib(pid, "VmRSS") or 0) / 2**10


def _status_kib(pid: int | str, field: str) -> float | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def percentile(values: list[float] | tuple[float, ...], rank: float) -> float:
    """Return the measured value nearest to the given percentile, from 0 to 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(rank * (len(ordered) - 1)))]


def say(text: str) -> None:
    """Report progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Format a Markdown table."""
    lines = [header, tuple("---" for _ in header), *(tuple(str(cell) for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def load_average() -> str:
    """Return the load average over the last minute, to which the benchmark itself contributes."""
    return f"{os.getloadavg()[0]:.1f}"


def describe_machine() -> str:
    """Describe processor, memory, system, libraries and load in a line of Markdown, without identifying the machine."""
    name, flags = _processor()
    supported = ", ".join(title for flag, title in _FEATURES.items() if flag in flags) or "unknown"
    missing = "" if any("bf16" in flag for flag in flags) else "; no bfloat16, so everything ran in float32"
    libraries = ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()}, Python {platform.python_version()}"
    return (
        f"{name}, {cores} cores, {supported}{missing}; {_memory_gib():.0f} GiB of memory; {system}; {libraries}. "
        f"Load average at the start: {load_average()}.\n"
    )


def _processor() -> tuple[str, frozenset[str]]:
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
