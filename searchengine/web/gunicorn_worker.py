"""The gunicorn worker: a process in which the HTTP server runs on gunicorn's sockets.

gunicorn keeps what it is good at: the listening sockets, signals, reloads, and a watch over the worker.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from gunicorn.workers.base import Worker
from waitress.channel import HTTPChannel
from waitress.task import ThreadedTaskDispatcher
from waitress.wasyncore import poll2

from searchengine.errors import SearchEngineError, file_error
from searchengine.web.http_server import Limits, Task, serve_socket
from searchengine.web.indexes import site_of

_MAX_OPEN_FILES = 8192
_SPARE_FILES = 200  # of the index, the model and the program
_DO_NOT_RESTART = 3  # gunicorn ends, and starts no other worker, when one exits with this
_RETRY_SECONDS = 2  # after which an index that could not be opened is tried again, by a new worker
_MAX_BODY = 2**20  # while there is no application to say how much it takes


class HTTPWorker(Worker):
    """Runs the application in threads, of which none waits for a client."""

    alive: bool
    wsgi: Any
    _end = math.inf  # when the worker makes room for another, on the monotonic clock

    def load_wsgi(self) -> None:
        """Open the indexes, and load the model of the first, so that the first search is not the slow one.

        If an index cannot be opened that could be when the server started, everybody is told so for a while. A matrix
        that is cut under a search takes its worker with it, and is there again once it has been copied back.
        """
        try:
            super().load_wsgi()
            site_of(self.wsgi).first.warm()
        except (SearchEngineError, OSError) as error:
            sentence = file_error(error) if isinstance(error, OSError) else str(error)
            self.log.error("%s", sentence)
            if self.age == 1:
                sys.exit(_DO_NOT_RESTART)
            self.wsgi = _unavailable(sentence)
            self._end = time.monotonic() + _RETRY_SECONDS

    def run(self) -> None:
        """Serve until gunicorn says stop; then finish what has begun."""
        if self.cfg.is_ssl:
            raise RuntimeError("This server speaks no TLS. Put a reverse proxy with TLS in front of it.")
        _log_with(self.log)
        sockets: dict[int, Any] = {}
        threads = Threads(self.cfg.threads)
        limits = Limits(
            max_body=getattr(self.wsgi, "config", {}).get("MAX_CONTENT_LENGTH", _MAX_BODY),
            connections=min(self.cfg.worker_connections, _allow_open_files() // 2),
            idle=self.cfg.keepalive,
        )
        self.servers = [serve_socket(self.wsgi, listener.sock, limits, threads, sockets) for listener in self.sockets]
        for server in self.servers:
            server.on_answer = self._count
        while self.alive and self.ppid == os.getppid() and time.monotonic() < self._end:
            self.notify()
            poll2(1.0, sockets)
        for server in self.servers:
            server.stop_accepting()
        end = time.monotonic() + self.cfg.graceful_timeout
        while any(server.busy for server in self.servers) and time.monotonic() < end:
            self.notify()
            poll2(0.1, sockets)
        threads.shutdown(timeout=1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop gracefully, at once rather than after the poll."""
        super().handle_exit(sig, frame)
        for server in getattr(self, "servers", []):
            server.pull_trigger()

    def _count(self, task: Task) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("The worker has answered %d requests and is replaced.", self.nr)
            self.alive = False
        if task.environ is not None:
            environ = {"RAW_URI": task.request.request_uri, **task.environ}
            answer = SimpleNamespace(status=task.status, sent=task.content_bytes_written, headers=task.response_headers)
            self.log.access(answer, task.request, environ, timedelta(seconds=time.time() - task.start_time))


def _unavailable(sentence: str) -> Callable[..., Iterable[bytes]]:
    """An application that answers everything with 503 and a sentence."""
    body = f"{sentence}\n".encode()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(
            "503 Service Unavailable", [*headers, ("Cache-Control", "no-store"), ("Retry-After", str(_RETRY_SECONDS))]
        )
        return [body]

    return application


def _log_with(log: Any) -> None:
    """Let waitress log as gunicorn does; that threads are busy is no news."""
    logger = logging.getLogger("waitress")
    logger.handlers, logger.propagate = log.error_log.handlers, False
    logger.setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _allow_open_files() -> int:
    """How many files and sockets connections may open; as many as the system allows without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return max(most if soft == resource.RLIM_INFINITY else soft - _SPARE_FILES, 64)


# -- the threads, and whose turn is next: no kind of request holds up the others ---------------------------------------

_UPLOAD = "an upload"
_WORD = re.compile(r"[^/]*[^/0-9][^/]*")  # a part of a path that is no number


class Threads(ThreadedTaskDispatcher):
    """Twice ``count`` threads, in which the kinds of requests take turns.

    Uploads, which wait for their turn to be decoded, have ``count`` of them at most, and each other kind a quarter of
    that: however many there are of one kind, or however long they take, there are threads for the others.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queue = Turns(uploads=count, others=max(1, count // 4))
        self.set_thread_count(2 * count)

    def add_task(self, channel: HTTPChannel) -> None:
        """Have the next request of a connection answered."""
        super().add_task(Turn(channel, self))

    def end(self, turn: Turn) -> None:
        """Note that a request is answered; its thread looks for the next one."""
        with self.lock:
            self.queue.end(turn)


class Turns:
    """The queue of ``Threads``, which locks it: requests that wait, by kind, and how many of each kind are running."""

    def __init__(self, uploads: int, others: int) -> None:
        self._uploads, self._others = uploads, others
        self._waiting: dict[str, deque[Turn]] = {}  # the kind whose turn comes last is at the end
        self._running: Counter[str] = Counter()

    def append(self, turn: Turn) -> None:
        """Let a request wait."""
        self._waiting.setdefault(turn.kind, deque()).append(turn)

    def __len__(self) -> int:
        """How many kinds have a request that may begin."""
        return sum(map(self._may_begin, self._waiting))

    def popleft(self) -> Turn:
        """The request that begins now."""
        kind = next(filter(self._may_begin, self._waiting))
        turns = self._waiting.pop(kind)
        turn = turns.popleft()
        if turns:
            self._waiting[kind] = turns
        self._running[kind] += 1
        return turn

    def _may_begin(self, kind: str) -> bool:
        return self._running[kind] < (self._uploads if kind == _UPLOAD else self._others)

    def end(self, turn: Turn) -> None:
        """Note that a request is answered."""
        self._running[turn.kind] -= 1
        if not self._running[turn.kind]:
            del self._running[turn.kind]


class Turn:
    """The next request of a connection; of a kind with those whose addresses differ in numbers or the index alone."""

    def __init__(self, channel: HTTPChannel, threads: Threads) -> None:
        self._channel, self._threads = channel, threads
        request = channel.requests[0]
        words = _WORD.findall(getattr(request, "path", ""))  # broken requests have none
        self.kind: str = _UPLOAD if request.body_rcv is not None else words[-1] if words else ""

    def service(self) -> None:
        """Answer it."""
        try:
            self._channel.service()
        finally:
            self._threads.end(self)

    def cancel(self) -> None:
        """Give it up."""
        self._channel.cancel()
