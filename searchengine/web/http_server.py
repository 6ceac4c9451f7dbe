"""The HTTP server under gunicorn: waitress, with limits on how long a client may hold a connection.

Waitress receives each complete request in an event loop, runs the application in a thread, and sends the response from
the loop, so threads never wait for the network. This module adds strict parsing with a limit on every part of a
request, a deadline for every connection, and a rule for a full server. Waitress's own limits only count the seconds
without a byte, and it stops accepting when there are many connections: clients that send a byte a minute would hold
them all.
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest, RequestEntityTooLarge

_DRAIN_TIMES = 8  # a body that is too large is read and discarded up to this many times the limit
_SEND_BUFFER = 262_144  # bytes of a response that the system buffers for each client
_BYTES_PER_TURN = 65_536  # of a response sent before other clients have their turn
_ACCEPTS_PER_TURN = 50  # connections
_UNLIMITED = 2**60


@dataclass(frozen=True)
class Limits:
    """How long a client may hold a connection, and how much it may send.

    Args:
        max_body: maximum body size in bytes. Anything beyond it is read and discarded, so that the client finishes
            sending and then receives the error.
        connections: maximum number of open connections.
        idle: seconds between two requests.
        patience: seconds to send a request or to receive a response, in addition to the time that ``min_rate`` allows.
        min_rate: bytes/s.
        stall: seconds without a single byte.
        arrival: seconds after connecting during which the first request is expected.
    """

    max_body: int
    connections: int = 1000
    idle: float = 15
    patience: float = 20
    min_rate: int = 1000
    stall: float = 60
    arrival: float = 1

    def adjustments(self) -> Adjustments:
        """Return a waitress configuration that includes these limits."""
        adjustments = Adjustments(
            ident="searchengine",
            clear_untrusted_proxy_headers=False,  # the application's ProxyFix handles them
            max_request_header_size=_MAX_HEADERS,
            max_request_body_size=self.max_body * _DRAIN_TIMES,
            outbuf_high_watermark=_UNLIMITED,  # a thread never waits for a client to read
            # Only reached when the application is working for every connection:
            connection_limit=self.connections + 2 * _ACCEPTS_PER_TURN,
            cleanup_interval=1,
            recv_bytes=65_536,
            log_socket_errors=False,
        )
        # Otherwise a client that does not read takes megabytes of every response. Enough for 5 MB/s at 0.1 s latency.
        adjustments.socket_options = [*adjustments.socket_options, (socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)]
        adjustments.limits = self
        return adjustments


# -- requests ----------------------------------------------------------------------------------------------------------

_MAX_HEADERS = 16_384  # bytes of the request line and all headers
_MAX_CHUNK_LINE = 4096  # bytes of the line before a chunk, or of the trailer
_MAX_CHUNK_OVERHEAD = 65_536  # bytes of framing, beyond as many bytes as the content has
_AMBIGUOUS = re.compile(rb"\n[ \t]|\ntransfer-encoding:.*chunked.*chunked", re.IGNORECASE)


class Body(OverflowableBuffer):
    """A request body: in memory up to 512 kB, then in an unnamed temporary file; only counted beyond ``max_size``."""

    def __init__(self, overflow: int, max_size: int) -> None:
        super().__init__(overflow)
        self._max_size = max_size
        self.received = 0

    def __len__(self) -> int:
        return self.received

    def append(self, data: bytes) -> None:
        """Append ``data``, unless the body is too large."""
        self.received += len(data)
        if self.received <= self._max_size:
            super().append(data)


class RequestParser(HTTPRequestParser):
    """Parses a request. One whose body is too large still reaches the application, which refuses it.

    ``ahead`` holds the bytes that came after the request.
    """

    error: Any
    expect_continue: bool
    ahead = b""

    def parse_header(self, header_plus: bytes) -> None:
        """Refuse headers that a proxy in front might interpret differently (request smuggling)."""
        if _AMBIGUOUS.search(header_plus):
            raise ParsingError("A header is folded, or the chunked encoding is named in an unusual way")
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # more digits than Python converts
            raise ParsingError("The length of the body is not a number") from error
        if "TRANSFER_ENCODING" in self.headers or (self.chunked and "CONTENT_LENGTH" in self.headers):
            raise ParsingError("The length of the body is ambiguous")
        if self.body_rcv is None:
            self.expect_continue = False  # without a body there is nothing to wait for
        else:
            self.body_rcv.buf = Body(self.adj.inbuf_overflow, self.adj.limits.max_body)

    def received(self, data: bytes) -> int:
        """Consume bytes of the request; once it is complete, keep the rest in ``ahead``."""
        consumed = super().received(data)
        asks_first = self.expect_continue and self.content_length > self.adj.limits.max_body
        if asks_first or isinstance(self.error, RequestEntityTooLarge):
            self.error, self.completed, self.expect_continue = None, True, False
            self.headers["CONNECTION"] = "close"
            self.headers["CONTENT_LENGTH"] = str(max(self.content_length, self.body_bytes_received))
        elif self.chunked and not self.completed:
            self._refuse_overhead()
        if self.completed:
            self.ahead = data[consumed:]
        return len(data) if self.completed else consumed

    def _refuse_overhead(self) -> None:
        """Refuse a body with more framing than content, because each chunk costs time in the shared event loop."""
        body = self.body_rcv
        if self.body_bytes_received > 2 * len(body) + _MAX_CHUNK_OVERHEAD:
            self.error, self.completed = BadRequest("The chunks of the body are too small"), True
        elif len(body.control_line) + len(body.trailer) > _MAX_CHUNK_LINE:
            self.error, self.completed = BadRequest("A line between two chunks is too long"), True


# -- connections -------------------------------------------------------------------------------------------------------


class Task(WSGITask):
    """Runs the application for one request."""

    def service(self) -> None:
        """Run the application for this request."""
        server = self.channel.server
        if server.stopping:
            self.request.headers["CONNECTION"] = "close"
        try:
            super().service()
        finally:
            # Start the time to receive the response before the loop sees that the request is done.
            self.channel.restart()
            server.on_answer(self)


class Channel(HTTPChannel):
    """A connection, with a deadline for sending a request, receiving a response, or being idle."""

    task_class = Task
    parser_class = RequestParser
    request: RequestParser | None
    sendbuf_len: int

    def __init__(self, *args: Any, **options: Any) -> None:
        self._ahead = b""
        self._has_sent = False  # whether the client has sent any byte
        self.restart()
        super().__init__(*args, **options)
        self.sendbuf_len = _BYTES_PER_TURN

    def restart(self) -> None:
        """Start the client's time again, because it begins to send, to receive or to be idle."""
        self._since = self._moved = time.monotonic()
        self._transferred = 0

    def _count(self, transferred: int) -> None:
        if transferred:
            self._moved = time.monotonic()
            self._transferred += transferred

    @property
    def busy(self) -> bool:
        """Whether a request is arriving or being answered."""
        return bool(self.requests or self.request is not None or self.total_outbufs_len)

    @property
    def is_new(self) -> bool:
        """Whether the first request may still be on its way."""
        return not self._has_sent and time.monotonic() < self._since + self.adj.limits.arrival

    @property
    def deadline(self) -> float:
        """The monotonic time at which the connection is closed; infinite while the application works."""
        limits = self.adj.limits
        if self.requests:
            return math.inf
        if not self.busy:
            # A new connection gets at least as long as one with half a request, or those would shut it out.
            return self._since + (limits.idle if self._has_sent else max(limits.idle, limits.patience))
        return min(self._since + limits.patience + self._transferred / limits.min_rate, self._moved + limits.stall)

    def received(self, data: bytes) -> bool:
        """Take bytes from the client, but only one request at a time, so that unread responses do not pile up."""
        self._has_sent = True
        if self.request is None:
            self.request = self.parser_class(self.adj)
            self.restart()
        self._count(len(data))
        request = self.request
        taken = super().received(data)
        self._ahead = request.ahead
        return taken

    def readable(self) -> bool:
        """Return whether the last response has been sent, so that the next request can be read."""
        if self._ahead and super().readable():
            self.received(self._ahead)
        return super().readable()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the socket takes, within this turn; return the number of bytes."""
        if not data:  # the turn is over
            return 0
        sent = super().send(data, do_close)
        self.sendbuf_len -= sent
        self._count(sent)
        return sent

    def handle_write(self) -> None:
        """Send more of the response, but only one turn's worth, even if the client (a proxy) could take it all."""
        self.sendbuf_len = _BYTES_PER_TURN
        super().handle_write()
        if not self.total_outbufs_len:
            self.restart()


