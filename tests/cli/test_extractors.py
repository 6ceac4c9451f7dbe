"""Without --model, the flags of an extractor speak of the model that the index has."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from searchengine.cli.indexing import _extractor, add_flags
from searchengine.cli.main import main
from searchengine.extractors import ExtractorSpec, make_spec, own
from searchengine.extractors.backbones import LayerInfo
from searchengine.index import mending
from searchengine.index.mending import Recorded

Said = pytest.CaptureFixture[str]


def asked(*flags: str) -> ExtractorSpec:
    """What the flags ask for, of an index that is there."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return _extractor(parser.parse_args(["photos", *flags]))[0]


@pytest.mark.parametrize("flags", [["--normalize", "none"], ["--layer", "fc1"], ["--pooling", "gem"]])
def test_an_index_of_the_compact_model(flags: list[str], index: Path, drawings: Path, capsys: Said) -> None:
    assert main(["index", str(drawings), "--index-dir", str(index), *flags]) == 1
    err = capsys.readouterr().err
    assert "ompact" in err
    assert "VGG16" not in err


def test_scaled_decoding_is_what_the_compact_model_does(index: Path, drawings: Path) -> None:
    assert main(["index", str(drawings), "--index-dir", str(index), "--scaled-decoding"]) == 0


def test_a_rebuild_keeps_the_model(drawings: Path, tmp_path: Path, capsys: Said) -> None:
    command = ["index", str(drawings), "--index-dir", str(tmp_path)]
    assert main([*command, "--model", "compact"]) == 0
    assert main([*command, "--normalize", "none", "--rebuild"]) == 0
    capsys.readouterr()
    assert main(["info", "--index-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "ompact" in out
    assert "not normalised" in out


def test_only_what_is_asked_for_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_spec("resnet50", layer="conv4_block6_out", pooling="gem", normalize="none", full_decode=False)
    monkeypatch.setattr(mending, "recorded", lambda folder: Recorded(made, "", (), None, None))
    assert asked() == made
    assert asked("--normalize", "l2") == make_spec(
        "resnet50", layer="conv4_block6_out", pooling="gem", full_decode=False
    )
    assert asked("--pooling", "avg").pooling == "avg"
    assert asked("--pooling", "avg").layer == "conv4_block6_out"
    assert asked("--layer", "avg_pool") == make_spec("resnet50", layer="avg_pool", normalize="none", full_decode=False)
    assert asked("--model", "vgg16") == make_spec("vgg16")
    monkeypatch.setattr(mending, "recorded", lambda folder: None)
    assert asked("--normalize", "none") == make_spec("vgg16", normalize="none")


def test_an_index_of_a_model_file(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerInfo("top", "Dense", (8,))
    found = SimpleNamespace(layers={"top": layer}, output=layer, input_size=None, sha256="0" * 64)
    monkeypatch.setattr(own, "describe", lambda file: found)
    made = make_spec("mine.keras", layer="top", preprocessing="unit", input_size=64)
    monkeypatch.setattr(mending, "recorded", lambda folder: Recorded(made, "mine.keras", (), None, None))
    assert asked("--normalize", "none") == replace(made, normalize="none")
    assert asked("--input-size", "96") == replace(made, input_size=(96, 96))
    assert asked("--preprocessing", "tf") == replace(made, preprocessing="tf")
