"""The implementations of ``searchengine.index.protocol``, each as what the contract needs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from searchengine.index.local import LocalIndex
from searchengine.index.protocol import Index, Writer
from searchengine.index.writer import IndexWriter


@dataclass(frozen=True)
class Implementation:
    """How to make an empty index at a place, from its manifest and dimension, and how to open it for reading."""

    name: str
    create: Callable[[Path, dict[str, str], int], Writer]
    open: Callable[[Path], Index]


IMPLEMENTATIONS = [
    Implementation(
        "local",
        lambda place, manifest, dimension: IndexWriter.create(place, manifest, dimension=dimension),
        LocalIndex.open,
    )
]
