"""The Dockerfile names files that exist, serves from the smallest lock, and its health check detects a dead server."""

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
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from searchengine.settings import Settings, variable
from searchengine.web import create_app
from tests.web.fake import FakeEngine, draw_collection

ROOT = Path(__file__).parent.parent


class Stage:
    """One stage of the Dockerfile: its name, its base, and its instructions as (NAME, arguments)."""

    def __init__(self, start: str) -> None:
        self.parent, _, self.name = start.partition(" AS ")
        self.instructions: list[tuple[str, str]] = []

    def all(self, name: str) -> list[str]:
        """Return the arguments of every instruction of this name, inherited ones first."""
        inherited = STAGES[self.parent].all(name) if self.parent in STAGES else []
        return inherited + [rest for instruction, rest in self.instructions if instruction == name]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in shlex.split(rest))

    @property
    def locks(self) -> list[str]:
        """Return the lock files from which the environment copied into this stage is installed."""
        (copied,) = [rest for rest in self.all("COPY") if "--from" in rest]
        commands = " ".join(STAGES[copied.split()[0].partition("=")[2]].all("RUN"))
        assert commands.count("-r ") == commands.count("--no-deps --require-hashes -r ")
        return re.findall(r"-r (\S+)", commands)


def stages() -> Iterator[Stage]:
    """Return the lines without comments, with continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    stage = None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            if stage is not None:
                yield stage
            stage = Stage(rest)
        elif name:
            assert stage is not None
            stage.instructions.append((name, rest.strip()))
    assert stage is not None
    yield stage


STAGES = {stage.name: stage for stage in stages()}
SERVE = list(STAGES.values())[-1]  # what a plain `docker build` makes


def sources() -> set[str]:
    """Return everything that is copied from the checkout."""
    copies = [rest for stage in STAGES.values() for rest in stage.all("COPY") if "--from" not in rest]
    return {source for rest in copies for source in rest.split()[:-1]}


def test_copied_files_exist_and_are_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {f"!{source}" for source in sources()} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources())


def test_all_sources_of_the_wheel_are_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml"}
    assert needed | set(project["project"]["license-files"]) <= sources()


def test_the_last_stage_only_serves_and_the_other_indexes() -> None:
    assert SERVE.locks == ["requirements-serve.lock"]
    # On top of the other, whose versions agree (tests/test_locks.py).
    assert STAGES["index"].locks == ["requirements-serve.lock", "requirements.lock"]


@pytest.mark.parametrize("stage", [SERVE, STAGES["index"]], ids=lambda stage: stage.name)
def test_settings_are_known_to_the_program(stage: Stage) -> None:
    known = {variable(field) for field in Settings.model_fields} | {"PATH", "PYTHONUNBUFFERED", "KERAS_HOME"}
    assert set(stage.environment) <= known


@pytest.mark.parametrize("stage", [SERVE, STAGES["index"]], ids=lambda stage: stage.name)
def test_it_does_not_run_as_root_and_its_folders_are_volumes(stage: Stage) -> None:
    (user,) = stage.all("USER")
    assert user not in ("root", "0")
    volumes = set(json.loads(stage.all("VOLUME")[0]))
    assert {stage.environment["SEARCHENGINE_INDEX_DIR"], stage.environment["SEARCHENGINE_CACHE_DIR"]} < volumes
    commands = " ".join(stage.all("RUN"))
    assert user in commands
    assert all(volume in commands for volume in volumes)


def test_the_commands_run_our_scripts() -> None:
    (command,) = map(json.loads, SERVE.all("CMD"))
    assert command[0] == "gunicorn"
    assert (ROOT / command[command.index("-c") + 1]).is_file()
    assert command[-1] == "app:create_app()"
    (command,) = map(json.loads, STAGES["index"].all("CMD"))
    assert (ROOT / command[1]).is_file()
    assert command[2] in json.loads(STAGES["index"].all("VOLUME")[0])


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    engine = FakeEngine(draw_collection(tmp_path / "collection", 3))
    server = make_server("127.0.0.1", 0, create_app({"CACHE_DIR": tmp_path / "cache"}, engine), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def health(port: int) -> int:
    """Return the exit code of the health check."""
    (rest,) = SERVE.all("HEALTHCHECK")
    command = json.loads(rest.partition("CMD")[2])
    assert command[0] == "python"
    environment = {
        **os.environ,
        **SERVE.environment,
        "BIND": "127.0.0.1",
        "PORT": str(port),
        "PATH": os.environ["PATH"],
    }
    return subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True).returncode


def test_the_health_check_passes_while_a_server_answers(port: int) -> None:
    assert health(port) == 0


def test_the_health_check_fails_where_none_answers(port: int) -> None:
    assert health(1) != 0
