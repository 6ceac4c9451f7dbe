"""The host names that the server answers to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.web.conftest import make_app
from tests.web.fake import FakeEngine
from tests.web.test_uploads import PNG, form

Ask = Callable[..., int]
LOCAL = ["localhost", "localhost:8000", "photos.localhost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "LOCALHOST"]
OTHERS = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"]


@pytest.fixture
def ask(engine: FakeEngine, tmp_path: Path) -> Ask:
    """Return the status of the response to a request with a Host header."""
    clients: dict[str, FlaskClient] = {}

    def get(host: str, address: str = "/search?id=1&k=1", **config: object) -> int:
        if repr(config) not in clients:
            clients[repr(config)] = make_app(engine, tmp_path, **config).test_client()
        return clients[repr(config)].get(address, headers={"Host": host}, buffered=True).status_code

    return get


def test_a_private_server_answers_to_local_names_only(ask: Ask) -> None:
    """Otherwise a page of evil.example whose name points here could read the collection."""
    for bind in ("127.0.0.1", "localhost", "::1"):
        for host in (*LOCAL, "192.168.0.7:8000"):  # a tunnel to an address
            assert ask(host, BIND=bind) == 200, (bind, host)
        for host in OTHERS:
            assert ask(host, BIND=bind) == 400, (bind, host)
    for address in ("/", "/images/1", "/thumbnails/1", "/healthz", "/i/index/", "/nothing"):
        assert ask("evil.example", address) == 400, address


def test_the_refusal_names_the_setting(engine: FakeEngine, tmp_path: Path) -> None:
    answer = make_app(engine, tmp_path).test_client().get("/", headers={"Host": "evil.example"})
    assert answer.mimetype == "text/plain"
    assert "SEARCHENGINE_HOSTS" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("config", [{"BIND": "0.0.0.0"}, {"BIND": "::"}, {"BIND": "photos.lan"}, {"PROXIES": 1}])
def test_a_server_for_others_answers_to_any_name(ask: Ask, config: dict[str, object]) -> None:
    for host in (*LOCAL, "photos.example"):
        assert ask(host, **config) == 200, host


@pytest.mark.parametrize("more", [{}, {"BIND": "0.0.0.0"}, {"PROXIES": 1}])
def test_only_named_hosts_are_answered(ask: Ask, more: dict[str, object]) -> None:
    hosts = {"HOSTS": "photos.example, .home.example,[::1]", **more}
    for host in ("photos.example", "photos.example:8000", "a.home.example", "home.example", "[::1]:8000"):
        assert ask(host, **hosts) == 200, host
    for host in ("evil.example", "a.photos.example", "localhost", "127.0.0.1"):
        assert ask(host, **hosts) == 400, host


IMPOSSIBLE = [".localhost", "a..localhost", "a" * 70 + ".localhost"]


@pytest.mark.parametrize("config", [{}, {"HOSTS": "*"}, {"BIND": "0.0.0.0"}, {"PROXIES": 1}, {"HOSTS": ".localhost"}])
def test_impossible_names_are_refused(engine: FakeEngine, tmp_path: Path, config: dict[str, object]) -> None:
    app = make_app(engine, tmp_path, **config)
    for host in IMPOSSIBLE:
        headers = {"X-Forwarded-Host": host} if "PROXIES" in config else {"Host": host}
        for address in ("/", "/healthz", "/images/1", "/nothing"):
            body, status, _ = run_wsgi_app(app, EnvironBuilder(address, headers=headers).get_environ())
            assert status.startswith("400 "), (host, address)
            assert b"".join(body).endswith(b".\n")


def test_any_name_can_be_allowed(ask: Ask) -> None:
    assert ask("evil.example", HOSTS="*") == 200


OWN = [{}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
PROXIED = [
    {"Origin": "https://photos.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://photos.lan", "X-Forwarded-Host": "photos.lan"},
]
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]


@pytest.mark.parametrize("address", ["/search", "/compare", "/i/index/search"])
def test_pages_of_other_sites_cannot_post_a_query(engine: FakeEngine, tmp_path: Path, address: str) -> None:
    client = make_app(engine, tmp_path).test_client()
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    for headers in (*OWN, *PROXIED):
        answer = client.post(address, data=form(("image", PNG, "a.png")), headers={**headers, **multipart})
        assert answer.status_code == 200, headers
    for headers in FOREIGN:
        answer = client.post(address, data=form(("image", PNG, "a.png")), headers={**headers, **multipart})
        assert answer.status_code == 403, headers
        assert "page of another site" in answer.text
    assert client.get("/", headers=FOREIGN[0]).status_code == 200  # a link from another site is fine


def test_same_origin_through_a_configured_proxy(engine: FakeEngine, tmp_path: Path) -> None:
    client = make_app(engine, tmp_path, PROXIES=1).test_client()
    headers = {"X-Forwarded-Host": "photos.example", "Content-Type": "multipart/form-data; boundary=b"}
    for origin, status in (("https://photos.example", 200), ("https://evil.example", 403)):
        answer = client.post("/search", data=form(("image", PNG, "a.png")), headers={**headers, "Origin": origin})
        assert answer.status_code == status
