"""A folder of photos, and runs over it with a fake extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchengine.extractors import ExtractorSpec
from searchengine.indexing import IndexingOptions, Summary, update_index
from tests.fakes import SPEC, FakeExtractor
from tests.indexing.looking import Update


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def update(tmp_path: Path, photos: Path) -> Update:
    def run(*folders: Path, spec: ExtractorSpec = SPEC, index: str = "index", **options: Any) -> Summary:
        return update_index(
            folders or [photos],
            tmp_path / index,
            extractor=FakeExtractor(spec),
            options=IndexingOptions(**{"batch_size": 3, **options}),
        )

    return run
