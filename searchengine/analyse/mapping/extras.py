"""The one sentence for a library that is missing."""

from __future__ import annotations

import importlib
from typing import Any

from searchengine.errors import IndexingError


def needed(module: str, package: str) -> Any:
    """A module of the ``map`` extra; IndexingError names the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise IndexingError(f"This needs {package}. Install it with: pip install 'searchengine[map]'") from error