class _Server(BaseWSGIServer):
    """Accepts connections; when there are too many, closes the one that is nearest its deadline."""

    channel_class = Channel
    stopping = False
    on_answer: Callable[[Task], None] = staticmethod(lambda task: None)

    def handle_accept(self) -> None:
        """Accept waiting clients, then close the slowest of the other connections if there are too many.

        The order matters: a new connection must not reuse the file number of a closed one while the poll still has
        events for it. Several are accepted at a time, because a turn of the loop is slow while large responses are
        being sent.
        """
        for _ in range(_ACCEPTS_PER_TURN):
            held = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == held:
                break
        excess = len(self.active_channels) - self.adj.limits.connections
        others = list(self.active_channels.values())[:-1]
        for channel in nsmallest(excess, others, key=lambda channel: channel.deadline):
            if channel.deadline < math.inf:
                channel.handle_close()

    def maintenance(self, now: float) -> None:
        """Close connections past their deadline; called every second."""
        for channel in list(self.active_channels.values()):
            if channel.deadline < time.monotonic():
                channel.handle_close()

    def stop_accepting(self) -> None:
        """Close the listening socket; running requests continue."""
        self.stopping = True
        self.del_channel()
        self.accepting = False
        self.socket.close()

    @property
    def busy(self) -> bool:
        """Whether any request is unanswered, or may arrive at any moment."""
        return any(channel.busy or channel.is_new for channel in self.active_channels.values())


class TcpServer(_Server, TcpWSGIServer):
    """Serves a TCP socket."""


class UnixServer(_Server, UnixWSGIServer):
    """Serves a Unix domain socket."""


def serve_socket(
    application: Any,
    listener: socket.socket,
    limits: Limits,
    threads: ThreadedTaskDispatcher,
    sockets: dict[int, Any],
) -> TcpServer | UnixServer:
    """Return a server on a listening socket, registered in ``sockets`` for ``waitress.wasyncore.poll2``."""
    server = UnixServer if listener.family == socket.AF_UNIX else TcpServer
    return server(
        application,
        sockets,
        _sock=listener,
        dispatcher=threads,
        adj=limits.adjustments(),
        bind_socket=False,
        sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
    )
