"""The implementations of ``searchengine.index.protocol``, each as what the contract needs of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from searchengine.index import building
from searchengine.index.local import LocalIndex
from searchengine.index.protocol import Index, Writer
from searchengine.index.structure import STRUCTURE
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter


@dataclass(frozen=True)
class Implementation:
    """How to make an empty index at a place, from its manifest and dimension, and how to open it for reading."""

    name: str
    create: Callable[[Path, dict[str, str], int], Writer]
    open: Callable[[Path], Index]


class WriterWithStructure(IndexWriter):
    """Builds the structure for approximate search with the first images; what comes later is new to it."""

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> int:
        first = super().commit(batch, manifest)
        if self.count() and STRUCTURE.identity(self.folder) is None:
            with closing(LocalIndex.open(self.folder)) as index:
                building.build(self.folder, index.state())
        return first


IMPLEMENTATIONS = [
    Implementation(
        "local",
        lambda place, manifest, dimension: IndexWriter.create(place, manifest, dimension=dimension),
        LocalIndex.open,
    ),
    Implementation(
        "approximate",
        lambda place, manifest, dimension: WriterWithStructure.create(place, manifest, dimension=dimension),
        LocalIndex.open,
    ),
]
