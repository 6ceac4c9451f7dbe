"""Interrupted commands, unwritable output, and names that are not safe on a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from searchengine.cli.main import main
from searchengine.cli.output import shown
from searchengine.indexing import update_index, verify
from tests.conftest import draw
from tests.fakes import FakeExtractor

ROOT = Path(__file__).parent.parent.parent
Captured = pytest.CaptureFixture[str]


def run(
    *words: str, stdout: int = subprocess.PIPE, code: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a separate process."""
    start = ["-c", f"{code}\nimport runpy; runpy.run_module('searchengine', run_name='__main__')"]
    return subprocess.run(
        [sys.executable, *(start if code else ["-m", "searchengine"]), *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
    )


# -- stopped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "function", "said"),
    [
        (["index", "."], "searchengine.indexing.update_index", "Stopped. Run the same command again to resume."),
        (["search", "--id", "1"], "searchengine.engine.SearchEngine.open", "Stopped."),
        (["map"], "searchengine.engine.open_index", "Stopped."),
    ],
)
def test_only_resumable_commands_say_that_they_resume(
    command: list[str], function: str, said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, stop)
    assert main(command) == 130
    assert capsys.readouterr().err == f"searchengine: {said}\n"


_INTERRUPT = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    "name",
    [
        "searchengine.cli.main",
        "click",
        "searchengine.cli.output",
        "searchengine.cli.info",
        "searchengine.settings",
    ],
)
def test_interrupted_during_startup(name: str) -> None:
    ended = run("info", code=_INTERRUPT.format(name=name))
    assert (ended.returncode, ended.stderr) == (130, b"searchengine: Stopped.\n")


# -- stdout -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [(["config", "--json"], ""), (["config"], "1"), (["search", "--id", "1"], ""), (["search", "--help"], "")],
)
def test_unwritable_output(command: list[str], unbuffered: str, index: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = run(*command, stdout=full.fileno(), SEARCHENGINE_INDEX_DIR=str(index), PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == 1
    assert ended.stderr == b"searchengine: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_causes_no_message(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = run("config", stdout=writing, PYTHONUNBUFFERED=unbuffered)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_closed_output(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["config", *flags]) == 0


def test_characters_missing_from_the_output_encoding(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    draw(1).save(tmp_path / "photos" / "été 😀.jpg")
    update_index(tmp_path / "photos", tmp_path / "i", extractor=FakeExtractor())
    command = ["search", "--id", "1", "--index-dir", str(tmp_path / "i")]
    ended = run(*command, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"\\xe9t\\xe9 \\U0001f600.jpg" in ended.stdout
    for encoding in ("ascii", "utf-8"):
        ended = run(*command, "--json", PYTHONIOENCODING=encoding)
        assert json.loads(ended.stdout)["hits"][0]["path"] == "été 😀.jpg"


# -- names ------------------------------------------------------------------------------------------------------------


def test_shown() -> None:
    assert shown("été \\ 'a'.jpg") == "été \\ 'a'.jpg"
    assert shown("a\x1b[31m\nb\x9b\udce9") == "a\\x1b[31m\\nb\\x9b\\udce9"


@pytest.mark.parametrize("start", [["search", "--id", "1"], ["recommend", "--like", "2"], ["classify", "--id", "1"]])
def test_names_with_control_characters(start: list[str], tmp_path: Path, capsys: Captured) -> None:
    name = "red\x1b[31m\nline.jpg"
    for i, label in enumerate(("a\x1b[1m", "b")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        draw(i).save(tmp_path / "photos" / label / name)
    where = ["--index-dir", str(tmp_path / "i")]
    update_index(tmp_path / "photos", tmp_path / "i", extractor=FakeExtractor())
    assert main([*start, *where]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "red\\x1b[31m\\nline.jpg" in out
    assert "[a\\x1b[1m]" in out
    assert main([*start, *where, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert name in [Path(image["path"]).name for image in answer.get("hits", answer.get("images"))]


def test_repeated_problems_are_printed_once(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = verify.Verification(0, ("One.", *60 * ["Another."]), 0, None)
    monkeypatch.setattr(verify, "verify", lambda folder, progress: damaged)
    assert main(["verify", "--index-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == ["One.", "Another. (60 times)"]
    assert main(["verify", "--index-dir", str(tmp_path), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 61


def test_the_repair_command_runs_anywhere(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"no catalog" * 100)
    assert main(["verify", "--index-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"Repair it with: searchengine index IMAGES --index-dir {tmp_path}" in out
    assert "offline_index.py" not in out
    assert main(["info", "--index-dir", str(tmp_path / "none")]) == 1
    assert f"Make one with: searchengine index IMAGES --index-dir {tmp_path / 'none'}" in capsys.readouterr().err
