"""The tools of the benchmarks: their ratios and tables. No test asserts a time."""

from __future__ import annotations

import importlib
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the scripts import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == ROOT / "benchmarks":
            del sys.modules[name]


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_page_has_marks_for_every_table() -> None:
    every = script("every")
    every.check_marks(ROOT / "docs" / "BENCHMARKS.md", [*every.RUNS, "machine"])
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in every.RUNS)


def test_a_table_replaces_only_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\n<!-- /b -->\nafter\n")
    splice = script("every").splice
    splice(file, "a", "new")
    splice(file, "b", "other")
    splice(file, "b", "another")
    assert file.read_text() == (
        "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nbetween\n<!-- b -->\n\nanother\n\n<!-- /b -->\nafter\n"
    )


def test_missing_marks_are_reported_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="<!-- a -->"):
        script("every").check_marks(tmp_path / "nothing.md", ["a"])


def test_a_ratio_is_the_median_of_the_ratios_round_by_round() -> None:
    timing = script("measuring").Timing
    mine, theirs = timing((1.0, 2.0, 30.0), (1.0, 1.0, 1.0)), timing((2.0, 6.0, 30.0), (4.0, 2.0, 8.0))
    assert theirs.over(mine) == 2.0
    assert theirs.processor_over(mine) == 4.0
    assert mine.wall == 2.0


def test_alternatives_take_turns() -> None:
    done: list[str] = []
    timings = script("measuring").in_turn({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 3)
    assert done == ["a", "b"] * 4  # the first round is not counted
    assert [len(timings[name].walls) for name in "ab"] == [3, 3]


def test_percentiles_are_measured_values() -> None:
    percentile = script("measuring").percentile
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(range(101)), 0.95) == 95
    assert percentile([7.0], 0.95) == 7.0


def test_photos_differ_and_have_the_requested_size(tmp_path: Path) -> None:
    files = script("photos").write_photos(tmp_path, 3, (96, 64))
    pixels = [np.asarray(Image.open(file)) for file in files]
    assert [p.shape for p in pixels] == [(64, 96, 3)] * 3
    assert not np.array_equal(pixels[0], pixels[1])
    assert pixels[0].std() > 20  # no grey card


def test_a_plot_is_complete_and_shows_its_numbers(tmp_path: Path) -> None:
    growth = script("growth")
    lines = [growth.Line("this", [10, 1000], [0.5, 20]), growth.Line("<that>", [10, 1000], [5, 2000])]
    growth.write_plot(tmp_path / "plot.svg", "title & more", "images", lines)
    text = "".join(ET.parse(tmp_path / "plot.svg").getroot().itertext())
    for number in ("0.5", "20", "2,000", "1,000", "<that>", "title & more"):
        assert number in text


def test_random_features_are_of_length_one() -> None:
    from searchengine.extractors import make_spec

    rows = (
        script("servers")
        .RandomExtractor(make_spec("efficientnet-lite0"), 12)
        .embed(np.zeros((5, 1, 1, 3), dtype=np.uint8))
    )
    assert rows.shape == (5, 12)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (rows >= 0).all()


def test_retrieval_is_measured_as_the_product_measures() -> None:
    from searchengine.analyse.evaluation import evaluate_features

    random = np.random.default_rng(0)
    for count in (6, 60):  # with fewer than ten others too
        features = random.standard_normal((count, 4)).astype(np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        labels = np.arange(count) % 3
        scores = script("retrieval").leave_one_out(features, labels)
        expected = evaluate_features(features, [str(label) for label in labels], metric="cosine")
        for name, found in (("mAP", scores.average_precision), ("P@1", scores.first), ("P@10", scores.first_ten)):
            assert found.mean() == pytest.approx(expected[name])


def test_estimates_for_large_collections_follow_from_the_measured_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale, page = script("scale"), tmp_path / "SCALE.md"
    page.write_bytes((ROOT / "docs" / "SCALE.md").read_bytes())
    monkeypatch.setattr(scale, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["scale.py"])
    scale.main()
    assert page.read_text() == (ROOT / "docs" / "SCALE.md").read_text()
