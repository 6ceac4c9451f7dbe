"""Runs whose files are read and embedded by actors of Ray, beside the same runs without it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.extractors import Extractor, extractor_from_spec
from searchengine.images import DecodedImage
from searchengine.indexing import IndexingOptions, Summary
from searchengine.indexing.model import Recipe, RunExtractor
from searchengine.indexing.run import update_with
from searchengine.progress import Quiet, Say
from tests.conftest import draw
from tests.extractors.tiny import SPEC, put_tiny_model
from tests.torture.looking import contents

KILLER = b"killer"


class Fragile:
    """An extractor in a process that dies of some files."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor

    def preprocess(self, data: bytes) -> DecodedImage:
        if data.endswith(KILLER):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.extractor.preprocess(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.extractor, name)


@dataclass(frozen=True, slots=True)
class FragileRecipe(Recipe):
    def load(self, say: Say) -> Any:
        return Fragile(extractor_from_spec(self.spec, precision=self.precision, progress=say))


class Remarks(Quiet):
    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []
        self.said: list[str] = []

    def skipped(self, path: str, reason: str) -> None:
        self.refused.append((path, reason))

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture(autouse=True)
def place_of_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where Ray keeps its sockets, whose paths must be short; nothing of another Ray is seen there."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    put_tiny_model()
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        draw(i).save(folder / f"{i:02d}.jpg")
    shutil.copyfile(folder / "07.jpg", folder / "copy.jpg")
    (folder / "no image.jpg").write_bytes(b"no image")
    return folder


def run(photos: Path, index: Path, progress: Quiet | None = None, **options: Any) -> Summary:
    extractor = RunExtractor(FragileRecipe(SPEC), print)
    return update_with(extractor, [photos], index, IndexingOptions(**options), progress or Quiet())


def features(index: Path) -> np.ndarray:
    return np.load(index / "features.npy")


@pytest.mark.torture
def test_the_index_is_that_of_a_run_without_ray(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(photos, tmp_path / "local")
    killer = "31 killer.jpg"  # a worker that reads it dies, and those in its place
    (photos / killer).write_bytes((photos / "31.jpg").read_bytes() + KILLER)
    remarks = Remarks()
    done = run(photos, tmp_path / "ray", remarks, ray="auto", ray_actors=2)
    assert (done.images, done.added, done.embedded, done.skipped) == (61, 61, 60, 2)
    assert dict(remarks.refused)[killer].startswith("3 processes of Ray died while they read it.")
    local, same = contents(tmp_path / "local"), contents(tmp_path / "ray")
    assert (same.ids, same.skipped) == (local.ids, local.skipped | {killer})
    assert {path: replace(row, feature=()) for path, row in same.rows.items()} == {
        path: replace(row, feature=()) for path, row in local.rows.items()
    }
    np.testing.assert_allclose(features(tmp_path / "ray"), features(tmp_path / "local"), rtol=1e-5)
    assert capfd.readouterr() == ("", "")
