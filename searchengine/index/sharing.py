"""One pass over a matrix that processors share if they are idle, and that waits for none that is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_MOST = 8  # threads; fewer than that fill any memory bus
_FEW = 4  # slices that are done sooner by one thread than handed to others


def share(work: Callable[[slice], None], count: int, step: int) -> None:
    """Does ``work`` for every slice of ``step`` out of ``count``: in this thread, and in others as they come to it.

    Each thread takes the next slice when it is done with one. A thread that has not begun when all slices are taken is
    no longer waited for, so a busy machine costs no more than the work itself; BLAS, which gives each of its threads a
    fixed part, waits for the last of them to be given a processor. ``work`` must let go of the interpreter's lock, as
    NumPy does.
    """
    starts = iter(range(0, count, step))  # its next() is one step of the interpreter: no slice is taken twice

    def take() -> None:
        for start in starts:
            work(slice(start, min(start + step, count)))

    slices = -(-count // step)
    helpers = [_pool().submit(take) for _ in range(min(_threads(), slices) - 1 if slices > _FEW else 0)]
    try:
        take()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _threads() -> int:
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        processors = os.cpu_count() or 1
    return min(processors, _MOST)


@cache
def _pool() -> ThreadPoolExecutor:
    # After a fork it has no threads: what is submitted is never begun, and so not waited for.
    return ThreadPoolExecutor(_MOST - 1, thread_name_prefix="rows")
