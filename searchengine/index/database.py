"""One SQLite file: opening it, even in read-only folders, reading and writing it, and translating SQLite's errors."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from searchengine.errors import IndexDamagedError, IndexingError, SearchEngineError, with_index_dir

_ROOM = 2**18  # bytes; a disk with less free space counts as full, because SQLite allocates less at a time

Stamp = tuple[tuple[int, int, int] | None, ...]


class Database:
    """One connection. It must be opened after a fork, and threads may share it only under a lock.

    All methods raise IndexDamagedError for a damaged file, and IndexingError if the disk is full, read-only or failing.
    """

    def __init__(self, connection: sqlite3.Connection, file: Path, *, frozen: bool = False) -> None:
        self._connection = connection
        self.file = file
        self._identity = stamp if frozen else _place
        self._opened = self._identity(file)

    @property
    def outdated(self) -> bool:
        """Whether the file must be opened again: it was replaced, or was opened without locks and has changed.

        A rebuild replaces a damaged catalog. In a read-only folder there are no locks and no shared memory, but another
        machine, or a process that sees the folder through another mount, may write to the file.
        """
        return self._identity(self.file) not in (self._opened, None)

    @property
    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        return int(self.rows("PRAGMA data_version")[0][0])

    # -- statements -------------------------------------------------------------------------------------------------

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return all rows of a query."""
        with translated(self.file.parent):
            return self._connection.execute(query, values).fetchall()

    def value(self, query: str, values: Sequence[object] = ()) -> Any:
        """Return the first column of the first row, or None."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None

    def each_row(self, query: str, values: Sequence[object] = ()) -> Generator[Any, None, None]:
        """Yield the rows of a query, for tables too large for memory."""
        with translated(self.file.parent):
            yield from self._connection.execute(query, values)

    def change(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run one statement, and return the id of an inserted row."""
        with translated(self.file.parent):
            return self._connection.execute(statement, values).lastrowid or 0

    def change_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each sequence of values."""
        with translated(self.file.parent):
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes of a block or, if it fails, none; not nested."""
        self.change("BEGIN IMMEDIATE")
        with on_error(self._roll_back):
            yield
            self.change("COMMIT")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of a block see the same state."""
        self.change("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # some errors, such as a full disk, have already rolled it back
            self._connection.execute("ROLLBACK")

    # -- the whole file ---------------------------------------------------------------------------------------------

    def in_memory(self) -> Self:
        """Return a copy in memory, which is outdated once the file changes."""
        copy = type(self)(connect(":memory:"), self.file, frozen=True)
        with translated(self.file.parent):
            self._connection.backup(copy._connection)
        return copy

    def copy_to(self, file: Path) -> None:
        """Copy the whole database to another file."""
        with translated(self.file.parent), contextlib.closing(sqlite3.connect(file)) as copy:
            self._connection.backup(copy)

    def fold_log(self) -> None:
        """Write the log back into the file unless a reader prevents it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection; the last one writes the log back into the file."""
        self._connection.close()


def connect(uri: str) -> sqlite3.Connection:
    """Return a connection with explicit transactions, which threads may share under a lock."""
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30, check_same_thread=False)
    with on_error(connection.close):
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextlib.contextmanager
def on_error(clean_up: Callable[[], None]) -> Iterator[None]:
    """Call a function if the block fails."""
    try:
        yield
    except BaseException:
        clean_up()
        raise


def connect_to_read(file: Path) -> tuple[sqlite3.Connection, bool]:
    """Return a read-only connection, and whether the file had to be opened without locks."""
    uri = file.absolute().as_uri()
    try:
        return _tested(connect(f"{uri}?mode=ro")), False
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorname
        if not code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")):
            raise
        _, log, journal = stamp(file)
        if journal is not None:  # left by a killed run: opening the file for writing rolls its batch back
            _tested(connect(f"{uri}?mode=rw")).close()
            return _tested(connect(f"{uri}?mode=ro")), False
        if log is not None:
            raise
        # a reader cannot create its shared memory in a read-only folder; see Database.outdated
        return connect(f"{uri}?mode=ro&immutable=1"), True


def connect_to_write(file: Path) -> sqlite3.Connection:
    """Return a connection that writes. If the write-ahead log cannot be used here, a journal replaces it."""
    if _has_log(file) and not shares_memory(file.parent):
        with contextlib.suppress(sqlite3.OperationalError):  # another program has it open, so it can use the log
            _use_journal(file)
    return connect(f"{file.absolute().as_uri()}?mode=rw")


def use_log(file: Path) -> None:
    """Give a file a write-ahead log, so that readers never wait, unless the file system does not support it."""
    if shares_memory(file.parent):
        with contextlib.closing(connect(f"{file.absolute().as_uri()}?mode=rw")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


def _has_log(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(20)[18:] == b"\2\2"  # the format versions needed to write and to read


def _use_journal(file: Path) -> None:
    connection = sqlite3.connect(file, isolation_level=None, timeout=1)
    with contextlib.closing(connection):
        # an exclusive lock needs no shared memory, even to read a log that was left
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")


_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs"}
_CANNOT_MAP = (errno.ENODEV, errno.EINVAL, errno.EACCES, errno.ENOTSUP)


def shares_memory(folder: Path) -> bool:
    """Return whether processes can share memory through a file in a folder, as a write-ahead log requires.

    Some file systems do not support that (FUSE with direct I/O), others only within one machine (NFS, SMB).
    """
    if _file_system(folder) in _NETWORK:
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.truncate(mmap.PAGESIZE)
            mmap.mmap(probe.fileno(), mmap.PAGESIZE).close()
    except OSError as error:
        return error.errno not in _CANNOT_MAP
    return True


def _file_system(folder: Path) -> str:
    """Return the type of a folder's file system on Linux, from proc(5), and "" elsewhere."""
    with contextlib.suppress(OSError), Path("/proc/self/mountinfo").open("rb") as mounts:
        device = folder.stat().st_dev
        for mount in mounts:
            before, _, after = mount.partition(b" - ")
            if before.split()[2] == b"%d:%d" % (os.major(device), os.minor(device)):
                return after.split()[0].decode()
    return ""


