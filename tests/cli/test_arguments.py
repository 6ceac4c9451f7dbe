"""Invalid arguments are reported before anything is done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from searchengine.cli.main import main

Captured = pytest.CaptureFixture[str]


def refused(command: Sequence[str]) -> None:
    """Check that the command exits with the status for wrong usage."""
    assert main(command) == 2


@pytest.mark.parametrize(
    "command",
    [
        ["index", ""],
        ["index", "photos", "--index-dir", ""],
        ["index", "photos", "--model", ""],
        ["search", ""],
        ["search", "--vector", ""],
        ["info", "--index-dir", ""],
        ["recommend", "--like", ""],
        ["classify", ""],
        ["map", "--png", ""],
        ["export", "--out", ""],
        ["train", "", "--out", "a.keras"],
        ["serve", "--index-dir", ""],
        ["demo", ""],
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    command: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(command)
    assert "must not be empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["search", "--id", "1", "--id", "5"],
        ["info", "--index-dir", "a", "--index-dir", "b"],
        ["search", "--id", "1", "-k", "2", "--k", "3"],
        ["recommend", "--query", "1", "--query", "2"],
        ["index", "photos", "--model", "vgg16", "--model", "efficientnet-lite0"],
    ],
)
def test_an_option_with_one_value_given_twice(command: list[str], capsys: Captured) -> None:
    refused(command)
    assert "given more than once, but takes one value" in capsys.readouterr().err


def test_repeated_options_start_empty_in_each_call(index: Path, capsys: Captured) -> None:
    for _ in range(2):
        command = ["recommend", "--like", "1", "--like", "2", "--index-dir", str(index), "--json"]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["liked"] == [1, 2]


@pytest.mark.parametrize("start", [["search", "--id", "1"], ["recommend", "--like", "1"]])
def test_k_with_two_dashes(start: list[str], index: Path, capsys: Captured) -> None:
    assert main([*start, "--k", "2", "--index-dir", str(index), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2


@pytest.mark.parametrize("verb", [["search"], ["recommend", "--like"], ["classify"]])
def test_a_pipe_is_not_waited_for(verb: list[str], index: Path, tmp_path: Path, capsys: Captured) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert main([*verb, str(pipe), "--index-dir", str(index)]) == 1
    assert f"{pipe} cannot be read: Not a regular file." in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["search"], ["recommend", "--like", "1", "--like"], ["classify"]])
def test_an_unusable_picture_is_named(verb: list[str], index: Path, drawings: Path, capsys: Captured) -> None:
    assert main([*verb, str(drawings / "warm" / "broken.jpg"), "--index-dir", str(index)]) == 1
    assert f"{drawings / 'warm' / 'broken.jpg'}: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["search", "classify"])
def test_an_id_without_its_option(
    verb: str, index: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([verb, "12", "--index-dir", str(index)]) == 1
    assert "There is no file 12. For image 12 of the index, use --id 12" in capsys.readouterr().err


def test_a_vector_of_another_length(index: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "vector.txt").write_text("0.1 0.7 0.2\n")
    assert main(["search", "--vector", str(tmp_path / "vector.txt"), "--index-dir", str(index)]) == 1
    assert "The vector has 3 numbers; the features of this index have 1280." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"), [("SEARCHENGINE_PRECISION", "bfloat61"), ("SEARCHENGINE_RUNTIME", "foo")]
)
def test_precision_and_runtime_from_the_environment(
    variable: str, value: str, index: Path, drawings: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    query = str(drawings / "warm" / "03.jpg")
    flag = "--" + variable.rpartition("_")[2].lower()
    for command in (["search", query], ["index", str(drawings)], ["classify", query], ["serve"]):
        assert main([*command, "--index-dir", str(index)]) == 1
        assert f"{variable} must be one of auto, " in capsys.readouterr().err
    assert main(["config"]) == 1
    assert f"not {value!r}" in capsys.readouterr().err
    assert main(["search", query, "--index-dir", str(index), flag, "auto"]) == 0  # flags come first
    assert main(["info", "--index-dir", str(index)]) == 0  # runs no model


def test_the_precision_of_the_environment_is_used(index: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchengine.engine import SearchEngine

    asked: list[str] = []
    was = SearchEngine.open

    def opened(*args: str, precision: str, **flags: str) -> SearchEngine:
        asked.append(precision)
        return was(*args, **flags)

    monkeypatch.setattr(SearchEngine, "open", opened)
    monkeypatch.setenv("SEARCHENGINE_PRECISION", "bfloat16")
    query = str(drawings / "warm" / "03.jpg")
    assert main(["search", query, "--index-dir", str(index)]) == 0
    assert main(["search", query, "--index-dir", str(index), "--precision", "float32"]) == 0
    assert asked == ["bfloat16", "float32"]


def test_config_prints_numbers_as_json_numbers(capsys: Captured) -> None:
    assert main(["config", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["SEARCHENGINE_IMAGES_DIR"] is None
    assert answer["PORT"] == 8000
    assert answer["SEARCHENGINE_INDEX_DIR"] == "index"
