"""Fixtures for the tests of approximate search."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.index.structured import built, features, filled


@pytest.fixture(scope="package")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = filled(tmp_path_factory.mktemp("built") / "small", features(300))
    built(folder)
    return folder


@pytest.fixture
def small(built_once: Path, tmp_path: Path) -> Path:
    """A copy of an index of 300 images with a structure."""
    return shutil.copytree(built_once, tmp_path / "small")
