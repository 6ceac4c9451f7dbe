"""The HTTP server: slow clients occupy no thread, and no connection for long."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from waitress.wasyncore import close_all

from searchengine.web.gunicorn_worker import Threads
from searchengine.web.http_server import Channel, Limits, TcpServer, serve_socket
from tests.waiting import wait_until
from tests.web.server import Running, received
from tests.web.slow_clients import WAYS, slow_clients

LARGE = 6_000_000  # bytes, more than the system buffers
MAX_BODY = 1_000_000
NEVER = 1000.0  # s
PATIENT = Limits(MAX_BODY, idle=NEVER, patience=NEVER, stall=NEVER)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer /large with 6 MB, as a file or in pieces, and anything else with the length of the body."""
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", str(LARGE))])
        if "HTTP_RANGE" in environ:
            return (bytes(LARGE // 100) for _ in range(100))
        return environ["wsgi.file_wrapper"](io.BytesIO(bytes(LARGE)))
    if int(environ.get("CONTENT_LENGTH") or 0) > MAX_BODY:
        start_response("413 Too Large", [("Content-Length", "6")])
        return [b"large\n"]
    body = b"%d" % len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def running(
    limits: Limits, app: Callable[..., Iterable[bytes]] = application, *, threads: int = 2
) -> Iterator[Running]:
    server = Running(limits, app, threads)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(PATIENT) as server:
        yield server


@pytest.mark.parametrize("way", WAYS)
def test_slow_clients_hold_no_thread(server: Running, way: str) -> None:
    """Five clients on two threads, without a deadline."""
    with slow_clients(way, 5, server.port, "/large") as clients:
        for _ in range(3):
            assert server.ask() == (200, b"0")
            assert server.ask(b"x" * 700_000) == (200, b"700000")
            clients.drip()
        assert clients.closed() == 0


def test_slow_clients_lose_their_connection() -> None:
    """The deadline is for the whole request, however often clients send a few bytes."""
    with (
        running(Limits(MAX_BODY, idle=0.1, patience=0.1, min_rate=10**9)) as server,
        contextlib.ExitStack() as ways,
    ):
        every = [ways.enter_context(slow_clients(way, 2, server.port, "/large")) for way in WAYS]

        def all_closed() -> bool:
            for clients in every:
                clients.drip()
            return not server.server.active_channels and all(clients.closed() == 2 for clients in every)

        wait_until(all_closed)
        server.server.adj.limits = PATIENT
        assert server.ask() == (200, b"0")


def test_clients_that_are_fast_enough_are_kept() -> None:
    with (
        running(Limits(MAX_BODY, idle=NEVER, patience=0.05, min_rate=10)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        # The bytes sent first allow 400 s.
        connection.sendall(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n" + bytes(4000))
        wait_until(lambda: server.answers)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent:
            silent.sendall(b"GET")
            assert received(silent) == b""  # the deadlines have been checked
        connection.sendall(bytes(1000))
        assert received(connection).endswith(b"\r\n\r\n5000")


@pytest.mark.parametrize("way", ["nothing", "silent after a few bytes", "chunks of a byte"])
def test_a_full_server_drops_the_slowest(way: str) -> None:
    with (
        running(Limits(MAX_BODY, connections=10)) as server,
        slow_clients(way, 10, server.port, "/large") as clients,
    ):
        wait_until(lambda: len(server.server.active_channels) == 10)
        assert server.ask() == (200, b"0")
        wait_until(lambda: clients.closed() == 1)
        clients.open(20)
        assert server.ask() == (200, b"0")
        assert len(server.server.active_channels) <= 10


def test_an_arriving_upload_is_not_the_slowest() -> None:
    with (
        running(Limits(MAX_BODY, connections=10)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as upload,
    ):
        upload.sendall(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 9000\r\n\r\n" + bytes(8000))
        wait_until(lambda: server.answers)
        with slow_clients("headers a byte at a time", 20, server.port, "/large"):
            assert server.ask() == (200, b"0")
            upload.sendall(bytes(1000))
            assert received(upload).endswith(b"\r\n\r\n9000")


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1, 3 * MAX_BODY])
def test_too_large_bodies_reach_the_application_without_their_content(server: Running, size: int) -> None:
    answer = (413, b"large\n") if size > MAX_BODY else (200, b"%d" % size)
    body = bytes(size)
    assert server.ask(body) == answer
    chunks = (body[at : at + 65536] for at in range(0, size, 65536))
    assert server.ask(chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}) == answer


def test_expect_continue_is_refused_before_sending(server: Running) -> None:
    asks = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    assert server.raw(asks % (MAX_BODY + 1)).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(asks % 5)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_expect_continue_without_a_body_is_answered(server: Running) -> None:
    answer = server.raw(b"GET / HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_far_too_large_bodies_are_not_read_to_the_end(server: Running) -> None:
    assert b" 413 " in server.raw(b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 50_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000,
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: b\r\n Content-Length: 5\r\n\r\nhello",
    ],
)
def test_malformed_requests(server: Running, request_: bytes) -> None:
    answer = server.raw(request_)
    assert answer or len(request_) > 20_000  # or closed while the request was being sent
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.0 431")), answer
    assert server.ask() == (200, b"0")


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    posts = [b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + bytes(size) for size in (7, 0, 70_000, 3)]
    answers = server.raw(b"\r\n".join(posts) + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"\r\n\r\n(\d+)", answers) == [b"7", b"0", b"70000", b"3", b"0"]


def test_a_slow_response_is_sent_completely() -> None:
    """The client's time starts with the response, not with the request."""

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        started = time.monotonic()
        wait_until(lambda: time.monotonic() > started + 0.3)
        return application(environ, start_response)

    with running(Limits(MAX_BODY, idle=NEVER, patience=0.2, min_rate=LARGE // 100), slow) as server:
        server.server.adj.cleanup_interval = 0  # in every turn of the loop
        for _ in range(3):
            answer = server.raw(b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE


def test_fast_readers_get_a_response_in_parts(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise two hundred large responses to a proxy would be sent before any other client gets a byte."""
    sent: list[int] = []
    handle_write = Channel.handle_write

    def writing(channel: Channel) -> None:
        before = channel.total_outbufs_len
        handle_write(channel)
        sent.append(before - channel.total_outbufs_len)

    monkeypatch.setattr(Channel, "handle_write", writing)
    answer = server.raw(b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE
    assert max(sent) <= 65_536


def test_a_new_connection_does_not_reuse_a_closed_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file number of a dropped connection is not reused in the same turn of the loop."""
    with running(Limits(MAX_BODY, connections=1)) as server:
        dropped: set[int] = set()
        handle_close = Channel.handle_close
        turns: list[tuple[set[int], set[int]]] = []  # the closed files, and those of connections
        handle_accept = TcpServer.handle_accept

        def closing(channel: Channel) -> None:
            dropped.add(channel.socket.fileno())
            handle_close(channel)

        def accepting(accepting_server: TcpServer) -> None:
            dropped.clear()
            handle_accept(accepting_server)
            turns.append((set(dropped), set(accepting_server.active_channels)))

        monkeypatch.setattr(Channel, "handle_close", closing)
        monkeypatch.setattr(TcpServer, "handle_accept", accepting)
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as first,
            socket.create_connection(("127.0.0.1", server.port), timeout=20),
        ):
            assert received(first) == b""
            wait_until(lambda: any(closed for closed, _ in turns))
            assert all(not closed & connections for closed, connections in turns)


def test_all_waiting_clients_are_accepted_in_one_turn() -> None:
    """With one client per turn, the last of many would wait while large responses are sent to the others."""
    sockets: dict[int, Any] = {}
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:
        threads = Threads(2)
        server = serve_socket(application, listener, PATIENT, threads, sockets)
        for _ in range(20):
            clients.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
        server.handle_accept()
        assert len(server.active_channels) == 20
        threads.shutdown()
        close_all(sockets)


def test_many_requests_of_a_kind_do_not_block_others() -> None:
    """Slow pictures use at most a quarter of the threads, and the kinds of requests take turns."""
    begun, end = threading.Semaphore(0), threading.Event()

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "thumbnails" in environ["PATH_INFO"]:
            begun.release()
            end.wait(20)
        return application(environ, start_response)

    with running(PATIENT, slow, threads=8) as server, contextlib.ExitStack() as clients:
        connections = [
            clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(12)
        ]
        for number, connection in enumerate(connections):
            address = f"/i/other/thumbnails/{number}" if number % 2 else f"/thumbnails/{number}"
            connection.sendall(f"GET {address} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        for _ in range(2):
            assert begun.acquire(timeout=20)
        assert [server.ask()[0] for _ in range(10)] == [200] * 10
        assert not begun.acquire(blocking=False)
        end.set()
        assert all(b"200 OK" in received(connection) for connection in connections)


def test_running_requests_are_finished() -> None:
    with running(PATIENT) as server, socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe")
        wait_until(lambda: server.answers)
        server.server.trigger.pull_trigger(server.server.stop_accepting)
        connection.sendall(b"llo")
        answer = received(connection)
        assert b"Connection: close" in answer
        assert answer.endswith(b"\r\n\r\n5")
        wait_until(lambda: not server.server.busy)
        with pytest.raises(OSError, match="refused"):
            server.ask()


def test_new_connections_are_waited_for() -> None:
    """A worker that is being replaced may have accepted connections whose requests are still on their way."""
    with (
        running(replace(PATIENT, arrival=NEVER)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        wait_until(lambda: bool(server.server.active_channels))
        assert server.server.busy
        server.server.trigger.pull_trigger(server.server.stop_accepting)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert received(connection).endswith(b"\r\n\r\n0")
    with running(replace(PATIENT, arrival=0.01)) as server, slow_clients("nothing", 1, server.port, "/large"):
        wait_until(lambda: bool(server.server.active_channels))
        wait_until(lambda: not server.server.busy)


def test_pages_do_not_wait_for_uploads() -> None:
    """Twenty uploads waiting to be decoded, on three threads."""
    turn = threading.Event()

    def waiting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            turn.wait()
        return application(environ, start_response)

    upload = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    with running(PATIENT, waiting) as server, contextlib.ExitStack() as uploads:
        try:
            connections = [
                uploads.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                for _ in range(20)
            ]
            for connection in connections:
                connection.sendall(upload)
            for _ in range(5):
                assert server.ask() == (200, b"0")
        finally:
            turn.set()
        assert all(received(connection).endswith(b"\r\n\r\n5") for connection in connections)
