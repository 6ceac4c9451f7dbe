"""How far a long computation is, and the one sentence for a library that is missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from searchengine.errors import IndexingError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and how far it goes."""


def quiet(what: str, done: int, total: int) -> None:
    """Says nothing."""


def needed(module: str, package: str) -> Any:
    """A module of the ``map`` extra; IndexingError names the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise IndexingError(f"This needs {package}. Install it with: pip install 'searchengine[map]'") from error
