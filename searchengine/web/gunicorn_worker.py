"""The gunicorn worker: runs the HTTP server on gunicorn's sockets.

gunicorn itself still handles the listening sockets, signals, reloads, and the supervision of the worker.
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
from datetime import timedelta
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from gunicorn.workers.base import Worker
from waitress.channel import HTTPChannel
from waitress.task import ThreadedTaskDispatcher
from waitress.wasyncore import poll2
from werkzeug.wrappers import Response

from searchengine.errors import SearchEngineError, file_error
from searchengine.web.http_server import Limits, Task, serve_socket
from searchengine.web.requests import site_of

_MAX_OPEN_FILES = 8192
_RESERVED_FILES = 200  # for the index, the model and the program
_DO_NOT_RESTART = 3  # exit code with which gunicorn stops instead of starting another worker
_RETRY_SECONDS = 2  # until a new worker tries again to open an index
_MAX_BODY = 2**20  # bytes, while there is no application


class HTTPWorker(Worker):
    """Runs the application in threads that never wait for a client."""

    alive: bool
    wsgi: Any
    _end = math.inf  # monotonic time at which another worker takes over

    def load_wsgi(self) -> None:
        """Open the indexes and load the model of the first one, so that the first search is fast too.

        If an index can no longer be opened, this worker answers every request with the error, and a new worker tries
        again after a while. This happens, for example, when a matrix is truncated during a search: that kills the
        worker, and the server recovers once the file has been restored.
        """
        try:
            super().load_wsgi()
            site_of(self.wsgi).first.warm()
        except (SearchEngineError, OSError) as error:
            message = file_error(error) if isinstance(error, OSError) else str(error)
            self.log.error("%s", message)
            if self.age == 1:
                sys.exit(_DO_NOT_RESTART)
            headers = {"Cache-Control": "no-store", "Retry-After": str(_RETRY_SECONDS)}
            self.wsgi = Response(f"{message}\n", HTTPStatus.SERVICE_UNAVAILABLE, headers, mimetype="text/plain")
            self._end = time.monotonic() + _RETRY_SECONDS

    def run(self) -> None:
        """Serve until gunicorn stops the worker, then finish the running requests."""
        if self.cfg.is_ssl:
            raise RuntimeError("This server does not support TLS. Put a reverse proxy with TLS in front of it.")
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
        """Stop gracefully, without waiting for the end of the poll."""
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


def _log_with(log: Any) -> None:
    """Send waitress's log to gunicorn's handlers, without the warnings about busy threads."""
    logger = logging.getLogger("waitress")
    logger.handlers, logger.propagate = log.error_log.handlers, False
    logger.setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _allow_open_files() -> int:
    """Raise the limit of open files as far as allowed; return how many connections may use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    return max(limit if soft == resource.RLIM_INFINITY else soft - _RESERVED_FILES, 64)


# -- threads and a fair queue, so that no kind of request holds up the others ------------------------------------------

_UPLOAD = "an upload"
_WORD = re.compile(r"[^/]*[^/0-9][^/]*")  # a part of a path that is not a number


class Threads(ThreadedTaskDispatcher):
    """A pool of twice ``count`` threads that serves the kinds of requests in turn.

    Uploads, which may wait to be decoded, use at most ``count`` threads, and each other kind a quarter of that. So
    however many requests of one kind there are, and however long they take, threads remain for the others.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queue = FairQueue(uploads=count, others=max(1, count // 4))
        self.set_thread_count(2 * count)

    def add_task(self, channel: HTTPChannel) -> None:
        """Queue the next request of a connection."""
        super().add_task(QueuedRequest(channel, self))

    def finish(self, request: QueuedRequest) -> None:
        """Free the place of a finished request."""
        with self.lock:
            self.queue.finish(request)


class FairQueue:
    """The queue of ``Threads``, which holds its lock: the waiting requests, and how many of each kind are running."""

    def __init__(self, uploads: int, others: int) -> None:
        self._uploads, self._others = uploads, others
        self._waiting: dict[str, deque[QueuedRequest]] = {}  # by kind, in the order in which they are served
        self._running: Counter[str] = Counter()

    def append(self, request: QueuedRequest) -> None:
        """Add a request."""
        self._waiting.setdefault(request.kind, deque()).append(request)

    def __len__(self) -> int:
        """Return how many kinds have a request that may start."""
        return sum(map(self._may_start, self._waiting))

    def popleft(self) -> QueuedRequest:
        """Remove and return the request to start next."""
        kind = next(filter(self._may_start, self._waiting))
        requests = self._waiting.pop(kind)
        request = requests.popleft()
        if requests:
            self._waiting[kind] = requests
        self._running[kind] += 1
        return request

    def _may_start(self, kind: str) -> bool:
        return self._running[kind] < (self._uploads if kind == _UPLOAD else self._others)

    def finish(self, request: QueuedRequest) -> None:
        """Count a request as no longer running."""
        self._running[request.kind] -= 1
        if not self._running[request.kind]:
            del self._running[request.kind]


class QueuedRequest:
    """The next request of a connection. Requests that differ only in the index or in numbers are of one kind."""

    def __init__(self, channel: HTTPChannel, threads: Threads) -> None:
        self._channel, self._threads = channel, threads
        request = channel.requests[0]
        words = _WORD.findall(getattr(request, "path", ""))  # malformed requests have no path
        self.kind: str = _UPLOAD if request.body_rcv is not None else words[-1] if words else ""

    def service(self) -> None:
        """Answer the request."""
        try:
            self._channel.service()
        finally:
            self._threads.finish(self)

    def cancel(self) -> None:
        """Discard the request."""
        self._channel.cancel()
