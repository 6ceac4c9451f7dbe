"""The catalog: an SQLite file that says which rows of the feature matrix count, and what stands behind each.

It is the only truth about an index. Whatever it does not mention (rows past the published count, an older feature
file) does not exist. Every change is one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from searchengine.errors import IndexDamagedError, IndexingError, IndexNotFoundError, IndexVersionError

FORMAT = 1
FILE_NAME = "catalog.sqlite"
_APPLICATION_ID = 0x53454E47  # "SENG"

_SCHEMA = """
CREATE TABLE manifest (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,         -- never used again
    root INTEGER REFERENCES roots(id),            -- NULL, like all that follows from a file, where there is no file
    path BLOB,                                    -- relative to the root, as the bytes that the file system gave
    row INTEGER NOT NULL UNIQUE,                  -- of the feature matrix
    norm2 REAL NOT NULL,                          -- the squared Euclidean norm of that row
    crc INTEGER NOT NULL,                         -- CRC-32 of that row's bytes
    content_hash BLOB, size INTEGER, mtime_ns INTEGER,
    settled INTEGER,                              -- 0: changed so shortly before it was read that mtime may not tell
    width INTEGER, height INTEGER, colour TEXT, format TEXT,
    UNIQUE (root, path)
);
CREATE INDEX images_by_content ON images (content_hash);
CREATE TABLE labels (
    image INTEGER NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE INDEX images_by_label ON labels (label, image);
CREATE TABLE skipped (
    root INTEGER NOT NULL REFERENCES roots(id),
    path BLOB NOT NULL,
    reason TEXT NOT NULL,
    size INTEGER, mtime_ns INTEGER,
    PRIMARY KEY (root, path)
) WITHOUT ROWID;
"""


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Catalog:
    """One connection to a catalog. Not shared between threads; opened after a fork."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self.connection = connection
        self.file = file

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, last_id: int = 0) -> Catalog:
        """Make a new, empty catalog in the folder; ids up to ``last_id`` are taken. All in one transaction."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE_NAME
        with translated(folder):
            catalog = cls(_connect(f"{file.absolute().as_uri()}?mode=rwc"), file)
            catalog.connection.execute("PRAGMA journal_mode = WAL")
            with catalog.transaction():
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        catalog.connection.execute(statement)
                catalog.connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                catalog.connection.execute(f"PRAGMA user_version = {FORMAT}")
                catalog.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('images', ?)", (last_id,))
                for key, value in {**manifest, "created": now(), "updated": now()}.items():
                    catalog.set(key, value)
        return catalog

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Catalog:
        """Open the catalog of a folder.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError: each names the folder and the command that mends.
        """
        file = folder / FILE_NAME
        if not file.is_file() or file.stat().st_size == 0:
            if (folder / "features.npy").exists():
                raise IndexDamagedError(
                    f"The index in {folder} has lost its catalog ({FILE_NAME}). Make it anew with: "
                    f"python offline_index.py IMAGES --index-dir {folder} --rebuild"
                )
            raise IndexNotFoundError(
                f"There is no index in {folder}. Make one with: python offline_index.py IMAGES --index-dir {folder}"
            )
        uri = file.absolute().as_uri()
        with translated(folder):
            if write:
                return cls._checked(folder, f"{uri}?mode=rw")
            try:
                return cls._checked(folder, f"{uri}?mode=ro")
            except sqlite3.OperationalError:
                # a read-only folder has no room for the shared memory of a WAL reader; it does not change either
                return cls._checked(folder, f"{uri}?mode=ro&immutable=1")

    @classmethod
    def _checked(cls, folder: Path, uri: str) -> Catalog:
        catalog = cls(_connect(uri), folder / FILE_NAME)
        try:
            catalog._check(folder)
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _check(self, folder: Path) -> None:
        application = self.connection.execute("PRAGMA application_id").fetchone()[0]
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION_ID:
            if version == 0 and not self.connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                raise IndexNotFoundError(  # created, but killed before its first transaction
                    f"There is no index in {folder} yet. Make one with: "
                    f"python offline_index.py IMAGES --index-dir {folder}"
                )
            raise IndexDamagedError(f"{self.file} is not a catalog of this program. Choose another --index-dir.")
        if version != FORMAT:
            age, advice = ("a newer", "Update the program") if version > FORMAT else ("an older", "Make it anew")
            raise IndexVersionError(
                f"The index in {folder} has {age} format ({version}; this program reads {FORMAT}). {advice}, or index "
                f"again with: python offline_index.py IMAGES --index-dir {folder} --rebuild"
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
            raise IndexDamagedError(f"The manifest of {self.file} lacks {key!r}.")
        return value

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
    def data_version(self) -> int:
        """Changes when another connection has committed."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

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
            self.connection.execute("ROLLBACK")

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self.connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of values."""
        self.connection.executemany(statement, rows)

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


@contextmanager
def translated(folder: Path, tidy: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn what SQLite and the file system say into the errors of this package, once."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if tidy:
            tidy()
        text = str(error)
        if "full" in text:
            raise IndexingError(
                f"The disk that holds {folder} is full. The index is as it was before the last batch: make room and "
                "give the same command again."
            ) from error
        if "readonly" in text or "read-only" in text:
            raise IndexingError(f"The index folder {folder} cannot be written to. Check its permissions.") from error
        if "unable to open" in text or "locked" in text:
            raise IndexingError(f"The catalog in {folder} cannot be opened: {text}.") from error
        raise IndexDamagedError(
            f"The catalog in {folder} is damaged ({text}). See what is left with: searchengine verify --index-dir "
            f"{folder}; make it anew with: python offline_index.py IMAGES --index-dir {folder} --rebuild"
        ) from error
