"""The tests themselves: no setting of whoever runs them reaches one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchengine.settings import Settings, load_settings, variable


@pytest.fixture(scope="module", autouse=True)
def theirs() -> Iterator[None]:
    """Set before a test begins, as by a shell."""
    with pytest.MonkeyPatch.context() as shell:
        for field in Settings.model_fields:
            shell.setenv(variable(field), "7")
        yield


def test_all_settings_are_the_defaults() -> None:
    assert load_settings() == Settings(cache_dir=Path(os.environ["SEARCHENGINE_CACHE_DIR"]))
    assert os.environ["SEARCHENGINE_CACHE_DIR"] != "7"
