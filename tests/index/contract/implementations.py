"""The implementations of ``searchengine.index.protocol`` that the contract tests run on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from searchengine.index import building
from searchengine.index.approximate import STRUCTURE
from searchengine.index.local import LocalIndex
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.milvus.connection import STRONG, Connection
from searchengine.index.milvus.schema import ABOUT
from searchengine.index.protocol import Index, Writer
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from tests.milvus import MilvusServer, server


@dataclass(frozen=True)
class Implementation:
    """How to create an empty index at a path, from its manifest and dimension, and how to open it for reading.

    ``examples`` is the number of random collections to try.
    """

    name: str
    create: Callable[[Path, dict[str, str], int], Writer]
    open: Callable[[Path], Index]
    examples: int = 60


class WriterWithStructure(IndexWriter):
    """Builds the structure for approximate search after the first commit, so that later images are new to it."""

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> None:
        super().commit(batch, manifest)
        if self.count() and STRUCTURE.identity(self.folder) is None:
            with closing(LocalIndex.open(self.folder)) as index:
                building.build(self.folder, index.state())


_empty: dict[MilvusServer, str] = {}  # the description of its collection while that is empty


def empty_milvus(manifest: dict[str, str], dimension: int) -> MilvusWriter:
    """Empty and open the collection that all tests share, because creating another takes seven seconds."""
    address = server().address("contract")
    with closing(Connection(address, consistency=STRONG, timeout=60)) as connection:
        if server() not in _empty:
            MilvusWriter.create(address, manifest, dimension=dimension).close()
            _empty[server()] = connection.about() or ""
        connection.ask(lambda client: client.delete(connection.images, filter="place >= 0", timeout=60))
        connection.ask(lambda client: client.delete(connection.whole, filter='key >= ""', timeout=60))
        connection.put_about({ABOUT: _empty[server()]})
        assert connection.count("place >= 0") == 0
        assert connection.about() == _empty[server()]
    return MilvusWriter.open(address)


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
            lambda place, manifest, dimension: empty_milvus(manifest, dimension),
            lambda place: MilvusIndex(server().address("contract"), place),
            examples=6,
        ),
        marks=[pytest.mark.longest],
    ),
]
