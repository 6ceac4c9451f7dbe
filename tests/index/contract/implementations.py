"""The implementations of ``searchengine.index.protocol``, each as what the contract needs of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from searchengine.index import building
from searchengine.index.local import LocalIndex
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.protocol import Index, Writer
from searchengine.index.structure import STRUCTURE
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from tests.milvus import collection_of, server


@dataclass(frozen=True)
class Implementation:
    """How to make an empty index at a place, from its manifest and dimension, and how to open it for reading.

    ``examples``: how many collections of photos are tried.
    """

    name: str
    create: Callable[[Path, dict[str, str], int], Writer]
    open: Callable[[Path], Index]
    examples: int = 60


class WriterWithStructure(IndexWriter):
    """Builds the structure for approximate search with the first images; what comes later is new to it."""

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> None:
        super().commit(batch, manifest)
        if self.count() and STRUCTURE.identity(self.folder) is None:
            with closing(LocalIndex.open(self.folder)) as index:
                building.build(self.folder, index.state())


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
    pytest.param(
        Implementation(
            "milvus",
            lambda place, manifest, dimension: MilvusWriter.create(
                server().address(collection_of(place)), manifest, dimension=dimension
            ),
            lambda place: MilvusIndex(server().address(collection_of(place)), place),
            examples=6,
        ),
        marks=[pytest.mark.longest],
    ),
]
