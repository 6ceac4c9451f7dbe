"""A folder of photos, and runs over it with a fake extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchengine.extractors import ExtractorSpec
from searchengine.indexing import IndexingOptions, Summary, update_index
from tests.fakes import SPEC, FakeExtractor, Sentences
from tests.indexing.looking import Update


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def progress() -> Sentences:
    return Sentences()


@pytest.fixture
def update(tmp_path: Path, photos: Path, progress: Sentences) -> Update:
    """Return a function that updates an index of photos; ``progress`` has what the latest run said."""

    def run(*folders: Path, spec: ExtractorSpec = SPEC, index: str = "index", **options: Any) -> Summary:
        progress.said.clear()
        return update_index(
            folders or [photos],
            tmp_path / index,
            extractor=FakeExtractor(spec),
            options=IndexingOptions(**{"batch_size": 3, **options}),
            progress=progress,
        )

    return run
