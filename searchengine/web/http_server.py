"""The HTTP server under gunicorn: waitress, with limits on how long a client may hold a connection.

Waitress receives each request whole in an event loop, runs the application in a thread, and sends the answer from the
loop again: threads work, and never wait for a network. Added here are strict requests with a bound on every part, a
deadline for every connection, and what a full server does. Waitress's own limits count the seconds without a byte, and
stop accepting when there are many connections: a byte a minute would hold them all.
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

_DRAIN_TIMES = 8  # a body beyond the limit is read and dropped up to this many times the limit
_SEND_BUFFER = 262_144  # bytes that the system takes of an answer before the client has them
_TURN = 65_536  # bytes of an answer that are sent before it is the turn of others
_ACCEPTED_IN_TURN = 50  # connections
_UNLIMITED = 2**60


@dataclass(frozen=True)
class Limits:
    """How long a client may hold a connection, and how much it may send.

    Args:
        max_body: bytes. More is dropped as it arrives: the client sends it all, and then hears what is wrong.
        connections: how many are held at a time.
        idle: seconds between two requests.
        patience: seconds for a request to arrive, or for an answer to be received, beyond what ``min_rate`` allows.
        min_rate: bytes/s.
        stall: seconds in which not a byte moves.
        arrival: seconds after a client has connected in which its first request may be on its way.
    """

    max_body: int
    connections: int = 1000
    idle: float = 15
    patience: float = 20
    min_rate: int = 1000
    stall: float = 60
    arrival: float = 1

    def adjustments(self) -> Adjustments:
        """The configuration of waitress, which carries these limits along."""
        adjustments = Adjustments(
            ident="searchengine",
            clear_untrusted_proxy_headers=False,  # the application's ProxyFix looks after them
            max_request_header_size=_MAX_HEADERS,
            max_request_body_size=self.max_body * _DRAIN_TIMES,
            outbuf_high_watermark=_UNLIMITED,  # a thread never waits for a client to read
            # Only reached when the application works for every connection:
            connection_limit=self.connections + 2 * _ACCEPTED_IN_TURN,
            cleanup_interval=1,
            recv_bytes=65_536,
            log_socket_errors=False,
        )
        # Or a client that does not read takes megabytes of every answer; this is enough for 5 MB/s over 0.1 s.
        adjustments.socket_options = [*adjustments.socket_options, (socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)]
        adjustments.limits = self
        return adjustments


# -- requests ----------------------------------------------------------------------------------------------------------

_MAX_HEADERS = 16_384  # bytes of the request line and all headers
_MAX_CHUNK_LINE = 4096  # bytes of the line before a chunk, or of the trailer
_MAX_CHUNK_OVERHEAD = 65_536  # bytes of a body that are not its content, beyond as many as that
_AMBIGUOUS = re.compile(rb"\n[ \t]|\ntransfer-encoding:.*chunked.*chunked", re.IGNORECASE)


class Body(OverflowableBuffer):
    """A request body: in memory, from 512 kB in an unnamed temporary file, beyond ``max_size`` only counted."""

    def __init__(self, overflow: int, max_size: int) -> None:
        super().__init__(overflow)
        self._max_size = max_size
        self.received = 0

    def __len__(self) -> int:
        return self.received

    def append(self, data: bytes) -> None:
        """Keep ``data``, unless the body is too large."""
        self.received += len(data)
        if self.received <= self._max_size:
            super().append(data)


class RequestParser(HTTPRequestParser):
    """Reads a request. One with too large a body reaches the application, which refuses it by its Content-Length.

    ``ahead`` is what came after the request.
    """

    error: Any
    expect_continue: bool
    ahead = b""

    def parse_header(self, header_plus: bytes) -> None:
        """Refuse what a proxy in front may understand in another way (request smuggling)."""
        if _AMBIGUOUS.search(header_plus):
            raise ParsingError("A header is folded, or chunks are named in an unusual way")
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # more digits than Python converts
            raise ParsingError("The length of the body is no number") from error
        if "TRANSFER_ENCODING" in self.headers or (self.chunked and "CONTENT_LENGTH" in self.headers):
            raise ParsingError("The length of the body is ambiguous")
        if self.body_rcv is None:
            self.expect_continue = False  # there is nothing to wait for
        else:
            self.body_rcv.buf = Body(self.adj.inbuf_overflow, self.adj.limits.max_body)

    def received(self, data: bytes) -> int:
        """Take bytes of the request, and keep those of the next; always all of them."""
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
        """Refuse a body that is more framing than content: each chunk is work for the loop, which serves everybody."""
        body = self.body_rcv
        if self.body_bytes_received > 2 * len(body) + _MAX_CHUNK_OVERHEAD:
            self.error, self.completed = BadRequest("The chunks of the body are too small"), True
        elif len(body.control_line) + len(body.trailer) > _MAX_CHUNK_LINE:
            self.error, self.completed = BadRequest("A line between two chunks is too long"), True


# -- connections -------------------------------------------------------------------------------------------------------


class Task(WSGITask):
    """Runs the application for one request."""

    def service(self) -> None:
        """See Task of waitress."""
        server = self.channel.server
        if server.stopping:
            self.request.headers["CONNECTION"] = "close"
        try:
            super().service()
        finally:
            # The client's time to receive the answer begins, before the loop hears that the request is done.
            self.channel.restart()
            server.on_answer(self)


class Channel(HTTPChannel):
    """A connection, with a deadline for what its client is doing: sending, receiving, or nothing."""

    task_class = Task
    parser_class = RequestParser
    request: RequestParser | None
    sendbuf_len: int

    def __init__(self, *args: Any, **options: Any) -> None:
        self._ahead = b""
        self._has_sent = False  # a byte, ever
        self.restart()
        super().__init__(*args, **options)
        self.sendbuf_len = _TURN

    def restart(self) -> None:
        """Give the client its time from now on: it does something else than before."""
        self._since = self._moved = time.monotonic()
        self._transferred = 0

    def _count(self, transferred: int) -> None:
        if transferred:
            self._moved = time.monotonic()
            self._transferred += transferred

    @property
    def busy(self) -> bool:
        """Whether a request has begun to arrive, or is answered."""
        return bool(self.requests or self.request is not None or self.total_outbufs_len)

    @property
    def is_new(self) -> bool:
        """Whether the first request may be on its way."""
        return not self._has_sent and time.monotonic() < self._since + self.adj.limits.arrival

    @property
    def deadline(self) -> float:
        """When the connection is closed, on the monotonic clock; infinite while the application works."""
        limits = self.adj.limits
        if self.requests:
            return math.inf
        if not self.busy:
            # A new connection comes before one with half a request, or those would shut out everybody.
            return self._since + (limits.idle if self._has_sent else max(limits.idle, limits.patience))
        return min(self._since + limits.patience + self._transferred / limits.min_rate, self._moved + limits.stall)

    def received(self, data: bytes) -> bool:
        """Take bytes from the client; of several requests only the first, or answers that nobody reads pile up."""
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
        """Whether the last answer is sent, so that the next request can be read."""
        if self._ahead and super().readable():
            self.received(self._ahead)
        return super().readable()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the socket takes; how many bytes that was. What is left of this turn is read next."""
        if not data:  # the turn is over
            return 0
        sent = super().send(data, do_close)
        self.sendbuf_len -= sent
        self._count(sent)
        return sent

    def handle_write(self) -> None:
        """Send more of the answer. A client that takes it at once, as a proxy does, gets a part at each turn."""
        self.sendbuf_len = _TURN
        super().handle_write()
        if not self.total_outbufs_len:
            self.restart()


class _Server(BaseWSGIServer):
    """Accepts connections for as long as clients move; a full one drops the connection that is nearest its deadline."""

    channel_class = Channel
    stopping = False
    on_answer: Callable[[Task], None] = staticmethod(lambda task: None)

    def handle_accept(self) -> None:
        """Accept who waits, then close the slowest of the others if there are too many.

        In this order: a new one must not get the number of a closed file of which the poll has yet to tell. Several
        at a time, because a turn of the loop takes long while large answers are sent.
        """
        for _ in range(_ACCEPTED_IN_TURN):
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
        """Close the connections whose time is up; called every second."""
        for channel in list(self.active_channels.values()):
            if channel.deadline < time.monotonic():
                channel.handle_close()

    def stop_accepting(self) -> None:
        """Close the listening socket; what has begun goes on."""
        self.stopping = True
        self.del_channel()
        self.accepting = False
        self.socket.close()

    @property
    def busy(self) -> bool:
        """Whether any request has begun that is not answered, or may do so at any moment."""
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
    """A server on a listening socket, registered in ``sockets``, for ``waitress.wasyncore.poll2``."""
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
