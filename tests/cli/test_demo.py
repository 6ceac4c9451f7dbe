"""``searchengine demo``: the folder for its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from searchengine.cli.main import main


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_a_file_in_place_of_the_folder_is_reported(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--dir", str(tmp_path / place)]) == 1
    err = capsys.readouterr().err
    assert f"{tmp_path / place} cannot be" in err
    assert "Name another folder: --dir" in err
    assert err.count("\n") == 1


def test_a_read_only_folder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    was = os.mkdir
    kept = tmp_path / "kept"
    kept.mkdir()

    def refusing(path: str | Path, *rest: int) -> None:  # the superuser may write everywhere
        if kept in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        was(path, *rest)

    monkeypatch.setattr(os, "mkdir", refusing)
    assert main(["demo", "--dir", str(kept)]) == 1
    err = capsys.readouterr().err
    assert f"{kept} cannot be written to (Permission denied). Name another folder: --dir" in err
