"""Worker processes: calls within limits, and workers that fail; the called functions are Python's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from searchengine import processes
from searchengine.processes import (
    CallFailedError,
    CallKilledError,
    CallTimedOutError,
    Limits,
    NoWorkerError,
    Pool,
    WorkerTraceback,
)
from tests.waiting import wait_until

ROOMY = Limits(seconds=60, memory=2**31)


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


def has_ended(process: int) -> bool:
    """Return whether a process has ended, or is a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_is_reused(pool: Pool) -> None:
    worker = pool.call(os.getpid, limits=ROOMY)
    assert worker != os.getpid()
    assert pool.call(int, "ff", base=16, limits=ROOMY) == 255
    assert pool.call(os.getpid, limits=ROOMY) == worker


def test_errors_are_raised_with_their_traceback(pool: Pool) -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        pool.call(int, "x", limits=ROOMY)
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    assert "in serve" in str(caught.value.__cause__)


def test_a_crash_ends_the_worker_and_nothing_else(pool: Pool) -> None:
    worker = pool.call(os.getpid, limits=ROOMY)
    for _ in range(2):  # in a worker that is kept, then in a new one
        with pytest.raises(CallFailedError, match="signal 6"):
            pool.call(os.abort, limits=ROOMY)
    assert pool.call(os.getpid, limits=ROOMY) != worker
    with pytest.raises(CallFailedError, match="exit code 3"):
        pool.call(os._exit, 3, limits=ROOMY)


def test_a_call_whose_worker_is_killed_need_not_be_at_fault(pool: Pool) -> None:
    with pytest.raises(CallKilledError):
        pool.call(exec, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", limits=ROOMY)
    assert pool.call(abs, -1, limits=ROOMY) == 1


def test_a_worker_that_was_killed_while_it_was_idle_is_replaced(pool: Pool) -> None:
    worker = pool.call(os.getpid, limits=ROOMY)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: has_ended(worker))
    assert pool.call(os.getpid, limits=ROOMY) not in (worker, os.getpid())


@pytest.mark.parametrize("killed_by", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_for_the_parent_do_not_end_a_call(pool: Pool, killed_by: int) -> None:
    pool.call(exec, f"import os; os.kill(os.getpid(), {int(killed_by)})", limits=ROOMY)


def test_a_call_that_crashes_is_made_once(pool: Pool, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:  # so that two workers are idle
        meet = "import os, time; open(own, 'w').close()\nwhile not os.path.exists(other): time.sleep(0.01)"
        pairs = [(tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a")]
        for meeting in [threads.submit(pool.call, exec, meet, {"own": o, "other": p}, limits=ROOMY) for o, p in pairs]:
            meeting.result()
    calls = tmp_path / "calls"
    with pytest.raises(CallFailedError, match="signal 6"):
        pool.call(
            exec, f"import os; print('x', end='', file=open({str(calls)!r}, 'a'), flush=True); os.abort()", limits=ROOMY
        )
    assert calls.read_text() == "x"


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false", "/bin/true"])
def test_a_worker_that_cannot_start(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(NoWorkerError):
        Pool(1).call(os.getpid, limits=ROOMY)


_NO_FILES = """
import os, resource
from searchengine.processes import Limits, NoWorkerError, Pool
resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
try:
    Pool(1).call(os.getpid, limits=Limits(60, 2**31))
except NoWorkerError as error:
    print(error)
"""


def test_no_open_file_is_left_for_a_worker() -> None:
    ran = subprocess.run([sys.executable, "-c", _NO_FILES], capture_output=True, text=True, check=True)
    assert "Too many open files" in ran.stdout


def test_a_result_fits_after_the_call_used_all_memory(pool: Pool) -> None:
    # About 70 MB of words; to pickle them takes as much again, for a list of what was pickled.
    words = pool.call(str.split, "12345 " * 10**6, limits=Limits(seconds=60, memory=2**27))
    assert len(words) == 10**6


def test_idle_workers_end() -> None:
    pool = Pool(1, idle_seconds=0.01)
    worker = pool.call(os.getpid, limits=ROOMY)
    wait_until(lambda: has_ended(worker))
    assert pool.call(os.getpid, limits=ROOMY) != worker
    pool.close()


def test_time_is_limited(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_WALL_FACTOR", 1000)  # on a busy machine the processor time takes long to come
    with pytest.raises(CallTimedOutError, match="1 s of processor time"):
        pool.call(sum, range(10**12), limits=Limits(seconds=1, memory=2**31))
    assert pool.call(int, "1", limits=ROOMY) == 1


def test_a_hanging_worker_times_out(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_WALL_FACTOR", 0.001)
    with pytest.raises(CallTimedOutError, match="no answer"):
        pool.call(time.sleep, 600, limits=ROOMY)


def test_memory_is_limited_for_each_call(pool: Pool) -> None:
    with pytest.raises(MemoryError):
        pool.call(bytes, 10**9, limits=Limits(seconds=60, memory=2**29))
    assert len(pool.call(bytes, 10**6, limits=ROOMY)) == 10**6


def test_the_number_of_workers_is_limited(pool: Pool) -> None:
    with ThreadPoolExecutor(8) as threads:
        workers = list(threads.map(lambda _: pool.call(os.getpid, limits=ROOMY), range(40)))
    assert len(set(workers)) <= 2


def test_a_worker_inherits_no_files(pool: Pool, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    names = pool.call(os.listdir, "/proc/self/fd", limits=ROOMY)
    os.close(descriptor)
    assert len(names) == 5  # stdin, stdout, stderr, the copy of stdout for answers, and the folder itself


_FORKS = """
import os
from searchengine.processes import Limits, Pool
pool, limits = Pool(1), Limits(60, 2**31)
worker = pool.call(os.getpid, limits=limits)
child = os.fork()
if not child:
    assert pool.call(os.getpid, limits=limits) != worker
else:
    assert os.waitpid(child, 0)[1] == 0
    assert pool.call(os.getpid, limits=limits) == worker
"""


def test_a_forked_child_starts_its_own_workers() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", _FORKS], check=True)


_PARENT = """
import os, sys, threading, time
from searchengine.processes import Limits, Pool
pool, limits = Pool(1), Limits(60, 2**31)
print(pool.call(os.getpid, limits=limits), flush=True)
if sys.argv[1] == "busy":
    threading.Thread(target=lambda: pool.call(time.sleep, 600, limits=limits), daemon=True).start()
sys.stdin.read() if sys.argv[2] == "killed" else None
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
@pytest.mark.parametrize("end", ["killed", "exit"])
def test_a_worker_ends_with_its_parent(state: str, end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, state, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    if end == "killed":
        parent.kill()
    parent.communicate()
    wait_until(lambda: has_ended(worker))
