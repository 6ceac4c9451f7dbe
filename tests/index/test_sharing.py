"""Work shared between threads: no one waits for a thread that has not begun. See also ``test_exact.py``."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from searchengine.index import distances


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_threads", lambda: 4)


def test_other_threads_take_part() -> None:
    barrier = threading.Barrier(4)
    seen = set()

    def work(part: slice) -> None:
        if part.start < 4:
            barrier.wait(timeout=60)  # needs four threads at once
        seen.add(threading.get_ident())

    distances.share(work, 20, 1)
    assert len(seen) == 4


def test_threads_that_are_busy_elsewhere_are_not_waited_for() -> None:
    let_go = threading.Event()
    held = [distances._pool().submit(let_go.wait, 60) for _ in range(distances._MOST_THREADS - 1)]
    try:
        done: list[int] = []
        distances.share(lambda part: done.append(part.start), 20, 1)
        assert done == list(range(20))
    finally:
        let_go.set()
        for future in held:
            assert future.result()


def test_an_error_in_any_thread_is_raised() -> None:
    def work(part: slice) -> None:
        if part.start == 13:
            raise ValueError("13")

    with pytest.raises(ValueError, match="13"):
        distances.share(work, 40, 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_does_all_the_work_itself() -> None:
    distances.share(lambda _: None, 20, 1)  # starts the threads, which the child will not have
    context = multiprocessing.get_context("fork")
    sums = context.Queue()
    child = context.Process(target=_summed, args=(sums,))
    child.start()
    assert sums.get(timeout=60) == 190
    child.join(60)
    assert child.exitcode == 0


def _summed(sums: multiprocessing.Queue[int]) -> None:
    done: list[int] = []
    distances.share(lambda part: done.append(part.start), 20, 1)
    sums.put(sum(done))
