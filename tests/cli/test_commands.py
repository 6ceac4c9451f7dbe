"""Whole commands: results on stdout, everything else on stderr, and the exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import searchengine
from searchengine.cli import offline_index
from searchengine.cli.main import main
from searchengine.errors import ImageError

ROOT = Path(__file__).parent.parent.parent
Captured = pytest.CaptureFixture[str]


def test_indexing_reports_its_summary(drawings: Path, tmp_path: Path, capsys: Captured) -> None:
    command = [str(drawings), "--index-dir", str(tmp_path), "--model", "efficientnet-lite0", "--json"]
    assert offline_index(command) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert {"added", "changed", "moved", "removed", "unchanged", "skipped", "embedded", "seconds"} <= summary.keys()
    assert (summary["added"], summary["embedded"], summary["skipped"], summary["images"]) == (12, 12, 1, 12)
    assert "broken.jpg" in err
    assert offline_index([str(drawings), "--index-dir", str(tmp_path)]) == 0  # the extractor is the recorded one
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    assert "12 unchanged" in out
    assert offline_index([*command, "--strict"]) == 1


def test_exit_statuses(drawings: Path, tmp_path: Path, capsys: Captured) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert offline_index([str(empty), "--index-dir", str(tmp_path / "i"), "--model", "efficientnet-lite0"]) == 1
    assert "Formats: JPEG" in capsys.readouterr().err
    assert (
        offline_index([str(tmp_path / "nowhere"), "--index-dir", str(tmp_path / "i"), "--model", "efficientnet-lite0"])
        == 1
    )
    assert "nowhere does not exist" in capsys.readouterr().err
    assert offline_index([str(drawings), "--index-dir", str(tmp_path / "i"), "--model", "vgg61"]) == 1
    assert "vgg16" in capsys.readouterr().err
    for wrong in ([], [str(drawings), "--batch-size", "0"], [str(drawings), "--limit", "x"], [str(drawings), "--what"]):
        assert offline_index(wrong) == 2


def test_search(index: Path, drawings: Path, capsys: Captured) -> None:
    query = drawings / "warm" / "03.jpg"
    assert main(["search", str(query), "--index-dir", str(index), "-k", "4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["query"] == str(query)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    first = answer["hits"][0]
    assert first.keys() == {"rank", "id", "path", "distance", "score", "label", "labels", "stands_for"}
    assert (first["path"], first["label"]) == ("warm/03.jpg", "warm")
    assert first["distance"] < 1e-3
    assert first["score"] > 0.999
    assert main(["search", "--id", str(first["id"]), "--index-dir", str(index)]) == 0
    assert "warm/03.jpg" in capsys.readouterr().out.splitlines()[1]
    assert main(["search", "--id", "999", "--index-dir", str(index)]) == 1
    assert "no image 999" in capsys.readouterr().err
    assert main(["search", str(drawings / "warm" / "broken.jpg"), "--index-dir", str(index)]) == 1
    assert main(["search", "nowhere.jpg", "--index-dir", str(index)]) == 1


def test_info_and_verify(index: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", str(index))
    assert main(["info", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"images", "skipped", "dimension", "extractor", "fingerprint", "bytes", "updated"} <= answer.keys()
    assert (answer["images"], answer["skipped"]) == (12, 1)
    assert main(["info", "--skipped"]) == 0
    assert "broken.jpg" in capsys.readouterr().out
    assert main(["verify"]) == 0
    assert "12 images, sound" in capsys.readouterr().out
    assert main(["prepare"]) == 0
    assert main(["config"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [f"SEARCHENGINE_INDEX_DIR={index}", "environment"] in lines
    assert ["PORT=8000", "default"] in lines
    assert main(["info", "--index-dir", str(tmp_path / "none")]) == 1
    assert "There is no index" in capsys.readouterr().err
    assert main(["verify", "--index-dir", str(tmp_path / "none")]) == 1
    assert main(["serve", "--index-dir", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize("verb", [[], ["index"], ["search"], ["serve"], ["info"], ["verify"], ["prepare"], ["demo"]])
def test_help_teaches(verb: list[str], capsys: Captured) -> None:
    assert main([*verb, "--help"]) == 0
    assert len(capsys.readouterr().out) > 200


def test_the_python_interface(index: Path, drawings: Path) -> None:
    opened = searchengine.open_index(index)
    assert opened.features.shape == (12, len(opened.search(opened.features[:1], 1)) * opened.dimension)
    assert sorted(opened.paths)[0] == "cold/00.jpg"
    assert set(opened.labels) == {"cold", "warm"}
    extractor = searchengine.load_extractor("efficientnet-lite0")
    rows = extractor.embed([drawings / path for path in opened.paths])
    assert abs(rows - opened.features).max() < 1e-4
    opened.close()
    engine = searchengine.SearchEngine.open(index)
    assert engine.search(drawings / "cold" / "04.jpg", k=3)[0].path == "cold/04.jpg"
    with pytest.raises(ImageError):
        engine.search(b"no image")
    engine.close()


def test_an_unusable_image_is_named(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, copy = (tmp_path / name for name in ("first.jpg", "copy.jpg"))
    for file in (first, copy):
        file.write_bytes(b"no image")
    assert main(["recommend", "--like", str(first), "--like", str(copy), "--index-dir", str(index)]) == 1
    assert capsys.readouterr().err.startswith(f"searchengine: {first}: ")


@pytest.mark.slow
def test_tensorflow_is_not_loaded(
    index: Path, drawings: Path, tmp_path: Path, python_that_forbids: Callable[[str], list[str]]
) -> None:
    """Neither indexing nor searching needs it once the model is exported."""
    for arguments in (
        ["index", str(drawings), "--index-dir", str(tmp_path / "fresh"), "--model", "efficientnet-lite0"],
        ["search", str(drawings / "cold" / "00.jpg"), "--index-dir", str(index)],
    ):
        code = f"from searchengine.cli.main import main; raise SystemExit(main({arguments!r}))"
        subprocess.run(python_that_forbids(code), check=True, cwd=ROOT, capture_output=True)


@pytest.fixture
def python_that_forbids() -> Callable[[str], list[str]]:
    """Return the command of a Python in which importing TensorFlow or Keras is an error."""
    forbid = (
        "import sys\n"
        "class Forbid:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tensorflow', 'keras'):\n"
        "            raise AssertionError(name + ' was imported')\n"
        "sys.meta_path.insert(0, Forbid())\n"
    )
    return lambda code: [sys.executable, "-c", forbid + code]


def test_several_indexes_in_the_environment(
    index: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that take one index take the first, like the plain addresses of the page; comparisons take all."""
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", os.pathsep.join([str(index), str(tmp_path / "none")]))
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12
    assert main(["evaluate"]) == 1
    assert f"There is no index in {tmp_path / 'none'}" in capsys.readouterr().err
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", os.pathsep)  # none
    monkeypatch.chdir(tmp_path)
    assert main(["info"]) == 1
    assert "There is no index in index" in capsys.readouterr().err


