"""Shared by all tests here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.torture.forks import Forks


def sizes(variable: str, short: int, long: int) -> list[Any]:
    """Values to parametrize a test by: a short form, and the long form of docs/TORTURE.md for `make torture-all`.

    An environment variable of that name replaces both.
    """
    if variable in os.environ:
        return [int(os.environ[variable])]
    return [short, pytest.param(long, marks=pytest.mark.longest)]


@pytest.hookimpl(trylast=True)  # after that of tests/conftest.py
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take longest first, so that no worker begins one when the others have nothing left to do."""
    items.sort(key=lambda item: item.path.name not in {"test_serving.py", "test_killed.py"})


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of runs that flush all they write need no real disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 50 * 2**20:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
