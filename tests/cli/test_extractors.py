"""Without --model, the flags of an extractor refer to the model of the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchengine.cli.main import main

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("flags", [["--normalize", "none"], ["--layer", "fc1"], ["--pooling", "gem"]])
def test_an_index_of_a_packaged_model(flags: list[str], index: Path, drawings: Path, capsys: Captured) -> None:
    assert main(["index", str(drawings), "--index-dir", str(index), *flags]) == 1
    err = capsys.readouterr().err
    assert "EfficientNet-Lite0" in err
    assert "VGG16" not in err


def test_scaled_decoding_is_the_default_of_a_packaged_model(index: Path, drawings: Path) -> None:
    assert main(["index", str(drawings), "--index-dir", str(index), "--scaled-decoding"]) == 0


def test_a_rebuild_keeps_the_model(drawings: Path, tmp_path: Path, capsys: Captured) -> None:
    command = ["index", str(drawings), "--index-dir", str(tmp_path)]
    assert main([*command, "--model", "efficientnet-lite0"]) == 0
    assert main([*command, "--normalize", "none", "--rebuild"]) == 0
    capsys.readouterr()
    assert main(["info", "--index-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "EfficientNet-Lite0" in out
    assert "not normalised" in out
