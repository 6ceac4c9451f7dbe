"""One writer at a time: a lock in the index folder, which the system releases when its holder dies."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import IndexingError, IndexLockedError
from searchengine.files import is_locked, parse_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

FILE_NAME = "writer.lock"
_HOLDER_NAME = "writer.json"  # apart from the lock, which cannot be read on Windows
_PATIENCE = 0.75  # seconds: a reader that checks for an active run holds the lock for an instant
_TRIES = 1000  # to make the folder while others remove it; in some places it can never be made


@contextmanager
def writing(folder: Path, started: str) -> Iterator[None]:
    """Hold the lock of an index folder, which is made if it is missing, and removed if it stays empty.

    Child processes do not inherit the lock (PEP 446), so none that outlives a killed run holds it.

    Raises:
        IndexLockedError: another run holds it; the message says which.
        IndexingError: the folder cannot be written to.
    """
    new_folders = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    lock = _acquire(folder)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": started}
        with suppress(OSError):  # a full disk: then the message of another run does not name this one
            (folder / _HOLDER_NAME).write_text(json.dumps(holder))
        yield
    finally:
        for name in (_HOLDER_NAME, FILE_NAME):
            with suppress(OSError):
                (folder / name).unlink()  # while it is held: whoever waits sees that it is gone, and makes another
        lock.release()
        with suppress(OSError):  # not empty: there is an index now
            for place in new_folders:
                place.rmdir()


def _acquire(folder: Path) -> BaseFileLock:
    """The lock, held."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / FILE_NAME)
    for tries_left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_PATIENCE)
        except Timeout as error:
            raise IndexLockedError(
                f"Another run is writing to {folder}{_holder(folder)}. Wait for it to end, then give the command again."
            ) from error
        except OSError as error:
            if not tries_left or not _has_vanished(folder, error):
                raise IndexingError(
                    f"The index folder {folder} cannot be written to ({error.strerror}). Check the path and its "
                    "permissions."
                ) from error
        else:
            break
    return lock


def _has_vanished(folder: Path, error: OSError) -> bool:
    """Whether the folder or a parent was removed while it was made: mkdir says that it exists, but it does not."""
    if isinstance(error, FileNotFoundError):
        return True
    return isinstance(error, FileExistsError) and all(
        place.is_dir() or not os.path.lexists(place) for place in (folder, *folder.parents)
    )


def is_held(folder: Path) -> bool:
    """Whether a run is writing to the index right now."""
    return is_locked(folder / FILE_NAME)


def _holder(folder: Path) -> str:
    try:
        holder = parse_json((folder / _HOLDER_NAME).read_text())
        return f": process {int(holder['pid'])} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return ""
