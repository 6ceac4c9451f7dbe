"""The catalog: an SQLite file that says which rows of the feature matrix count, and what stands behind each.

It is the only truth about an index. Whatever it does not mention (rows past the published count, an older feature
file) does not exist. Every change is one transaction.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from searchengine.errors import (
    IndexDamagedError,
    IndexNotFoundError,
    IndexVersionError,
)
from searchengine.files import flush, flush_folder, replacing
from searchengine.index.disk import anew, translated, writable
from searchengine.index.features import matrices
from searchengine.index.tables import create_tables, has_tables

FORMAT = 1
FILE_NAME = "catalog.sqlite"
BACKUP_NAME = "backup.sqlite"
_APPLICATION_ID = 0x53454E47  # "SENG"


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Catalog:
    """One connection to a catalog. Not shared between threads; opened after a fork."""

    def __init__(self, connection: sqlite3.Connection, file: Path, *, frozen: bool = False) -> None:
        self.connection = connection
        self.file = file
        self._frozen = _stamp(file) if frozen else None  # what it was when it was opened without any locks
        self._place = _place(file)

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, last_id: int = 0) -> Catalog:
        """Make a new, empty catalog in the folder; ids up to ``last_id`` are taken. It is there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE_NAME
        part = file.with_name(f"{FILE_NAME}.part")
        for stray in folder.glob(f"{FILE_NAME}*"):  # of a run that was killed in here: no log must meet another file
            stray.unlink()
        with translated(folder), writable(folder):
            catalog = cls(_connect(f"{part.absolute().as_uri()}?mode=rwc"), part)
            try:
                with catalog.transaction():
                    create_tables(catalog.connection)
                    catalog.connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    catalog.connection.execute(f"PRAGMA user_version = {FORMAT}")
                    catalog.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('images', ?)", (last_id,))
                    for key, value in {**manifest, "created": now(), "updated": now(), "lineage": uuid4().hex}.items():
                        catalog.set(key, value)
                catalog.connection.execute("PRAGMA journal_mode = WAL")
            finally:
                catalog.close()
            flush(part)
            part.replace(file)
            flush_folder(folder)
        return cls.open(folder, write=True)

    @classmethod
    def open(cls, folder: Path, *, write: bool = False, any_format: bool = False) -> Catalog:
        """Open the catalog of a folder; ``any_format``: even one that this program cannot read in full.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError: each names the folder and the command that mends.
        """
        file = folder / FILE_NAME
        # The matrix is looked for first: a run that begins just now makes the catalog before it.
        matrix = matrices(folder)
        if not _has_content(file):
            if matrix:
                raise IndexDamagedError(f"The index in {folder} has lost its catalog ({FILE_NAME}): {anew(folder)}")
            raise IndexNotFoundError(
                f"There is no index in {folder}. Make one with: searchengine index IMAGES --index-dir "
                f"{shlex.quote(str(folder))}"
            )
        uri = file.absolute().as_uri()
        with translated(folder):
            if write:
                return cls._checked(folder, f"{uri}?mode=rw", any_format=any_format)
            try:
                return cls._checked(folder, f"{uri}?mode=ro", any_format=any_format)
            except sqlite3.OperationalError as error:
                code = error.sqlite_errorname
                if not code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")) or _has_log(file):
                    raise
                # a read-only folder has no room for the shared memory of a WAL reader; see ``outdated``
                return cls._checked(folder, f"{uri}?mode=ro&immutable=1", any_format=any_format, frozen=True)

    @classmethod
    def open_backup(cls, folder: Path, *, any_format: bool = False) -> Catalog:
        """The copy that was made when a run last came to its end; the errors of ``open``."""
        file = folder / BACKUP_NAME
        if not file.is_file():
            raise IndexNotFoundError(f"There is no copy of the catalog in {folder}.")
        with translated(folder):
            uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
            return cls._checked(folder, uri, file, any_format=any_format, frozen=True)

    @classmethod
    def _checked(
        cls, folder: Path, uri: str, file: Path | None = None, *, any_format: bool, frozen: bool = False
    ) -> Catalog:
        catalog = cls(_connect(uri), file or folder / FILE_NAME, frozen=frozen)
        try:
            catalog._check(folder, any_format=any_format)
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _check(self, folder: Path, *, any_format: bool) -> None:
        application = self.connection.execute("PRAGMA application_id").fetchone()[0]
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION_ID:
            raise IndexDamagedError(
                f"{self.file} is not a catalog of this program, or is damaged. Choose another --index-dir or, if it "
                f"was one, {anew(folder)}"
            )
        if version != FORMAT and not any_format:
            age, advice = ("a newer", "Update the program, or") if version > FORMAT else ("an older", "To mend it,")
            raise IndexVersionError(
                f"The index in {folder} has {age} format ({version}; this program reads {FORMAT}). "
                f"{advice} {anew(folder)}"
            )

    # -- manifest ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        """One entry of the manifest."""
        row = self.connection.execute("SELECT value FROM manifest WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def need(self, key: str) -> str:
        """One entry of the manifest that must be there; IndexDamagedError."""
        value = self.get(key)
        if value is None:
            raise self.damaged(f"its manifest lacks {key!r}")
        return value

    def need_number(self, key: str) -> int:
        """One entry of the manifest that is a whole number of 0 or more; IndexDamagedError."""
        value = self.need(key)
        if not (value.isascii() and value.isdecimal()):
            raise self.damaged(f"its manifest says {key} is {value!r}")
        return int(value)

    def damaged(self, why: str) -> IndexDamagedError:
        """The error for a catalog that cannot be true."""
        return IndexDamagedError(f"{self.file} is damaged: {why}. To mend it, {anew(self.file.parent)}")

    def check(self) -> None:
        """Read every page; IndexDamagedError."""
        with translated(self.file.parent):
            for problem in self.problems():
                raise self.damaged(problem)

    def problems(self) -> Iterator[str]:
        """What is wrong with its pages and its tables, at most a few lines of it."""
        pages = [row[0] for row in self.execute("PRAGMA integrity_check(5)")]
        if pages != ["ok"]:
            yield from pages
        elif not has_tables(self.connection):
            yield "its tables are not those of this program"

    @property
    def commits(self) -> int:
        """How often it was written to."""
        return self.need_number("commits") if self.get("commits") is not None else 0

    @property
    def state(self) -> tuple[bytes | None, int]:
        """Which catalog it is, and how often it was written to: two with the same state say the same."""
        # as bytes: where they are damaged they are no longer text, and nothing but the copy hangs on them
        row = self.execute("SELECT CAST(value AS BLOB) FROM manifest WHERE key = 'lineage'").fetchone()
        return None if row is None else row[0], self.commits

    def set(self, key: str, value: str | None) -> None:
        """Write one entry, or remove it with None."""
        if value is None:
            self.connection.execute("DELETE FROM manifest WHERE key = ?", (key,))
        else:
            self.connection.execute("INSERT OR REPLACE INTO manifest VALUES (?, ?)", (key, value))

    def get_json(self, key: str) -> Any:
        """One entry of the manifest that holds JSON, or None."""
        value = self.get(key)
        return None if value is None else json.loads(value)

    @property
    def outdated(self) -> bool:
        """Whether it must be opened anew: another file has its name, or it was written to in a read-only folder.

        A damaged catalog is set aside, and a new one made. In a read-only folder there is no lock to hold the file
        still, and no shared memory to tell: another machine, or a process that sees the folder under another mount,
        may write to it.
        """
        if self._frozen is not None:
            return self._frozen != _stamp(self.file) or _has_log(self.file)
        return _place(self.file) not in (self._place, None)

    @property
    def data_version(self) -> int:
        """Changes when another connection has committed."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    # -- images -----------------------------------------------------------------------------------------------------

    def image_count(self) -> int:
        """How many images there are."""
        return int(self.execute("SELECT count(*) FROM images").fetchone()[0])

    def image_ids(self) -> frozenset[int]:
        """The ids of all images."""
        return frozenset(id_ for (id_,) in self.execute("SELECT id FROM images"))

    def image_places(self) -> frozenset[tuple[int, bytes]]:
        """Root and path of all images that lie in an image folder."""
        return frozenset(self.execute("SELECT root, path FROM images WHERE root IS NOT NULL"))

    # -- transactions -----------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; not nested."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # some errors, a full disk among them, have rolled it back already
                self.connection.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several reads that see one and the same state."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            if self.connection.in_transaction:  # some errors have rolled it back already
                self.connection.execute("ROLLBACK")

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self.connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of values."""
        self.connection.executemany(statement, rows)

    def back_up(self) -> None:
        """Copy all of it to a file beside it, which takes the place of the last such copy when it is whole."""
        folder = self.file.parent
        with (
            translated(folder),
            writable(folder),
            replacing(folder / BACKUP_NAME) as part,
            contextlib.closing(sqlite3.connect(part)) as copy,
        ):
            self.connection.backup(copy)
            copy.close()  # before it is flushed and takes its name

    def close(self) -> None:
        """Close the connection; the last one out folds the write-ahead log into the file."""
        self.connection.close()


def _connect(uri: str) -> sqlite3.Connection:
    # Transactions are spelt out (isolation_level=None). Readers share a connection between threads, under a lock.
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30, check_same_thread=False)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _place(file: Path) -> tuple[int, int] | None:
    try:
        info = file.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        info = file.stat()
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns


def _has_log(file: Path) -> bool:
    return _has_content(file.with_name(f"{file.name}-wal"))


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
