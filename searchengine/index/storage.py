"""Opens an index for reading or writing, wherever it lies: the only place that knows a folder from a server."""

from __future__ import annotations

import contextlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from searchengine.address import Address, AnyAddress, MilvusAddress, parse_address
from searchengine.index import building, lock
from searchengine.index.database import shares_memory
from searchengine.index.local import LocalIndex
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.protocol import Index, Writer
from searchengine.index.writer import IndexWriter
from searchengine.progress import Progress, Say

_NOTE = "address.txt"


class Storage(Protocol):
    """Where an index lies, or will."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """For messages and commands."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where this machine keeps what is computed from the index."""

    @property
    def no_rebuild(self) -> str:
        """Why an index cannot be made again while the old one answers; empty if it can."""
        return ""

    @property
    def remark(self) -> str:
        """What a run should say of the place; or empty."""
        return ""

    @contextlib.contextmanager
    def writing(self, started: str) -> Iterator[None]:
        """Hold the lock of the folder; the errors of ``lock.writing``."""
        with lock.writing(self.folder, started):
            yield

    @abstractmethod
    def read(self, images_dir: Path | None = None, *, exact: bool = False) -> Index:
        """Open it for reading; ``exact``: without the structure for approximate search. IndexError_."""

    @abstractmethod
    def write(self, say: Say) -> Writer:
        """Open it to be changed; the caller holds the lock. The errors of ``read``."""

    def keep_up(self, ann: str, progress: Progress) -> None:
        """Bring the structure for approximate search up to date, where it is kept beside the index."""
        return

    @abstractmethod
    def create(self, manifest: dict[str, str], *, dimension: int, last_id: int, say: Say) -> Writer:
        """Make it; the caller holds the lock."""


class _Folder(Storage):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def address(self) -> Path:
        return self._folder

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def remark(self) -> str:
        if shares_memory(self._folder):
            return ""
        return (
            f"The file system of {self._folder} does not let programs share memory (a network disk, or FUSE). The "
            "index keeps a journal instead of a log: all works, but a server waits whenever a batch is written."
        )

    def read(self, images_dir: Path | None = None, *, exact: bool = False) -> LocalIndex:
        return LocalIndex.open(self._folder, images_dir=images_dir, exact=exact)

    def keep_up(self, ann: str, progress: Progress) -> None:
        building.keep_up(self._folder, ann, progress)

    def write(self, say: Say) -> IndexWriter:
        return IndexWriter.open(self._folder)

    def create(self, manifest: dict[str, str], *, dimension: int, last_id: int, say: Say) -> IndexWriter:
        return IndexWriter.create(self._folder, manifest, dimension=dimension, last_id=last_id)


class _Milvus(Storage):
    def __init__(self, address: MilvusAddress) -> None:
        self._address = address

    @property
    def address(self) -> MilvusAddress:
        return self._address

    @property
    def folder(self) -> Path:
        """In the cache folder."""
        from searchengine.settings import load_settings

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{self._address.host}-{self._address.port}-{self._address.collection}")
        return load_settings(only=("cache_dir",)).cache_root / "milvus" / name

    @property
    def no_rebuild(self) -> str:
        return (
            "--rebuild is not offered for an index in Milvus. Index into another collection, then serve that one and "
            "drop the old."
        )

    @contextlib.contextmanager
    def writing(self, started: str) -> Iterator[None]:
        with lock.writing(self.folder, started):
            self._note()
            yield

    def _note(self) -> None:
        """Say in the folder what it belongs to."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _NOTE).write_text(f"What was computed on this machine from {self._address}\n")

    def read(self, images_dir: Path | None = None, *, exact: bool = False) -> MilvusIndex:
        self._note()
        return MilvusIndex(self._address, self.folder, images_dir)

    def write(self, say: Say) -> MilvusWriter:
        return MilvusWriter.open(self._address, say)

    def create(self, manifest: Mapping[str, str], *, dimension: int, last_id: int, say: Say) -> MilvusWriter:
        return MilvusWriter.create(self._address, manifest, dimension=dimension, last_id=last_id, say=say)


def storage_of(address: AnyAddress) -> Storage:
    """The storage of an address: a folder, or ``milvus://HOST:PORT/COLLECTION``; AddressError."""
    place = parse_address(address)
    return _Milvus(place) if isinstance(place, MilvusAddress) else _Folder(place)
