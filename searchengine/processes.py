"""Worker processes that call functions within limits of time and memory.

A worker serves one call at a time, and ends by itself after being idle for a while or when its parent is gone. It is
not a sandbox: it has all the rights of this process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_START_SECONDS = 120  # for a new worker to accept its first call, on a busy machine
_WALL_FACTOR = 10  # wall-clock limit of a call, as a multiple of its processor time, on a busy machine
_GIVE_UP_SECONDS = 0.2  # between two calls of ``give_up``

_ACCEPTED = b"\1"  # sent by a worker when it has read a request

_is_worker = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one call: seconds of processor time and bytes of memory."""

    seconds: int
    memory: int


class NoWorkerError(Exception):
    """No worker can be started, so nothing was called."""


class CallFailedError(Exception):
    """The worker ended before it answered."""


class CallKilledError(CallFailedError):
    """The worker was killed from outside, as by the kernel when memory runs out; the call need not be at fault."""


class WorkerTraceback(Exception):  # noqa: N818  (only the cause of another error)
    """The traceback in the worker, as text: the cause of an error that a function raised there."""


class CallStoppedError(CallFailedError):
    """The caller gave up."""


class CallTimedOutError(CallFailedError):
    """The call exceeded its time limit."""


def python(*arguments: str) -> list[str]:
    """Return the command line of this Python interpreter, which imports nothing from the working folder."""
    return [sys.executable, "-P", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Return a changed copy of the environment, in which this package can be imported."""
    variables = {**os.environ, **changes}
    home = Path(__file__).resolve().parents[1]
    if home.name not in {"site-packages", "dist-packages"}:  # a source tree, not an installation
        variables["PYTHONPATH"] = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    return variables


def is_worker() -> bool:
    """Return whether this process is a worker."""
    return _is_worker


def can_limit_calls() -> bool:
    """Return whether this system can limit the time and memory of a call; Windows cannot."""
    return hasattr(select, "poll") and find_spec("resource") is not None


# -- the parent -----------------------------------------------------------------------------------------------------


class Pool:
    """At most ``size`` workers shared by threads, started on demand and ended when idle."""

    def __init__(self, size: int, *, idle_seconds: float = 30) -> None:
        self._turns = threading.BoundedSemaphore(size)
        self._idle: list[_Worker] = []  # the last used one is at the end, so that the others can time out
        self._all: set[_Worker] = set()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        self._size, self._idle_seconds = size, idle_seconds

    def call(
        self,
        function: Callable[..., Result],
        *args: Any,
        limits: Limits,
        give_up: Callable[[float], bool] | None = None,
        **kwargs: Any,
    ) -> Result:
        """Call ``function(*args, **kwargs)`` in a worker, and return its result or raise its error here.

        The function must be importable from a module; arguments, result and errors are pickled. ``give_up`` is called
        regularly with the elapsed seconds, and returns whether to stop the call.

        Raises:
            CallStoppedError: ``give_up`` returned True.
            CallTimedOutError: the call exceeded its time limit and was stopped.
            CallKilledError: the worker was killed during the call.
            CallFailedError: the worker crashed during the call.
            NoWorkerError: no worker can be started.
        """
        request = pickle.dumps((function, args, kwargs, limits), protocol=5)
        with self._turns:
            while True:
                try:
                    worker, fresh = self._idle.pop(), False
                except IndexError:
                    worker, fresh = _Worker(self._idle_seconds), True
                    self._all.add(worker)
                try:
                    result, error = worker.call(request, limits.seconds, give_up)
                except BaseException as failure:
                    self._all.discard(worker)
                    worker.end()
                    if isinstance(failure, NoWorkerError) and not fresh:
                        continue  # the worker had ended while idle
                    raise
                self._idle.append(worker)
                break
        if error is not None:
            raise error[0] from WorkerTraceback(error[1])
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the idle workers; the others end with this process."""
        while self._idle:
            worker = self._idle.pop()
            self._all.discard(worker)
            worker.end()

    def _forget(self) -> None:
        """In a forked child, leave the workers to the parent; they end with it although the child has their pipes."""
        for worker in self._all:
            worker.disconnect()
        self._idle, self._all = [], set()
        self._turns = threading.BoundedSemaphore(self._size)


class _Worker:
    """The parent's side of one worker."""

    def __init__(self, idle_seconds: float) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603  (no untrusted input)
                python("-c", f"from searchengine.processes import serve; serve({idle_seconds})"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # so that nobody waits for the end of its output after the parent is killed
                # One BLAS thread, and one heap that returns larger blocks to the system when they are freed.
                env=environment(OPENBLAS_NUM_THREADS="1", MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_=str(2**20)),
            )
        except OSError as error:
            raise NoWorkerError(str(error)) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def call(
        self, request: bytes, seconds: int, give_up: Callable[[float], bool] | None
    ) -> tuple[Any, tuple[Exception, str] | None]:
        """Return the result of a call, or its error and traceback; CallFailedError, NoWorkerError."""
        self._hand_over(request)
        try:
            self._wait(seconds * _WALL_FACTOR, give_up)
            result, error = pickle.load(self._answers)  # noqa: S301  (from our own process)
        except (EOFError, pickle.UnpicklingError) as failure:
            if self._process.wait() == -signal.SIGXCPU:
                raise CallTimedOutError(f"more than {seconds} s of processor time") from failure
            if self._process.returncode == -signal.SIGKILL:
                raise CallKilledError("killed") from failure
            raise CallFailedError(self._how_it_ended()) from failure
        return result, error

    def _wait(self, seconds: int, give_up: Callable[[float], bool] | None) -> None:
        """Wait for the answer; CallTimedOutError, CallStoppedError."""
        start = time.monotonic()
        while not _readable(self._answers.fileno(), seconds if give_up is None else _GIVE_UP_SECONDS):
            passed = time.monotonic() - start
            if passed > seconds:
                raise CallTimedOutError(f"no answer within {seconds} s")
            if give_up is not None and give_up(passed):
                raise CallStoppedError("the caller gave up")

    def _hand_over(self, request: bytes) -> None:
        """Send a request, and wait until the worker has read it; NoWorkerError if it never does."""
        try:
            self._requests.write(request)
            self._requests.flush()
            if not _readable(self._answers.fileno(), _START_SECONDS):
                raise NoWorkerError(f"it did not start within {_START_SECONDS} s")
            reply = os.read(
                self._answers.fileno(), len(_ACCEPTED)
            )  # unbuffered, because _readable polls the descriptor
        except BrokenPipeError:
            reply = b""
        if reply != _ACCEPTED:
            self._process.kill()
            raise NoWorkerError(f"it ended at once: {self._how_it_ended()}")

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Kill the worker."""
        self._process.kill()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def disconnect(self) -> None:
        """In a forked child, drop the pipes, which may hold half a request."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for pipe in (self._requests, self._answers):
            os.dup2(nowhere, pipe.fileno(), inheritable=False)
        os.close(nowhere)
        self._process.returncode = 0  # so that the child does not wait for it


def _readable(descriptor: int, seconds: float | None) -> bool:
    """Wait until there is data to read or the other end is closed; None waits without limit."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


# -- the worker -----------------------------------------------------------------------------------------------------


def serve(idle_seconds: float) -> None:
    """Run a worker: serve the calls from stdin, with results on stdout, until idle for ``idle_seconds``.

    The wait for the first call has no limit.
    """
    global _is_worker
    _is_worker = True
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)  # the parent gets it too, and the worker ends with the parent
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that output of a library is not read as a result
    threading.Thread(target=_end_with_parent, daemon=True).start()
    patience = None
    while _readable(requests.fileno(), patience):
        try:
            function, args, kwargs, limits = pickle.load(requests)  # noqa: S301  (from our own parent)
        except EOFError:
            return
        answers.write(_ACCEPTED)
        answers.flush()
        _limit(limits)
        answer: tuple[Any, tuple[Exception, str] | None]
        try:
            answer = function(*args, **kwargs), None
        except Exception as error:
            answer = None, (error, traceback.format_exc())
        _lift_memory_limit()  # the result may need more
        pickle.dump(answer, answers, protocol=5)
        answers.flush()
        del args, kwargs, answer
        patience = idle_seconds


def _end_with_parent() -> None:
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)  # reports only that the other end is closed
    poll.poll()
    os._exit(0)


def limit_call(limits: Limits) -> None:
    """In a worker, change the limits of the current call; elsewhere, do nothing."""
    if _is_worker:
        _limit(limits)


def _limit(limits: Limits) -> None:
    """Limit this process: beyond its time it is killed, beyond its memory it gets a MemoryError."""
    import resource

    seconds = ceil(time.process_time()) + limits.seconds
    # RLIMIT_DATA, because RLIMIT_AS would count the libraries too. RLIMIT_CORE: a killed process leaves no core dump.
    for kind, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_DATA, limits.memory),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _lift_memory_limit() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
