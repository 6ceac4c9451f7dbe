"""A publisher on this machine that misbehaves on request."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from searchengine.download import Client


@dataclass
class Publisher:
    """``files`` by path. ``breaks``: the connection ends after so many bytes, one number for each request."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    marks: bool = True
    says: int | None = None  # a wrong length to announce
    headers: dict[str, str] = field(default_factory=dict)  # more of them
    statuses: list[int] = field(default_factory=list)  # answered before anything else
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each request
    base: str = ""

    def mark(self, data: bytes) -> str:
        return '"' + hashlib.md5(data).hexdigest() + '"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    publisher: Publisher

    def do_GET(self) -> None:
        publisher, wanted = self.publisher, self.headers.get("Range")
        publisher.asked.append((self.path, wanted))
        self.close_connection = True
        if publisher.statuses:
            self._only_headers(publisher.statuses.pop(0))
            return
        data = publisher.files.get(self.path)
        if data is None:
            self._only_headers(404)
            return
        start, condition = 0, self.headers.get("If-Range")
        if wanted and publisher.ranges and (condition is None or condition == publisher.mark(data)):
            bytes_ = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert bytes_ is not None
            start = int(bytes_[1])
        if start >= len(data) and start:
            self._only_headers(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        self.send_response_only(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in publisher.headers.items():
            self.send_header(name, value)
        if publisher.marks:
            self.send_header("ETag", publisher.mark(data))
        length = len(data) - start
        self.send_header("Content-Length", str(publisher.says if publisher.says is not None and not start else length))
        self.send_header("Connection", "close")
        self.end_headers()
        sent = publisher.breaks.pop(0) if publisher.breaks else length
        self.wfile.write(data[start : start + sent])

    def _only_headers(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    publisher = Publisher()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"publisher": publisher}))
    publisher.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield publisher
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client() -> Iterator[Client]:
    """A client that does not wait between attempts."""
    with Client(pause=0) as client:
        yield client
