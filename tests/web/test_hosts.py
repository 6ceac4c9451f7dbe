"""Which names the server answers to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web.conftest import make_app
from tests.web.fake import FakeEngine

Ask = Callable[..., int]
LOCAL = ["localhost", "localhost:8000", "photos.localhost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "LOCALHOST"]
OTHERS = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"]


@pytest.fixture
def ask(engine: FakeEngine, tmp_path: Path) -> Ask:
    """The status of an answer to a request with that Host header."""
    clients: dict[str, FlaskClient] = {}

    def get(host: str, address: str = "/search?id=1&k=1", **config: object) -> int:
        if repr(config) not in clients:
            clients[repr(config)] = make_app(engine, tmp_path, **config).test_client()
        return clients[repr(config)].get(address, headers={"Host": host}, buffered=True).status_code

    return get


def test_a_private_server_answers_to_local_names_only(ask: Ask) -> None:
    """Else a page of evil.example that lets this name point here could read the collection."""
    for bind in ("127.0.0.1", "localhost", "::1"):
        for host in (*LOCAL, "192.168.0.7:8000"):  # a tunnel by address
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


def test_any_name_can_be_asked_for(ask: Ask) -> None:
    assert ask("evil.example", HOSTS="*") == 200
