"""What lies under an index, the file system and SQLite: its complaints in our words, and what is safe on the disk."""

from __future__ import annotations

import contextlib
import errno
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from searchengine.errors import IndexDamagedError, IndexingError, SearchEngineError

_ROOM = 2**18  # bytes; SQLite asks for less at a time


def disk_full(folder: Path) -> IndexingError:
    """The error for a disk without room."""
    return IndexingError(
        f"The disk that holds {folder} is full. The index is as it was before the last batch: make room and "
        "give the same command again."
    )


def not_writable(folder: Path, why: str) -> IndexingError:
    """The error for a folder that cannot be written to."""
    return IndexingError(f"The index folder {folder} cannot be written to ({why}). Check the path and its permissions.")


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what the file system says of a write into an IndexingError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder) from error
        raise not_writable(folder, error.strerror or str(error)) from error


def anew(folder: Path) -> str:
    """The end of a sentence about an index that is damaged."""
    return (
        f"make it anew with: searchengine index IMAGES --index-dir {shlex.quote(str(folder))} --rebuild "
        f"(searchengine verify --index-dir {shlex.quote(str(folder))} gives the command in full)"
    )


@contextlib.contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into the errors of this package, once."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _ours(folder, error) from error


def _ours(folder: Path, error: sqlite3.DatabaseError) -> SearchEngineError:
    text, code = str(error), getattr(error, "sqlite_errorname", "")
    if code == "SQLITE_FULL" or (code.startswith("SQLITE_IOERR") and shutil.disk_usage(folder).free < _ROOM):
        return disk_full(folder)  # without room for its log or its shared memory, SQLite speaks of the latter
    if code.startswith("SQLITE_READONLY"):
        return not_writable(folder, "it is read-only")
    if code.startswith(("SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PERM", "SQLITE_AUTH")):
        return IndexingError(f"The catalog in {folder} cannot be opened: {text}. Check its permissions, and try again.")
    if code.startswith("SQLITE_IOERR"):
        return IndexingError(
            f"The disk that holds {folder} cannot be read or written ({text}). Check it, and try again."
        )
    return IndexDamagedError(f"The catalog in {folder} is damaged ({text}). To mend it, {anew(folder)}")
