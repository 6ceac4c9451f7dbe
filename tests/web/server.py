"""The server of production, in a thread of the tests."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from waitress.wasyncore import close_all, poll2

from searchengine.web.gunicorn_worker import Threads
from searchengine.web.http_server import Limits, TcpServer, serve_socket


class Running:
    """A server in a thread of this process."""

    def __init__(self, limits: Limits, app: Callable[..., Iterable[bytes]], threads: int) -> None:
        self._threads, self._sockets = Threads(threads), {}  # type: ignore[var-annotated]
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.server: TcpServer = serve_socket(app, listener, limits, self._threads, self._sockets)
        self._stopped = threading.Event()
        self._loop = threading.Thread(target=self._run)
        self._loop.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            poll2(0.05, self._sockets)

    @property
    def answers(self) -> bool:
        """Return whether a request is unanswered."""
        return any(channel.busy for channel in list(self.server.active_channels.values()))

    def stop(self) -> None:
        self._stopped.set()
        self._loop.join()
        self._threads.shutdown()  # first, because a thread that ends writes to the trigger, whose file is closed below
        for channel in list(self.server.active_channels.values()):
            channel.handle_close()
        close_all(self._sockets)

    def ask(self, body: Any = None, headers: dict[str, str] | None = None, **options: Any) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST" if body else "GET", "/", body, headers or {}, **options)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Return the response up to the end of the connection; empty if the server closed it before all was sent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(request)
            return received(connection)


def received(connection: socket.socket) -> bytes:
    """Return everything received until the server closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(65536):
            answer += more
    return answer
