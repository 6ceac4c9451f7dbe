"""Fixtures of the tests of approximate search."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.index.structured import built, features, filled


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Of 300 images, with a structure."""
    folder = filled(tmp_path / "small", features(300))
    built(folder)
    return folder
