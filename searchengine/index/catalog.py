"""The catalog: an SQLite file that says which rows of the feature matrix are live, and which image each belongs to.

The catalog alone is authoritative: whatever it does not mention (rows past the published count, an older feature file)
does not exist. Every change is one transaction. This module opens, copies, checks and upgrades the file, and holds its
manifest. The queries for images, folders and skipped files are in ``tables.py``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from uuid import uuid4

from searchengine.derived import timestamp
from searchengine.errors import (
    IndexDamagedError,
    IndexError_,
    IndexNotFoundError,
    IndexVersionError,
    file_error,
    with_index_dir,
)
from searchengine.files import flush, flush_folder, parse_json, replacing
from searchengine.index.database import (
    connect,
    connect_to_read,
    connect_to_write,
    damaged,
    on_error,
    rebuild_hint,
    translated,
    use_log,
    writable,
)
from searchengine.index.features import matrices
from searchengine.index.tables import Tables
from searchengine.index.types import parse_run_note

FILE_NAME = "catalog.sqlite"
BACKUP_NAME = "backup.sqlite"
LOCK_NAME = "writer.lock"  # held by the run that writes; see storage.py
_APPLICATION_ID = 0x53454E47  # "SENG"

_SCHEMA = """
CREATE TABLE manifest (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,         -- never given twice
    root INTEGER REFERENCES roots(id),            -- NULL if there is no file, as are all columns read from a file
    path BLOB,                                    -- relative to the root, as bytes from the file system
    row INTEGER NOT NULL UNIQUE,                  -- in the feature matrix
    norm2 REAL NOT NULL,                          -- the squared Euclidean norm of that row
    crc INTEGER NOT NULL,                         -- CRC-32 of that row's bytes
    content_hash BLOB, size INTEGER, mtime_ns INTEGER,
    settled INTEGER,                              -- 0: changed just before it was read, so mtime may miss a change
    width INTEGER, height INTEGER, colour TEXT, format TEXT,
    ctime_ns INTEGER,                             -- NULL after an upgrade, until the next run
    taken TEXT,                                   -- from EXIF: the local time of the camera, as ISO 8601
    camera TEXT,                                  -- '' if EXIF names none; NULL until EXIF has been read
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
    size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    PRIMARY KEY (root, path)
) WITHOUT ROWID;
"""
_TABLES = ("manifest", "roots", "images", "labels", "skipped")  # each after the tables that it refers to


class Catalog(Tables):
    """One connection to a catalog; raises what ``Database`` raises."""

    # -- opening ----------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, last_id: int = 0) -> Catalog:
        """Create an empty catalog in one step; ids up to ``last_id`` count as used."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE_NAME
        part = file.with_name(f"{FILE_NAME}.part")
        for stray in folder.glob(f"{FILE_NAME}*"):  # left by a killed run; its log must not be applied to a new file
            stray.unlink()
        with translated(folder), writable(folder):
            catalog = cls(connect(f"{part.absolute().as_uri()}?mode=rwc"), part)
            try:
                with catalog.transaction():
                    _create_tables(catalog._connection)
                    catalog.change(f"PRAGMA application_id = {_APPLICATION_ID}")
                    catalog.change("INSERT INTO sqlite_sequence (name, seq) VALUES ('images', ?)", (last_id,))
                    catalog.set_all({**manifest, "created": timestamp()})
                    catalog.mark_revision()
            finally:
                catalog.close()
            use_log(part)
            flush(part)
            part.replace(file)
            flush_folder(folder)
        return cls.open(folder, write=True)

    @classmethod
    def open(cls, folder: Path, *, write: bool = False, any_format: bool = False) -> Catalog:
        """Open the catalog of a folder. One of an older format is upgraded: in the file if ``write``, else in memory.

        Args:
            folder: the index folder.
            write: open it for writing too.
            any_format: also open a newer format, as far as this program understands it.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError, IndexError_: each names the folder and the remedy.
        """
        file = folder / FILE_NAME
        # Look for the matrix first: a run that begins at this moment creates the catalog before the matrix.
        matrix = matrices(folder)
        if not _has_content(file):
            if matrix:
                raise IndexDamagedError(
                    f"The index in {folder} has lost its catalog ({FILE_NAME}). To repair it, {rebuild_hint(folder)}"
                )
            raise IndexNotFoundError(
                f"There is no index in {folder}. Make one with: {with_index_dir('searchengine index IMAGES', folder)}"
            )
        with translated(folder):
            if write:
                connection, frozen = connect_to_write(file), False
            else:
                connection, frozen = connect_to_read(file)
        return cls(connection, file, frozen=frozen)._checked(write=write, any_format=any_format)

    @classmethod
    def open_backup(cls, folder: Path, *, any_format: bool = False) -> Catalog:
        """Open the backup that the last complete run made; raises what ``open`` raises."""
        file = folder / BACKUP_NAME
        if not file.is_file():
            raise IndexNotFoundError(f"There is no backup of the catalog in {folder}.")
        with translated(folder):
            connection = connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1")
        return cls(connection, file, frozen=True)._checked(write=False, any_format=any_format)

    def _checked(self, *, write: bool, any_format: bool) -> Catalog:
        """Return this catalog or, if it has an older format and is only read, an upgraded copy in memory."""
        folder = self.file.parent
        with on_error(self.close):
            version = int(self.value("PRAGMA user_version"))
            if self.value("PRAGMA application_id") != _APPLICATION_ID or version < 1:
                raise IndexDamagedError(
                    f"{self.file} is not a catalog of this program, or it is damaged. Choose another --index-dir or, "
                    f"if there was an index, {rebuild_hint(folder)}"
                )
            if version > FORMAT and not any_format:
                raise IndexVersionError(
                    f"The index in {folder} has a newer format ({version}; this program reads up to {FORMAT}). "
                    f"Update the program, or {rebuild_hint(folder)}"
                )
            if version >= FORMAT:
                return self
            if write:
                self._upgrade(version)
                return self
            copy = self.in_memory()
        self.close()
        with on_error(copy.close):
            copy._upgrade(version)
        return copy

    def _upgrade(self, version: int) -> None:
        with translated(self.file.parent), self.transaction():
            try:
                _apply_steps(self._connection, version)
            except ValueError as error:
                raise self.damaged(str(error)) from error

    def back_up(self) -> None:
        """Copy the catalog to its backup file, which is replaced in one step."""
        folder = self.file.parent
        with writable(folder), replacing(folder / BACKUP_NAME) as part:
            self.copy_to(part)

    # -- manifest ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        """Return one entry of the manifest, or None."""
        value = self.value("SELECT value FROM manifest WHERE key = ?", (key,))
        return None if value is None else str(value)

    def need(self, key: str) -> str:
        """Return one entry of the manifest, which must exist; IndexDamagedError."""
        value = self.get(key)
        if value is None:
            raise self.damaged(f"its manifest lacks {key!r}")
        return value

    def need_number(self, key: str) -> int:
        """Return one entry of the manifest, which must be a whole number of at least 0; IndexDamagedError."""
        value = self.need(key)
        if not (value.isascii() and value.isdecimal()):
            raise self.damaged(f"its manifest says {key} is {value!r}")
        return int(value)

    def manifest(self) -> dict[str, str]:
        """Return the whole manifest."""
        return dict(self.rows("SELECT key, value FROM manifest"))

    def run(self) -> tuple[int, int] | None:
        """Return how many files an unfinished run has read, and their total; None if there is no such run."""
        note = self.get("run")
        try:
            return parse_run_note(note)
        except ValueError as error:
            raise self.damaged(f"its manifest says run is {note!r}") from error

    def set_all(self, values: dict[str, str | None] | dict[str, str]) -> None:
        """Write entries of the manifest, and remove those whose value is None."""
        for key, value in values.items():
            if value is None:
                self.change("DELETE FROM manifest WHERE key = ?", (key,))
            else:
                self.change("INSERT OR REPLACE INTO manifest VALUES (?, ?)", (key, value))

    def count_edit(self) -> None:
        """Record that existing rows were changed or removed, so that readers look at them again."""
        self.set_all({"edits": str(self.need_number("edits") + 1)})

    def count_detail(self) -> None:
        """Record that labels, folders or dates of existing rows changed."""
        self.set_all({"details": str(int(self.get("details") or 0) + 1)})

    def mark_revision(self) -> None:
        """Set a new revision, once per transaction: catalogs with the same revision have the same content."""
        self.set_all({"revision": uuid4().hex, "updated": timestamp()})

    @property
    def revision(self) -> str:
        """The revision set by ``mark_revision``, in hexadecimal digits: that of a damaged catalog may not be text."""
        return str(self.value("SELECT lower(hex(value)) FROM manifest WHERE key = 'revision'") or "")

    # -- checks -----------------------------------------------------------------------------------------------------

    def damaged(self, why: str) -> IndexDamagedError:
        """Return the error for a catalog with impossible content."""
        return damaged(self.file, why, self.file.parent)

    def check(self) -> None:
        """Read every page, and raise IndexDamagedError for the first problem."""
        for problem in self.problems():
            raise self.damaged(problem)

    def problems(self) -> Iterator[str]:
        """Yield problems with its pages and tables, at most a few lines."""
        pages = [row[0] for row in self.rows("PRAGMA integrity_check(5)")]
        if pages != ["ok"]:
            yield from pages
        elif not _has_tables(self._connection):
            yield "its tables are not those of this program"

    def contradictions(self) -> list[tuple[str, str]]:
        """Return (table, table referred to) for every row that refers to a missing row."""
        return [(row[0], row[2]) for row in self.rows("PRAGMA foreign_key_check")]

    def everything(self) -> Generator[object, None, None]:
        """Yield every row of every table, for comparison with a backup."""
        for table in (*_TABLES, "sqlite_sequence"):
            yield from self.each_row(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608
            yield table

    # -- adopting another catalog -------------------------------------------------------------------------------------

    def take_over(self, other: Path, finish: Callable[[], None]) -> None:
        """Replace the content by that of another file, in a transaction that ends with ``finish``."""
        self.change("ATTACH DATABASE ? AS other", (str(other),))
        with self.transaction():
            for table in reversed(_TABLES):
                self.change(f"DELETE FROM main.{table}")  # noqa: S608
            for table in _TABLES:
                self.change(f"INSERT INTO main.{table} SELECT * FROM other.{table}")  # noqa: S608
            finish()
        self.change("DETACH DATABASE other")


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise IndexError_(f"The index cannot be read. {file_error(error)}") from error


# -- formats ----------------------------------------------------------------------------------------------------------
#
# A change of the format adds a step to _STEPS and changes _SCHEMA to its result. Steps are never removed, so indexes
# of every format can be opened. All functions work within the transaction that is open.


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in filter(str.strip, _SCHEMA.split(";\n")):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _has_tables(connection: sqlite3.Connection) -> bool:
    """Return whether the catalog has exactly the tables and columns of ``_SCHEMA``."""
    empty = sqlite3.connect(":memory:")
    try:
        _create_tables(empty)
        return _definitions(connection) == _definitions(empty)
    finally:
        empty.close()


def _definitions(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return (name, SQL) of every table and index, the SQL without comments and white space."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {(name, "".join(re.sub(r"--[^\n]*", "", sql).split())) for name, sql in rows}


def _apply_steps(connection: sqlite3.Connection, version: int) -> None:
    """Upgrade a catalog of an older format; ValueError names what it lacks."""
    for step in _STEPS[version - 1 :]:
        step(connection)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _to_2(connection: sqlite3.Connection) -> None:
    """Record in the manifest whether features are normalised, and a revision instead of a count of commits."""
    row = connection.execute("SELECT value FROM manifest WHERE key = 'spec'").fetchone()
    try:
        normalized = parse_json(row[0])["normalize"] == "l2"
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError("it does not say which extractor made the features") from error
    connection.execute("DELETE FROM manifest WHERE key IN ('lineage', 'commits')")
    connection.executemany(
        "INSERT OR REPLACE INTO manifest VALUES (?, ?)",
        (("normalized", str(int(normalized))), ("revision", uuid4().hex)),
    )


def _to_3(connection: sqlite3.Connection) -> None:
    """Add the ctime of files, which shows a change of content even if size and mtime are the same."""
    connection.execute("ALTER TABLE images ADD COLUMN ctime_ns INTEGER")
    connection.execute("ALTER TABLE skipped ADD COLUMN ctime_ns INTEGER")


def _to_4(connection: sqlite3.Connection) -> None:
    """Add the date and camera of photos; the next run reads those of images that are already in the index."""
    connection.execute("ALTER TABLE images ADD COLUMN taken TEXT")
    connection.execute("ALTER TABLE images ADD COLUMN camera TEXT")


_STEPS = (_to_2, _to_3, _to_4)
FORMAT = 1 + len(_STEPS)
