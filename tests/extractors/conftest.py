from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_dir(isolated: None, cache_dir_of_the_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start every test with a cache without models and without published weights.

    Only the layers of networks are shared, because listing those of one network takes seconds.
    """
    layers = cache_dir_of_the_run / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "layers").symlink_to(layers)
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(cache))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return cache
