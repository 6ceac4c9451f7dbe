"""One writer at a time: an advisory lock in the index folder, which the kernel releases when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from searchengine.errors import IndexingError, IndexLockedError
from searchengine.files import parse_json

FILE_NAME = "writer.lock"
_PAUSES = (0.05, 0.2, 0.5)  # seconds: a reader that asks whether a run is active holds the lock for an instant


@contextmanager
def writing(folder: Path, started: str) -> Iterator[None]:
    """Hold the lock of an index folder, which is made if it is missing; if nothing was put into it, it is removed.

    The descriptor is closed in child processes (PEP 446), so a child that outlives a killed run holds nothing.

    Raises:
        IndexLockedError: another run holds it; the message says which.
        IndexingError: the folder cannot be written to.
    """
    made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    descriptor = _acquire(folder)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": started}
        with suppress(OSError):  # a full disk: the message of another run says no more than that there is one
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            (folder / FILE_NAME).unlink()  # while it is held; see _acquire
        os.close(descriptor)
        with suppress(OSError):  # not empty: there is an index now
            for place in made:
                place.rmdir()


def _acquire(folder: Path) -> int:
    """An open descriptor of the lock file, locked.

    A run deletes the file before it releases the lock, so a lock may turn out to be on a file without a name: then
    there is another by now, or there will be.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if _has_vanished(folder, error):
                continue  # another run has just removed the folder, which was empty
            raise IndexingError(
                f"The index folder {folder} cannot be written to ({error.strerror}). Check the path and its "
                "permissions."
            ) from error
        try:
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _has_vanished(folder: Path, error: OSError) -> bool:
    """Whether the folder, or one above it, went while it was made: mkdir says that it exists, and then it does not."""
    if isinstance(error, FileNotFoundError):
        return True
    return isinstance(error, FileExistsError) and all(
        place.is_dir() or not os.path.lexists(place) for place in (folder, *folder.parents)
    )


def _lock(descriptor: int, folder: Path) -> None:
    for pause in (*_PAUSES, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise IndexingError(f"{folder} cannot be locked: {error.strerror}.") from error
            if pause is None:
                raise IndexLockedError(
                    f"Another run is writing to {folder}{_holder(descriptor)}. "
                    "Wait for it to end, then give the command again."
                ) from error
            time.sleep(pause)


def is_held(folder: Path) -> bool:
    """Whether a run is writing to the index right now."""
    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(descriptor: int) -> str:
    try:
        holder = parse_json(os.pread(descriptor, 4096, 0))
        return f": process {int(holder['pid'])} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return ""
