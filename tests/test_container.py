"""What the Dockerfile names is there, and its health check tells a server that works from one that does not."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from searchengine.web import create_app
from searchengine.web.settings import Settings, variable
from tests.web.fake import FakeEngine, draw_collection

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    """(NAME, the rest) of each, continued lines joined and comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def those(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in those("ENV")[1:] for pair in shlex.split(rest))


def test_what_is_copied_is_there_and_not_ignored() -> None:
    sources = [source for rest in those("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"searchengine", "templates", "static", "requirements.lock"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored
    assert "*" in ignored


def test_all_that_the_wheel_is_made_of_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {source for rest in those("COPY") for source in rest.split()[:-1]}
    wanted = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml"}
    assert wanted | set(project["project"]["license-files"]) <= copied


def test_everything_comes_with_hashes_and_what_is_removed_is_in_the_lock() -> None:
    commands = " ".join(those("RUN"))
    assert "--require-hashes -r requirements.lock" in commands
    removed = re.search(r"pip uninstall ((?:--\S+ )*)(.+?)$", those("RUN")[2])
    assert removed is not None
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    needed = {"flask", "gunicorn", "numpy", "openvino", "pillow"}
    assert set(removed[2].split()) <= locked - needed


def test_settings_are_ones_that_the_program_has() -> None:
    known = {variable(field.name) for field in fields(Settings)} | {"PATH", "PYTHONUNBUFFERED", "KERAS_HOME"}
    assert set(environment()) <= known


def test_it_does_not_run_as_root_and_its_folders_are_volumes() -> None:
    order = [name for name, _ in instructions()]
    (user,) = those("USER")
    assert user not in ("root", "0")
    assert order.index("USER") < order.index("CMD")
    volumes = set(json.loads(those("VOLUME")[0]))
    assert {environment()["SEARCHENGINE_INDEX_DIR"], environment()["SEARCHENGINE_CACHE_DIR"], "/photos"} == volumes
    assert user in " ".join(those("RUN"))
    assert all(volume in " ".join(those("RUN")) for volume in volumes)


def test_its_command_serves_by_our_configuration() -> None:
    command = json.loads(those("CMD")[0])
    assert command[0] == "gunicorn"
    assert (ROOT / command[command.index("-c") + 1]).is_file()
    assert command[-1] == "app:create_app()"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    engine = FakeEngine(draw_collection(tmp_path / "collection", 3))
    server = make_server("127.0.0.1", 0, create_app({"CACHE_DIR": tmp_path / "cache"}, engine=engine), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def health(port: int) -> int:
    """The exit code of the health check."""
    (rest,) = those("HEALTHCHECK")
    command = json.loads(rest.partition("CMD")[2])
    assert command[0] == "python"
    asked = {**os.environ, **environment(), "BIND": "127.0.0.1", "PORT": str(port), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, *command[1:]], env=asked, capture_output=True).returncode


def test_the_health_check_finds_a_server_well(port: int) -> None:
    assert health(port) == 0


def test_the_health_check_finds_out_that_none_answers(port: int) -> None:
    assert health(1) != 0
