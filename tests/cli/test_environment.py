"""The tests are isolated from the settings of the person who runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchengine.settings import Settings, load_settings, variable


@pytest.fixture(scope="module", autouse=True)
def theirs() -> Iterator[None]:
    """Set variables before the tests, as a shell would."""
    with pytest.MonkeyPatch.context() as shell:
        for field in Settings.model_fields:
            shell.setenv(variable(field), "7")
        yield


def test_all_settings_are_the_defaults() -> None:
    assert load_settings() == Settings(cache_dir=Path(os.environ["SEARCHENGINE_CACHE_DIR"]))
    assert os.environ["SEARCHENGINE_CACHE_DIR"] != "7"
