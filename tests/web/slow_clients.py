"""Clients that occupy a connection, in all possible ways."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_UPLOAD = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
# The bytes sent at once, and those sent a piece at a time. {large}: the address of a large response.
WAYS = {
    "nothing": ("", ""),
    "silent after a few bytes": ("GET", ""),
    "headers a byte at a time": ("GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "a"),
    "headers a line at a time": ("GET / HTTP/1.1\r\nHost: localhost\r\n", "X-Slow: a\r\n"),
    "a body a byte at a time": (_UPLOAD.decode() + "Content-Length: 900000\r\n\r\n", "a"),
    "chunks of a byte": (_UPLOAD.decode() + "Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"),
    "a chunk whose size does not end": (_UPLOAD.decode() + "Transfer-Encoding: chunked\r\n\r\n1;", "a"),
    "idle after a request": ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", ""),
    "not reading the answer": ("GET {large} HTTP/1.1\r\nHost: localhost\r\n\r\n", ""),
    "not reading a part": ("GET {large} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=1-\r\n\r\n", ""),
    "not reading many answers": ("GET {large} HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20, ""),
}


class SlowClients:
    """Connections that are all occupied in one of the WAYS."""

    def __init__(self, way: str, port: int, large: str) -> None:
        begin, drop = WAYS[way]
        self._begin, self._drop, self._port = begin.format(large=large).encode(), drop.encode(), port
        self.connections: list[socket.socket] = []

    def open(self, count: int) -> None:
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the system receives for them
            connection.settimeout(30)
            connection.connect(("127.0.0.1", self._port))
            connection.sendall(self._begin)
            self.connections.append(connection)

    def drip(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed by the server
                connection.sendall(self._drop)

    def closed(self) -> int:
        """Return how many connections the server has closed."""
        return sum(map(_is_closed, self.connections))


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    else:
        return True


@contextmanager
def slow_clients(way: str, count: int, port: int, large: str) -> Iterator[SlowClients]:
    clients = SlowClients(way, port, large)
    try:
        clients.open(count)
        yield clients
    finally:
        for connection in clients.connections:
            connection.close()
