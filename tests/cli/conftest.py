"""A small index for the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchengine.cli import offline_index


@pytest.fixture(scope="package")
def index(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the drawings by the packaged model."""
    folder = tmp_path_factory.mktemp("index")
    assert offline_index([str(drawings), "--index-dir", str(folder), "--model", "efficientnet-lite0", "--json"]) == 0
    return folder
