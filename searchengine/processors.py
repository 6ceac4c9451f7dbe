"""How many processors this process may keep busy.

os.cpu_count() knows neither the affinity of a process nor the CPU quota of its control group, and the thread pools of
OpenBLAS, OpenMP and TensorFlow know only the first: https://github.com/python/cpython/issues/80235. Sixty threads on
two processors' time wait for each other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from math import ceil
from pathlib import Path

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

_share: float = float("inf")


@cache
def processors() -> int:
    """How many processors this process may keep busy, by its affinity and the CPU quota of its container."""
    return max(1, ceil(min(_affinity(), _cpu_quota(), _share)))


def share_processors(count: int) -> None:
    """From now on this process keeps no more processors busy than that: others beside it have the rest."""
    global _share
    _share = count
    processors.cache_clear()


def thread_limit() -> int | None:
    """How many threads a library should start where it would start too many by itself, for a CPU quota; else None."""
    return processors() if processors() < _affinity() else None


def limit_library_threads() -> None:
    """Let libraries that are loaded from now on start no more threads than that."""
    limit = thread_limit()
    if limit is not None:
        for name in _THREAD_SETTINGS:
            os.environ.setdefault(name, str(limit))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _cpu_quota(root: Path = Path("/")) -> float:
    """The processors' worth of time that the control groups of this process leave it; infinite without a quota."""
    quotas = [float("inf")]
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # version 2 has no names here; within a container, the group may be the top of what is mounted
            top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            below = (top / group.lstrip("/")).relative_to(top)
            quotas += [_quota_of(top / folder) for folder in (below, *below.parents)]
    return min(quotas)


def _quota_of(group: Path) -> float:
    """Of one control group: ``cpu.max`` of version 2, else what version 1 has."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        return float(quota) / float(period)  # ValueError: "max"
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else float("inf")
    return float("inf")
