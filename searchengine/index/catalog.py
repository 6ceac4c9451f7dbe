"""The catalog: an SQLite file that says which rows of the feature matrix count, and what stands behind each.

It is the only truth about an index. Whatever it does not mention (rows past the published count, an older feature
file) does not exist. Every change is one transaction. This module opens, copies and checks the file, and has its
manifest; images, folders and skipped files are in ``tables.py``.
"""

from __future__ import annotations

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
from searchengine.files import flush, flush_folder, replacing
from searchengine.index import schema
from searchengine.index.database import (
    connect,
    connect_to_read,
    connect_to_write,
    damaged,
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
LOCK_NAME = "writer.lock"  # held by the run that writes, see storage.py
_APPLICATION_ID = 0x53454E47  # "SENG"


class Catalog(Tables):
    """One connection to a catalog; the errors of ``Database``."""

    # -- opening ----------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, last_id: int = 0) -> Catalog:
        """Make a new, empty catalog in one step; ids up to ``last_id`` are taken."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE_NAME
        part = file.with_name(f"{FILE_NAME}.part")
        for stray in folder.glob(f"{FILE_NAME}*"):  # of a run killed here: a log must not be applied to another file
            stray.unlink()
        with translated(folder), writable(folder):
            catalog = cls(connect(f"{part.absolute().as_uri()}?mode=rwc"), part)
            try:
                with catalog.transaction():
                    schema.create_tables(catalog._connection)
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
        """Open the catalog of a folder; one of an older format is brought up to date, in memory unless ``write``.

        Args:
            folder: the index folder.
            write: open it for writing too.
            any_format: also open one of a newer format, as far as it can be understood.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError, IndexError_: each names the folder and the remedy.
        """
        file = folder / FILE_NAME
        # The matrix first: a run that begins at this moment makes the catalog before it.
        matrix = matrices(folder)
        if not _has_content(file):
            if matrix:
                raise IndexDamagedError(
                    f"The index in {folder} has lost its catalog ({FILE_NAME}): {rebuild_hint(folder)}"
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
        """The copy that was made when a run last finished; the errors of ``open``."""
        file = folder / BACKUP_NAME
        if not file.is_file():
            raise IndexNotFoundError(f"There is no copy of the catalog in {folder}.")
        with translated(folder):
            connection = connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1")
        return cls(connection, file, frozen=True)._checked(write=False, any_format=any_format)

    def _checked(self, *, write: bool, any_format: bool) -> Catalog:
        """This catalog, or a current copy of one of an older format."""
        folder = self.file.parent
        try:
            version = int(self.value("PRAGMA user_version"))
            if self.value("PRAGMA application_id") != _APPLICATION_ID or version < 1:
                raise IndexDamagedError(
                    f"{self.file} is not a catalog of this program, or is damaged. Choose another --index-dir or, if "
                    f"it was one, {rebuild_hint(folder)}"
                )
            if version > schema.FORMAT and not any_format:
                raise IndexVersionError(
                    f"The index in {folder} has a newer format ({version}; this program reads up to {schema.FORMAT}). "
                    f"Update the program, or {rebuild_hint(folder)}"
                )
            if version >= schema.FORMAT:
                return self
            if write:
                self._upgrade(version)
                return self
            copy = self.in_memory()
        except BaseException:
            self.close()
            raise
        self.close()
        try:
            copy._upgrade(version)
        except BaseException:
            copy.close()
            raise
        return copy

    def _upgrade(self, version: int) -> None:
        with translated(self.file.parent), self.transaction():
            try:
                schema.upgrade(self._connection, version)
            except ValueError as error:
                raise self.damaged(str(error)) from error

    def back_up(self) -> None:
        """Copy it to a file beside it, which replaces the last copy in one step."""
        folder = self.file.parent
        with writable(folder), replacing(folder / BACKUP_NAME) as part:
            self.copy_to(part)

    # -- manifest ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        """One entry of the manifest."""
        value = self.value("SELECT value FROM manifest WHERE key = ?", (key,))
        return None if value is None else str(value)

    def need(self, key: str) -> str:
        """One entry of the manifest, which must exist; IndexDamagedError."""
        value = self.get(key)
        if value is None:
            raise self.damaged(f"its manifest lacks {key!r}")
        return value

    def need_number(self, key: str) -> int:
        """One entry of the manifest, which must be a whole number of at least 0; IndexDamagedError."""
        value = self.need(key)
        if not (value.isascii() and value.isdecimal()):
            raise self.damaged(f"its manifest says {key} is {value!r}")
        return int(value)

    def manifest(self) -> dict[str, str]:
        """All of it."""
        return dict(self.rows("SELECT key, value FROM manifest"))

    def run(self) -> tuple[int, int] | None:
        """The files that an unfinished run has read, and their total; None if there is no such run."""
        note = self.get("run")
        try:
            return parse_run_note(note)
        except ValueError as error:
            raise self.damaged(f"its manifest says run is {note!r}") from error

    def set_all(self, values: dict[str, str | None] | dict[str, str]) -> None:
        """Write entries of the manifest, or remove those with None."""
        for key, value in values.items():
            if value is None:
                self.change("DELETE FROM manifest WHERE key = ?", (key,))
            else:
                self.change("INSERT OR REPLACE INTO manifest VALUES (?, ?)", (key, value))

    def count_edit(self) -> None:
        """Note that existing rows changed: readers must read all rows again."""
        self.set_all({"edits": str(self.need_number("edits") + 1)})

    def count_detail(self) -> None:
        """Note that labels, folders or dates of existing rows changed."""
        self.set_all({"details": str(int(self.get("details") or 0) + 1)})

    def mark_revision(self) -> None:
        """Called in each transaction: two catalogs with the same revision have the same content."""
        self.set_all({"revision": uuid4().hex, "updated": timestamp()})

    @property
    def revision(self) -> bytes | None:
        """See ``mark_revision``; bytes, because a damaged one may not be text."""
        value = self.value("SELECT CAST(value AS BLOB) FROM manifest WHERE key = 'revision'")
        return None if value is None else bytes(value)

    # -- checks -----------------------------------------------------------------------------------------------------

    def damaged(self, why: str) -> IndexDamagedError:
        """The error for a catalog with impossible content."""
        return damaged(self.file, why, self.file.parent)

    def check(self) -> None:
        """Read every page; IndexDamagedError."""
        for problem in self.problems():
            raise self.damaged(problem)

    def problems(self) -> Iterator[str]:
        """Problems of its pages and tables, at most a few lines."""
        pages = [row[0] for row in self.rows("PRAGMA integrity_check(5)")]
        if pages != ["ok"]:
            yield from pages
        elif not schema.has_tables(self._connection):
            yield "its tables are not those of this program"

    def contradictions(self) -> list[tuple[str, str]]:
        """Rows that refer to a missing one: the tables of both."""
        return [(row[0], row[2]) for row in self.rows("PRAGMA foreign_key_check")]

    def everything(self) -> Generator[object, None, None]:
        """Every row of every table, one by one, to compare with a copy."""
        for table in (*schema.TABLES, "sqlite_sequence"):
            yield from self.each_row(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608
            yield table

    # -- another catalog --------------------------------------------------------------------------------------------

    def take_over(self, other: Path, within: Callable[[], None]) -> None:
        """Replace the content by that of another file, in one transaction with ``within``."""
        self.change("ATTACH DATABASE ? AS other", (str(other),))
        with self.transaction():
            for table in reversed(schema.TABLES):
                self.change(f"DELETE FROM main.{table}")  # noqa: S608
            for table in schema.TABLES:
                self.change(f"INSERT INTO main.{table} SELECT * FROM other.{table}")  # noqa: S608
            within()
        self.change("DETACH DATABASE other")


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise IndexError_(f"The index cannot be read. {file_error(error)}") from error
