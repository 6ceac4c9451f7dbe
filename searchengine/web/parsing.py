"""How a request is read: as waitress does it, but strictly, and with a bound on every part."""

from __future__ import annotations

import re
from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import BadRequest, RequestEntityTooLarge

MAX_HEADERS = 16_384  # bytes of the request line and all headers
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