def _tested(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return a connection after a first query, which fails if the file cannot be used."""
    with on_error(connection.close):
        connection.execute("PRAGMA user_version").fetchone()
    return connection


def stamp(file: Path) -> Stamp:
    """Return a value that changes with every write: of the file, its log and its journal, None for a missing one."""
    infos = (_stat(file.with_name(file.name + ending)) for ending in ("", "-wal", "-journal"))
    return tuple((info.st_ino, info.st_size, info.st_mtime_ns) if info and info.st_size else None for info in infos)


def _place(file: Path) -> tuple[int, int] | None:
    info = _stat(file)
    return (info.st_dev, info.st_ino) if info else None


def _stat(file: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return file.stat()
    return None


# -- errors -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Translate SQLite's errors into those of this package."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translation(folder, error) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged name, which Python cannot decode
        raise damaged(f"The catalog in {folder}", "it has names that are not text", folder) from error


def _translation(folder: Path, error: sqlite3.DatabaseError) -> SearchEngineError:
    """Return the error of this package for one of SQLite's."""
    text, code = str(error), getattr(error, "sqlite_errorname", "")
    if code == "SQLITE_FULL" or (code.startswith("SQLITE_IOERR") and shutil.disk_usage(folder).free < _ROOM):
        return _disk_full(folder)  # SQLite reports an I/O error if there is no room for its log or shared memory
    if code.startswith("SQLITE_READONLY"):
        return _not_writable(folder, "it is read-only")
    if code.startswith(("SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PERM", "SQLITE_AUTH")):
        return IndexingError(f"The catalog in {folder} cannot be opened: {text}. Check its permissions, and try again.")
    if code == "SQLITE_IOERR_SHMMAP":
        return IndexingError(
            f"The file system of {folder} does not let programs share memory, which the catalog's log needs. Run the "
            "command that made the index again, which replaces the log by a journal, or move the index to a local disk."
        )
    if code.startswith("SQLITE_IOERR"):
        return IndexingError(
            f"The disk that holds {folder} cannot be read or written ({text}). Check it, and try again."
        )
    return damaged(f"The catalog in {folder}", text, folder)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Translate an OSError of a write into an IndexingError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(folder) from error
        raise _not_writable(folder, error.strerror or str(error)) from error


def _disk_full(folder: Path) -> IndexingError:
    return IndexingError(
        f"The disk that holds {folder} is full. The index is as it was before the last batch. Make room, then run the "
        "same command again."
    )


def _not_writable(folder: Path, why: str) -> IndexingError:
    return IndexingError(f"The index folder {folder} cannot be written to ({why}). Check the path and its permissions.")


def rebuild_hint(folder: Path) -> str:
    """Return the end of a sentence about an unusable index: the command that rebuilds it."""
    return (
        f"rebuild it with: {with_index_dir('searchengine index IMAGES', folder)} --rebuild "
        f"({with_index_dir('searchengine verify', folder)} shows the full command)"
    )


def damaged(what: str | Path, why: str, folder: Path) -> IndexDamagedError:
    """Return the error for a damaged file of an index."""
    return IndexDamagedError(f"{what} is damaged: {why}. To repair it, {rebuild_hint(folder)}")