def test_an_unknown_id(index: Path, capsys: Captured) -> None:
    assert main(["search", "--index-dir", str(index), "--id", "999"]) == 1
    assert "no image 999. Its ids are between 1 and 12; searchengine export lists them." in capsys.readouterr().err


def test_all_labels_and_the_metric_are_printed(drawings: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "labels.csv").write_text("path,label\ncold/00.jpg,sea\ncold/00.jpg,ship\nwarm/01.jpg,sun\n")
    index = ["--index-dir", str(tmp_path / "index")]
    making = ["--model", "efficientnet-lite0", "--labels", str(tmp_path / "labels.csv"), "--metric", "manhattan"]
    assert main(["index", str(drawings), *index, *making]) == 0
    capsys.readouterr()
    assert main(["info", *index]) == 0
    assert "metric     manhattan" in capsys.readouterr().out
    assert main(["search", str(drawings / "cold" / "00.jpg"), *index, "-k", "1"]) == 0
    assert "[sea, ship]" in capsys.readouterr().out
    assert main(["search", str(drawings / "cold" / "00.jpg"), *index, "-k", "12", "--json"]) == 0
    labels = {hit["path"]: hit["labels"] for hit in json.loads(capsys.readouterr().out)["hits"]}
    assert (labels["cold/00.jpg"], labels["warm/01.jpg"], labels["cold/02.jpg"]) == (["sea", "ship"], ["sun"], [])


def test_the_cache_of_exported_models(
    index: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["cache", "--json"]) == 0
    (used,) = (entry for entry in json.loads(capsys.readouterr().out) if str(index) in entry["indexes"])
    assert used["title"].startswith("EfficientNet-Lite0")
    assert used["size"] > 1_000_000
    assert main(["cache"]) == 0
    assert str(index) in capsys.readouterr().out
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(tmp_path))
    unused = tmp_path / "models" / "0123456789abcdef"
    unused.mkdir(parents=True)
    (unused / "model.bin").write_bytes(bytes(3_000_000))
    assert main(["cache", "--clear"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^damaged +3\.0 MB +\d{4}-\d\d-\d\d +no index$", out, re.MULTILINE)
    assert err == f"1 model, 3.0 MB, deleted from {tmp_path / 'models'}\n"
    assert not unused.exists()
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
