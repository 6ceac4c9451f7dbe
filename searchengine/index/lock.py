"""One writer at a time: an advisory lock on a file in the index folder, which the kernel frees when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from searchengine.errors import IndexingError, IndexLockedError

FILE_NAME = "writer.lock"


@contextmanager
def writing(folder: Path, started: str) -> Iterator[None]:
    """Hold the lock of an index folder, which is made if it is not there.

    The descriptor is closed in child processes (PEP 446), so a child that outlives a killed run holds nothing.

    Raises:
        IndexLockedError: another run holds it; the message says which.
        IndexingError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise IndexingError(
            f"The index folder {folder} cannot be written to ({error.strerror}). Check the path and its permissions."
        ) from error
    try:
        _take(descriptor, folder)
        os.ftruncate(descriptor, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": started}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    for patience in (
        0.05,
        0.2,
        0.5,
        None,
    ):  # a reader that asks whether a run goes on holds it for an instant
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise IndexingError(f"{folder} cannot be locked: {error.strerror}.") from error
            if patience is None:
                raise IndexLockedError(
                    f"Another run is writing to {folder}{_holder(descriptor)}. "
                    "Wait for it to end, then give the command again."
                ) from error
            time.sleep(patience)


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
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f": process {int(holder['pid'])} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError, OSError):
        return ""
