"""Opens an index for reading or writing, one writer at a time, whether it is a folder or a collection in Milvus."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from searchengine.address import Address, AnyAddress, MilvusAddress, parse_address
from searchengine.errors import IndexingError, IndexLockedError
from searchengine.files import locked, parse_json
from searchengine.index import building, column_reader
from searchengine.index.catalog import LOCK_NAME
from searchengine.index.database import shares_memory
from searchengine.index.local import LocalIndex
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.protocol import Index, Writer
from searchengine.index.writer import IndexWriter
from searchengine.progress import Progress, Say

_NOTE = "address.txt"
_HOLDER_NAME = "writer.json"  # separate from the lock file, which cannot be read on Windows
_PATIENCE = 0.75  # seconds to wait for the lock, which a reader that looks for an active run holds for an instant
_TRIES = 1000  # attempts to make the folder while other runs remove it


class Storage(ABC):
    """The place of an index, which may not exist yet.

    Attributes:
        address: where it is, for messages and commands.
        folder: where this machine keeps data computed from the index.
        no_rebuild: the reason if an index cannot be rebuilt there, else empty.
    """

    address: Address
    folder: Path
    no_rebuild = ""

    @property
    def remark(self) -> str:
        """A remark for the user about the place, or empty."""
        return ""

    @contextlib.contextmanager
    def writing(self, started: str) -> Iterator[None]:
        """Hold the lock of the folder, which is made if it is missing, and removed again if it stays empty.

        The system releases the lock when its holder dies. Child processes do not inherit it (PEP 446), so one that
        outlives a killed run does not hold it.

        Raises:
            IndexLockedError: another run holds the lock; the message names it.
            IndexingError: the folder cannot be written to.
        """
        new_folders = [place for place in (self.folder, *self.folder.parents) if not os.path.lexists(place)]
        lock = _acquire(self.folder)
        try:
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": started}
            with contextlib.suppress(OSError):  # on a full disk, the message of another run does not name this one
                (self.folder / _HOLDER_NAME).write_text(json.dumps(holder))
            yield
        finally:
            with contextlib.suppress(OSError):
                (self.folder / _HOLDER_NAME).unlink()
            lock.close()
            with contextlib.suppress(OSError):  # not empty if there is an index now
                for place in new_folders:
                    place.rmdir()

    @abstractmethod
    def read(self, images_dir: Path | None = None, *, exact: bool = False) -> Index:
        """Open the index for reading; ``exact`` ignores the structure for approximate search. IndexError_."""

    @abstractmethod
    def write(self, say: Say) -> Writer:
        """Open the index for writing; the caller holds the lock. IndexError_."""

    @abstractmethod
    def create(self, manifest: dict[str, str], *, dimension: int, last_id: int, say: Say) -> Writer:
        """Create an empty index; the caller holds the lock."""

    def update_derived(self, ann: str, progress: Progress) -> None:
        """Update the data beside an index that make searches quick; for ``ann`` see ``building.update_structure``."""
        return


class _Folder(Storage):
    def __init__(self, folder: Path) -> None:
        self.address = self.folder = folder

    @property
    def remark(self) -> str:
        if shares_memory(self.folder):
            return ""
        return (
            f"The file system of {self.folder} does not let programs share memory (a network disk, or FUSE). The "
            "index uses a journal instead of a log: everything works, but a server waits while a batch is written."
        )

    def read(self, images_dir: Path | None = None, *, exact: bool = False) -> LocalIndex:
        return LocalIndex.open(self.folder, images_dir=images_dir, exact=exact)

    def update_derived(self, ann: str, progress: Progress) -> None:
        column_reader.keep(self.folder)
        building.update_structure(self.folder, ann, progress)

    def write(self, say: Say) -> IndexWriter:
        return IndexWriter.open(self.folder)

    def create(self, manifest: dict[str, str], *, dimension: int, last_id: int, say: Say) -> IndexWriter:
        return IndexWriter.create(self.folder, manifest, dimension=dimension, last_id=last_id)


class _Milvus(Storage):
    """A collection in Milvus. Its folder is in the cache folder, with a note that names the collection."""

    no_rebuild = (
        "--rebuild is not available for an index in Milvus. Index into another collection, serve that one, then drop "
        "the old one."
    )

    def __init__(self, address: MilvusAddress) -> None:
        from searchengine.settings import load_settings

        self.address = self._collection = address
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{address.host}-{address.port}-{address.collection}")
        self.folder = load_settings(only=("cache_dir",)).cache_root / "milvus" / name

    @contextlib.contextmanager
    def writing(self, started: str) -> Iterator[None]:
        with super().writing(started):
            self._note()
            yield

    def _note(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _NOTE).write_text(f"Data computed on this machine from {self.address}\n")

    def read(self, images_dir: Path | None = None, *, exact: bool = False) -> MilvusIndex:
        self._note()
        return MilvusIndex(self._collection, self.folder, images_dir)

    def write(self, say: Say) -> MilvusWriter:
        return MilvusWriter.open(self._collection, say)

    def create(self, manifest: dict[str, str], *, dimension: int, last_id: int, say: Say) -> MilvusWriter:
        return MilvusWriter.create(self._collection, manifest, dimension=dimension, last_id=last_id, say=say)


def storage_of(address: AnyAddress) -> Storage:
    """Return the storage of an address, which is a folder or ``milvus://HOST:PORT/COLLECTION``; AddressError."""
    place = parse_address(address)
    return _Milvus(place) if isinstance(place, MilvusAddress) else _Folder(place)


# -- the lock of a folder ---------------------------------------------------------------------------------------------


def _acquire(folder: Path) -> contextlib.ExitStack:
    """Return the lock of a folder, held until it is closed."""
    for tries_left in reversed(range(_TRIES)):
        lock = contextlib.ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(locked(folder / LOCK_NAME, patience=_PATIENCE))
        except BlockingIOError as error:
            raise IndexLockedError(
                f"Another run is writing to {folder}{_holder(folder)}. Wait for it to end, then run the command again."
            ) from error
        except OSError as error:
            # If another run removes the folder or a parent while it is made, mkdir may also say that it exists.
            if not tries_left or not isinstance(error, FileNotFoundError | FileExistsError):
                raise IndexingError(
                    f"The index folder {folder} cannot be written to ({error.strerror}). Check the path and its "
                    "permissions."
                ) from error
        else:
            break
    return lock


def _holder(folder: Path) -> str:
    """Return ": process ... since ..." for the run that holds the lock, or empty if that is not known."""
    try:
        holder = parse_json((folder / _HOLDER_NAME).read_text())
        return f": process {int(holder['pid'])} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return ""
