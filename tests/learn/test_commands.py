"""``searchengine classify`` and ``searchengine recommend`` on real pictures with the packaged model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from searchengine.cli import offline_index
from searchengine.cli.main import main
from tests.analyse.filled import fill
from tests.conftest import draw

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def original(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert offline_index([str(drawings), "--index-dir", str(folder), "--model", "efficientnet-lite0", "--json"]) == 0
    return folder


@pytest.fixture
def index(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> Path:
    """A copy of the index that a test may change."""
    shutil.copytree(original, tmp_path / "index")
    monkeypatch.setenv("SEARCHENGINE_INDEX_DIR", str(tmp_path / "index"))
    capsys.readouterr()
    return tmp_path / "index"


def test_fit_and_report(index: Path, capsys: Said) -> None:
    pytest.importorskip("sklearn")
    assert main(["classify", "--fit"]) == 0
    out, err = capsys.readouterr()
    assert "12 labelled images" in out
    assert "95 % interval" in out
    assert "calibration error" in out
    assert "Fitted in" in err
    assert main(["classify", "--fit", "--json"]) == 0
    sheet = json.loads(capsys.readouterr().out)["classifier"]
    assert sheet["classes"] == ["cold", "warm"]
    assert sheet["logistic"]["images"] == 12
    assert not sheet["stale"]


def test_no_label_is_called_hard_where_every_held_out_image_was_right(tmp_path: Path, capsys: Said) -> None:
    pytest.importorskip("sklearn")
    features = (10 * np.eye(2)[np.arange(20) % 2] + np.arange(20)[:, None] * 1e-3).astype(np.float32)
    fill(tmp_path / "index", features, labels=["cat", "dog"] * 10).close()
    assert main(["classify", "--fit", "--index-dir", str(tmp_path / "index")]) == 0
    assert "hardest labels: none, every held-out image was right" in capsys.readouterr().out


def test_classify(index: Path, drawings: Path, tmp_path: Path, capsys: Said) -> None:
    pytest.importorskip("sklearn")
    broken, nowhere = drawings / "warm" / "broken.jpg", tmp_path / "nowhere.jpg"
    draw(1).save(tmp_path / "new.png")
    files = [str(broken), str(tmp_path / "new.png"), str(nowhere)]
    assert main(["classify", *files, "--id", "1", "--json", "-k", "3"]) == 1
    out, err = capsys.readouterr()
    first, unusable, good, missing = json.loads(out)["images"]
    assert "Fitting on 12 labelled images" in err
    assert "broken.jpg" in err
    assert "error" in unusable
    assert "cannot be read" in missing["error"]
    assert (first["image"], first["learnt_from_it"], first["label"]) == (1, True, "cold")
    assert sum(one["probability"] for one in good["logistic"]) == pytest.approx(1.0)
    assert good["logistic"][0]["label"] == "warm"  # identical to one of them
    assert sum(one["probability"] for one in good["vote"]) == pytest.approx(1.0)
    assert main(["classify", files[1]]) == 0  # by the stored classifier
    out, err = capsys.readouterr()
    assert "logistic regression  warm" in out
    assert "Fitting" not in err
    assert main(["classify", str(drawings / "warm" / "03.jpg"), "--json"]) == 0
    assert main(["classify", "--id", "8", "--json"]) == 0
    by_file, by_id = (
        json.loads(line)["images"][0] for line in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0")
    )
    assert by_file["vote"] == by_id["vote"]  # the file is an image of the index, so it has no vote for itself
    assert by_file["learnt_from_it"]
    assert main(["classify", "--id", "77"]) == 1
    assert "no image 77" in capsys.readouterr().err
    draw(50).save(drawings / "cold" / "50.jpg")
    try:
        assert offline_index([str(drawings), "--index-dir", str(index)]) == 0
        assert main(["classify", files[1], "--method", "logistic"]) == 0
        assert "have changed since" in capsys.readouterr().err
    finally:
        (drawings / "cold" / "50.jpg").unlink()


def test_without_scikit_learn(index: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["classify", "--id", "1"]) == 0
    out, err = capsys.readouterr()
    assert "nearest neighbours" in out
    assert "searchengine[learn]" in err
    assert main(["classify", "--fit"]) == 1
    assert "searchengine[learn]" in capsys.readouterr().err
    assert main(["classify", "--id", "1", "--method", "vote"]) == 0
    assert capsys.readouterr().err == ""


def test_wrong_usage(index: Path, drawings: Path, tmp_path: Path, capsys: Said) -> None:
    for wrong in (["classify"], ["classify", "--fit", "--method", "vote"], ["recommend", "--rule", "magic"]):
        assert main(wrong) == 2
    assert main(["recommend"]) == 1
    assert "at least one" in capsys.readouterr().err
    none = tmp_path / "none"
    assert (
        offline_index([str(drawings), "--index-dir", str(none), "--model", "efficientnet-lite0", "--labels", "none"])
        == 0
    )
    assert main(["classify", "--id", "1", "--index-dir", str(none)]) == 1
    assert "--labels" in capsys.readouterr().err
    for verb in ("classify", "recommend"):
        assert main([verb, "--help"]) == 0
        assert "Examples:" in capsys.readouterr().out


def test_recommend(index: Path, drawings: Path, capsys: Said) -> None:
    file = drawings / "warm" / "03.jpg"
    assert main(["recommend", "--like", "1", "--like", str(file), "--dislike", "2", "-k", "20", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["liked"], answer["disliked"], answer["rule"]) == ([1, str(file)], [2], "exemplar-svm")
    assert len(answer["hits"]) == 9  # of 12, without the three that were judged
    assert not {1, 2} & {hit["id"] for hit in answer["hits"]}
    assert "warm/03.jpg" not in [hit["path"] for hit in answer["hits"]]
    assert main(["recommend", "--query", "1", "--dislike", "2", "-k", "2", "--rule", "rocchio"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
