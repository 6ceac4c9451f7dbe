"""``searchengine serve``: the environment of gunicorn, and errors before it starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from searchengine.cli.main import main
from searchengine.cli.serve import check_free
from searchengine.settings import SettingsError
from tests.analyse.filled import fill


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def become(program: str, command: list[str], environment: dict[str, str]) -> None:
        raise SystemExit(environment)

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr("searchengine.cli.serve.check_free", lambda host, port: None)  # whatever listens here
    fill(tmp_path / "index", np.zeros((3, 2), np.float32)).close()
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", str(tmp_path / "index"))
    return tmp_path / "index"


def served_with(*flags: str) -> dict[str, str]:
    """Return the environment of the process that replaces this one."""
    with pytest.raises(SystemExit) as left:
        main(["serve", *flags])
    assert isinstance(left.value.code, dict)
    return left.value.code


def test_flags_override_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment = served_with()
    assert (environment["PORT"], environment["BIND"], environment["THREADS"]) == ("8000", "127.0.0.1", "32")
    assert "http://127.0.0.1:8000 " in capsys.readouterr().err
    for name, value in (("PORT", "8123"), ("BIND", "0.0.0.0"), ("THREADS", "7")):
        monkeypatch.setenv(name, value)
    environment = served_with()
    assert (environment["PORT"], environment["BIND"], environment["THREADS"]) == ("8123", "0.0.0.0", "7")
    assert "http://0.0.0.0:8123 " in capsys.readouterr().err
    environment = served_with("--port", "8124", "--host", "127.0.0.1", "--threads", "9")
    assert (environment["PORT"], environment["BIND"], environment["THREADS"]) == ("8124", "127.0.0.1", "9")


def test_an_invalid_setting_is_reported_only_by_serve(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "abc")
    assert main(["info"]) == 0
    assert main(["serve", "--help"]) == 0
    capsys.readouterr()
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "searchengine: PORT must be a whole number from 1 to 65535, not 'abc'.\n"
    assert served_with("--port", "8124")["PORT"] == "8124"
    assert main(["serve", "--port", "70000"]) == 1
    assert "PORT must be a whole number" in capsys.readouterr().err
    assert main(["serve", "--port", "8124", "--threads", "65"]) == 1
    assert "THREADS must be a whole number from 1 to 64" in capsys.readouterr().err


def test_photos_keep_their_location_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served_with()["SEARCHENGINE_KEEP_LOCATION"] == "False"
    assert served_with("--keep-location")["SEARCHENGINE_KEEP_LOCATION"] == "True"
    monkeypatch.setenv("SEARCHENGINE_KEEP_LOCATION", "yes")
    assert served_with()["SEARCHENGINE_KEEP_LOCATION"] == "True"


def test_a_server_for_other_machines_warns_who_sees_the_photos(capsys: pytest.CaptureFixture[str]) -> None:
    from searchengine.web.gunicorn_settings import warn_if_open

    warn_if_open([("127.0.0.1", 8000), ("::1", 8000), ("localhost", 8000), "/run/photos.sock", b"@photos"])
    assert not capsys.readouterr().err
    for host in ("0.0.0.0", "::", "192.168.0.7", "photos.lan", ""):
        warn_if_open([("127.0.0.1", 8000), (host, 8000)])
        assert f"WARNING: the server listens on {host}. Everyone who can reach" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "a" * 64 + ".example"])
def test_an_impossible_host_name(host: str) -> None:
    with pytest.raises(SettingsError, match=r"Cannot listen on .+ Choose another --port or --host"):
        check_free(host, 8000)


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1, port {port}: .* Choose another port: --port"):
            check_free("127.0.0.1", port)
    check_free("127.0.0.1", port)
    with pytest.raises(SettingsError, match="Choose another --port or --host"):
        check_free("203.0.113.1", 8000)  # of no machine


@pytest.mark.parametrize("verb", ["info", "serve", "verify", "index"])
def test_an_unreadable_catalog_is_named(
    index: Path, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link to itself is unreadable even for root."""
    (index / "catalog.sqlite").unlink()
    (index / "catalog.sqlite").symlink_to("catalog.sqlite")
    photos = [str(tmp_path)] if verb == "index" else []
    assert main([verb, *photos, "--index-dir", str(index)]) == 1
    complaint = capsys.readouterr().err
    assert "catalog.sqlite cannot be used: Too many levels of symbolic links." in complaint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_an_unreadable_index_folder(index: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    index.chmod(mode)
    try:
        assert main(["info"]) == 1
    finally:
        index.chmod(0o700)
    assert "cannot be used: Permission denied. Check its permissions" in capsys.readouterr().err
