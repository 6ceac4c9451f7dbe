"""Requests over a real connection: unusual methods and forms, slow clients, and clients that disconnect."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.torture.clients import MULTIPART
from tests.torture.served import Watched, offline, served
from tests.web.conftest import encoded
from tests.web.fake import COLOURS, draw, draw_collection
from tests.web.slow_clients import WAYS, slow_clients
from tests.web.test_uploads import form

pytestmark = pytest.mark.slow

LIMIT = 1_000_000
LARGE = "zz.png"
PICTURE = encoded(draw(COLOURS["red"]), "JPEG")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("served")
    images = draw_collection(folder / "images", 12)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / LARGE, compress_level=1)
    assert offline(images, folder / "index").wait(600) == 0
    with served(images, folder / "index", folder / "log", SEARCHENGINE_MAX_UPLOAD_MB="1") as server:
        yield server


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(("image", PICTURE, "a.jpg"), ("image", PICTURE, "b.jpg")), None),
        (form(), None),
        (form(("image", b"", "")), None),
        (form(("picture", PICTURE, "a.jpg")), None),
        (PICTURE, "image/jpeg"),
        (b'{"image": "a.jpg"}', "application/json"),
        (b"image=a.jpg", "application/x-www-form-urlencoded"),
        (form(("image", PICTURE, "a.jpg")), "multipart/form-data"),
        (form(("image", PICTURE, "a.jpg")), "multipart/form-data; boundary="),
        (form(("image", PICTURE, "a.jpg")), "multipart/form-data; boundary=" + "x" * 2000),
        (form(("image", PICTURE, "a.jpg"))[:-20], None),
        (b"", None),
        (b"--b\r\n" * 5000, None),
        (form(*[("x", b"", f"{i}") for i in range(400)]), None),
        (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 18_000 + b"--b--\r\n", None),
        (b"--b\r\n" + b"A: b\r\n" * 150_000 + b"\r\n--b--\r\n", None),
        (b"[" * LIMIT, "application/json"),
    ],
    ids=range(17),
)
def test_forms(server: Watched, body: bytes, content_type: str | None) -> None:
    status, headers, said = server.ask(
        "POST", "/search", body, {**MULTIPART, **({"Content-Type": content_type} if content_type else {})}
    )
    assert 400 <= status < 500
    assert json.loads(said)["error"].endswith(".")
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("more", [-1, 0, 1, 70_000, 2_000_000])
def test_the_limit_is_exact(server: Watched, more: int) -> None:
    """A picture of exactly so many bytes, as a whole and in chunks."""
    body = form(("image", PICTURE.ljust(LIMIT + more, b"\0"), "a.jpg"))
    chunks = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    for answer in (
        server.ask("POST", "/search", body, MULTIPART),
        server.ask("POST", "/search", chunks, MULTIPART, encode_chunked=True),
    ):
        assert answer[0] == (413 if more > 0 else 200)
        assert ("larger than 1 MB" in json.loads(answer[2]).get("error", "")) == (more > 0)


def test_methods(server: Watched) -> None:
    for address in ("/", "/search?id=1", "/images/1", "/thumbnails/1", "/healthz", "/map", "/search?id=0"):
        got, asked = server.ask("GET", address), server.ask("HEAD", address)
        assert asked[0] == got[0]
        assert asked[2] == b""
        assert asked[1]["content-type"] == got[1]["content-type"]
        status, headers, _ = server.ask("OPTIONS", address)
        assert status == 200
        assert {"GET", "HEAD", "OPTIONS"} <= set(headers["allow"].split(", "))
        assert headers["x-content-type-options"] == "nosniff"
        for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "BREW", "get"):
            status, headers, said = server.ask(method, address)
            assert status in (400, 405), (method, address)
            assert b"Traceback" not in said
            if method in ("PUT", "DELETE", "PATCH"):
                assert (status, "GET" in headers["allow"]) == (405, True)


def test_broken_requests(server: Watched) -> None:
    for lines in (
        ["GET / HTTP/9.9"],
        ["GET"],
        ["GET / HTTP/1.1", "A" * 20_000 + ": x"],
        ["GET /" + "a" * 20_000 + " HTTP/1.1"],
        ["POST /search HTTP/1.1", "Content-Length: x"],
        ["POST /search HTTP/1.1", "Content-Length: -1"],
        ["POST /search HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["GET /%ff%fe%00 HTTP/1.1"],
        ["GET /../../../../etc/passwd HTTP/1.1"],
        ["GET //etc/passwd HTTP/1.1"],
        ["GET /static/../../../etc/passwd HTTP/1.1"],
        ["GET / HTTP/1.1", "X-Forwarded-Prefix: //evil.example"],
    ):
        answer = server.raw(*lines)
        assert re.match(rb"HTTP/1\.[01] (4\d\d|200|30[18]|505) ", answer) or not answer, (lines, answer[:200])
        assert b"root:" not in answer
        assert b"evil.example" not in answer


PAGES = ("/", "/search?id=1", "/search?id=x", "/nothing", "/map", "/groups", "/compare?id=1")
OTHERS = (
    *("/images/1", "/images/1?download=1", "/thumbnails/1", "/thumbnails/999", "/previews/1", "/image/1/details"),
    *("/healthz", "/favicon.ico"),
)


@pytest.mark.parametrize("address", [*PAGES, *OTHERS, "413", "405"])
def test_headers(server: Watched, address: str) -> None:
    if address == "413":
        answer = server.ask(
            "POST", "/search", form(("image", bytes(2 * LIMIT), "a")), {**MULTIPART, "Accept": "text/html"}
        )
    elif address == "405":
        answer = server.ask("DELETE", "/search")
    else:
        answer = server.ask("GET", address)
    status, headers, body = answer
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy.get("script-src", "")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers or "/" not in headers["server"]  # no version to look up
    if headers["content-type"].startswith("text/html"):
        assert "unsafe-inline" not in headers["content-security-policy"]
        page = body.decode()
        assert not re.search(r"<script(?![^>]* src=)[^>]*>[^<]*\S|\sstyle=|\son[a-z]+=|javascript:", page)
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page)
        assert all(f"'nonce-{nonce}'" in policy["style-src"] for nonce in re.findall(r'nonce="([^"]+)"', page))
    elif address in ("/images/1", "/thumbnails/1"):
        assert "sandbox" in policy
        assert "etag" in headers
    rule = headers["cache-control"]
    assert rule == "no-store" if status >= 400 else "no-cache" in rule or "immutable" in rule or "max-age" in rule
    if "immutable" in rule:
        assert "static" in address or "v=" in address


BEGINNING = (
    b"POST /search HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n"
)


def begun(server: Watched, body: bytes, sent: int) -> socket.socket:
    connection = server.connect()
    connection.sendall(BEGINNING + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])
    return connection


def test_slow_uploads_are_waited_for_and_keep_nobody_waiting(server: Watched) -> None:
    body = form(("image", PICTURE, "a.jpg"))
    step = -(-len(body) // 10)
    slow = [begun(server, body, step) for _ in range(12)]
    for at in range(step, len(body), step):
        for connection in slow:
            connection.sendall(body[at : at + step])
        assert server.ask("POST", "/search", body, MULTIPART)[0] == 200  # all the while
        time.sleep(0.1)
    for connection in slow:
        with connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_uploads_that_break_off(server: Watched) -> None:
    body = form(("image", PICTURE.ljust(300_000, b"\0"), "a.jpg"))
    for turn in range(30):
        connection = begun(server, body, turn * len(body) // 30)
        if turn % 2:  # a reset, in place of a goodbye
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    with begun(server, body, 1000) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400") or not answer
    assert server.ask("POST", "/search", body, MULTIPART)[0] == 200


def large_original(server: Watched) -> str:
    """The address of a photo of several megabytes, more than the system buffers."""
    hits = json.loads(server.ask("GET", "/search?id=1&k=50", headers=MULTIPART)[2])["hits"]
    return next(f"/images/{hit['id']}" for hit in hits if hit["path"] == LARGE)


@pytest.mark.torture
@pytest.mark.parametrize(
    "ways", [list(WAYS), *(pytest.param([way], marks=pytest.mark.longest) for way in WAYS)], ids=["all kinds", *WAYS]
)
def test_slow_clients_wait_alone(server: Watched, ways: list[str]) -> None:
    """200, from their first byte until the last of them has lost its connection."""
    body, large = form(("image", PICTURE, "a.jpg")), large_original(server)
    waited: list[float] = []
    with contextlib.ExitStack() as stack:
        slow = {way: stack.enter_context(slow_clients(way, 200 // len(ways), server.port, large)) for way in ways}
        began = time.monotonic()
        left = set(ways)
        while left and time.monotonic() < began + 45:
            for request in (("GET", "/"), ("GET", "/healthz"), ("POST", "/search", body, MULTIPART)):
                start = time.monotonic()
                assert server.ask(*request)[0] == 200  # type: ignore[arg-type]
                waited.append(time.monotonic() - start)
            for clients in slow.values():
                clients.drip()
            time.sleep(0.5)
            # To look is to read, what some are not to do.
            left = {way for way in left if "not reading" in way or slow[way].closed() < len(slow[way].connections)}
            if all("not reading" in way for way in left) and time.monotonic() > began + 25:
                break
        print(f"closed after {time.monotonic() - began:.0f} s")
    print(f"{len(waited)} answers to others, in {np.median(waited):.3f} s, at most {max(waited):.3f} s")
    assert all("not reading" in way for way in left), left
