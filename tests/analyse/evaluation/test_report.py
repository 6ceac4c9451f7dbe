"""The command, and the report that it writes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from searchengine.analyse.evaluation.report import check_report
from searchengine.cli.main import main
from searchengine.errors import IndexingError
from searchengine.exchange import import_features
from tests.analyse.evaluation.conftest import Make
from tests.fakes import FakeExtractor, picture

Said = pytest.CaptureFixture[str]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, ids are unique, and nothing is loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        if known.get("id"):
            self.ids.append(str(known["id"]))
        self.addresses += [str(known[name]) for name in ("src", "href") if known.get(name)]
        assert tag != "img" or known.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_index(colours: Path, tmp_path: Path, capsys: Said) -> None:
    report = tmp_path / "out" / "report.html"
    assert main(["evaluate", "--index-dir", str(colours), "--report", str(report)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^mAP +0\.\d{3} +0\.\d{3} to ", out, re.M)
    assert "Hardest classes" in out
    page = Page(report.read_text(encoding="utf-8"))
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)


def test_several_indexes_and_metrics(indexed: Make, tmp_path: Path, capsys: Said) -> None:
    random = np.random.default_rng(0)
    labels = ["<b>a&b</b>", "b", "c"] * 10
    for name in ("one", "two"):
        indexed(name, random.standard_normal((30, 4)).tolist(), labels).close()
    report = tmp_path / "r.html"
    dirs = ["--index-dir", str(tmp_path / "one"), "--index-dir", str(tmp_path / "two")]
    assert main(["evaluate", *dirs, "--metric", "euclidean", "cosine", "--json", "--report", str(report)]) == 0
    output = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in output["evaluations"]] == [
        "one, euclidean", "one, cosine", "two, euclidean", "two, cosine",
    ]  # fmt: skip
    assert len(output["comparisons"]) == 6
    text = report.read_text(encoding="utf-8")
    assert Page(text).addresses == []
    assert "<b>a&b" not in text
    assert "no picture" in text


def test_queries(colours: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchengine.engine.ExtractorRecipe.load", lambda recipe: FakeExtractor())
    (tmp_path / "q" / "red").mkdir(parents=True)
    (tmp_path / "q" / "red" / "x.png").write_bytes(picture((240, 1, 0)))
    assert main(["evaluate", "--index-dir", str(colours), "--queries", str(tmp_path / "q"), "--recall-at", "2"]) == 0
    out = capsys.readouterr().out
    assert "query folder: 1 query image against the 8 of the index, 2 labels\n" in out
    assert "recall@2 " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index-dir", "nowhere"], "nowhere"),
        (["--index-dir", "colours", "--queries", "nowhere"], "does not exist"),
        (["--index-dir", "colours", "--report", "."], "is a folder"),
        (["--index-dir", "colours", "--seed", "-1"], "--seed"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str], message: str, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(colours.parent)
    assert main(["evaluate", *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1


def test_imported_features_cannot_be_queried_with_images(tmp_path: Path, capsys: Said) -> None:
    np.savez(tmp_path / "line.npz", features=np.eye(3), labels=["a", "a", "b"])
    import_features(tmp_path / "line.npz", tmp_path / "line")
    (tmp_path / "q" / "a").mkdir(parents=True)
    (tmp_path / "q" / "a" / "x.png").write_bytes(picture((240, 1, 0)))
    assert main(["evaluate", "--index-dir", str(tmp_path / "line"), "--queries", str(tmp_path / "q")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexingError, match="cannot be written"):
        check_report(tmp_path / "file" / "report.html")
    check_report(tmp_path / "new" / "folder" / "report.html")
