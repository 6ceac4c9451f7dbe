"""Evaluations stored with an index and read again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.analyse.evaluation import (
    EVALUATION,
    keep_evaluation,
    leave_one_out,
    load_evaluation,
)
from searchengine.analyse.evaluation.results import Evaluation
from searchengine.cli.main import main
from searchengine.errors import IndexDamagedError
from searchengine.index.local import LocalIndex
from tests.analyse.filled import fill
from tests.web.mapped import fill_index


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return fill_index(tmp_path, 30, mislabelled=1)


def test_it_is_read_back(index: LocalIndex) -> None:
    assert load_evaluation(index) is None
    evaluation = leave_one_out(index)
    keep_evaluation(index, evaluation)
    kept = load_evaluation(index)
    assert kept is not None
    assert not kept.stale
    assert kept.evaluation.figures == evaluation.figures
    assert kept.evaluation.classes == evaluation.classes
    assert kept.evaluation.confusion == evaluation.confusion
    assert kept.evaluation.counts == evaluation.counts

    def places(of: Evaluation) -> list[Any]:
        return [
            (place.rank, place.distance, place.relevant, place.picture.path, place.picture.labels)
            for example in (
                *(hard.example for hard in of.hardest),
                *(one for pair in of.confused for one in pair.examples),
            )
            for place in example.places
        ]

    assert places(kept.evaluation) == places(evaluation)
    # A path stored in an index must not be opened.
    assert {place.picture.file for hard in kept.evaluation.hardest for place in hard.example.places} == {None}
    paths = {hard.example.query.path for hard in kept.evaluation.hardest}
    records = index.records([kept.ids[path] for path in sorted(paths)])
    assert [record.path for record in records] == sorted(paths)


def test_it_knows_when_the_index_has_changed(index: LocalIndex, tmp_path: Path) -> None:
    keep_evaluation(index, leave_one_out(index))
    fill(tmp_path / "index", np.empty((0, 6), np.float32), gone=[1])
    kept = load_evaluation(index)
    assert kept is not None
    assert kept.stale


def _changed(sheet: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    at = sheet
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return sheet


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: json.dumps(_changed(json.loads(text), "evaluation", "figures", 0, "value", to="much")),
        lambda text: json.dumps(_changed(json.loads(text), "evaluation", "classes", 0, "images", to=1.5)),
        lambda text: json.dumps(_changed(json.loads(text), "confusion", to=[[1, 2]])),
    ],
)
def test_a_damaged_file_is_reported_with_the_command_that_fixes_it(index: LocalIndex, spoil: Any) -> None:
    file = keep_evaluation(index, leave_one_out(index))
    file.write_text(spoil(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(IndexDamagedError, match="compute it again: searchengine evaluate"):
        load_evaluation(index)


def test_the_command_keeps_what_the_page_shows(
    index: LocalIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["searchengine"])
    # An evaluation by another metric does not describe the searches of the page.
    assert main(["evaluate", "--index-dir", str(index.folder), "--metric", "manhattan"]) == 0
    assert not (index.folder / EVALUATION.file).exists()
    assert main(["evaluate", "--index-dir", str(index.folder)]) == 0
    output = capsys.readouterr()
    assert "shown at /evaluation" in output.err
    kept = load_evaluation(index)
    assert kept is not None
    assert f"{kept.evaluation.figure('mAP').value:.3f}" in output.out
