"""The number of processors that this process may use.

``os.cpu_count()`` ignores both the affinity of a process and the CPU quota of its control group, and the thread pools
of OpenBLAS, OpenMP and TensorFlow ignore the quota: https://github.com/python/cpython/issues/80235. Sixty threads with
a quota of two processors mostly wait for each other.
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
    """Return how many processors this process may use, by its affinity and the CPU quota of its container."""
    return max(1, ceil(min(_affinity(), _cpu_quota(), _share)))


def share_processors(count: int) -> None:
    """Limit this process to ``count`` processors from now on, leaving the rest to others."""
    global _share
    _share = count
    processors.cache_clear()


def thread_limit() -> int | None:
    """Return the number of threads that a library should start, or None if its own default fits the CPU quota."""
    return processors() if processors() < _affinity() else None


def limit_library_threads() -> None:
    """Make libraries that are loaded from now on start no more threads than ``thread_limit``."""
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
    """Return the smallest CPU quota of the control groups of this process, in processors; infinite without one."""
    quotas = [float("inf")]
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # version 2 lists no controllers; in a container, the group may be the root of the mounted tree
            top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            below = (top / group.lstrip("/")).relative_to(top)
            quotas += [_quota_of(top / folder) for folder in (below, *below.parents)]
    return min(quotas)


def _quota_of(group: Path) -> float:
    """Return the quota of one control group: ``cpu.max`` in version 2, ``cpu.cfs_*`` in version 1."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        return float(quota) / float(period)  # ValueError: "max"
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else float("inf")
    return float("inf")
