"""The contents of an index, for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from searchengine.engine import open_index
from searchengine.indexing import Summary

Update = Callable[..., Summary]


def contents(folder: Path) -> dict[str, tuple[list[float], str | None]]:
    """Return the feature and the label of each path."""
    index = open_index(folder)
    try:
        return {
            path: (row.tolist(), label)
            for path, row, label in zip(index.paths, index.features, index.labels, strict=True)
        }
    finally:
        index.close()


def ids(folder: Path) -> dict[str, int]:
    index = open_index(folder)
    try:
        return dict(zip(index.paths, index.ids.tolist(), strict=True))
    finally:
        index.close()


def age(folder: Path) -> None:
    """Set the times of all files to a minute ago."""
    then = time.time_ns() - 60 * 10**9
    for file in folder.rglob("*"):
        os.utime(file, ns=(then, then), follow_symlinks=False)
