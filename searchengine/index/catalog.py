"""The catalog: an SQLite file that says which rows of the feature matrix count, and what stands behind each.

It is the only truth about an index. Whatever it does not mention (rows past the published count, an older feature
file) does not exist. Every change is one transaction, and all SQL is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
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
from searchengine.index import schema
from searchengine.index.database import (
    Database,
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
from searchengine.index.types import FileState, ImageRow, ImageUpdate, IndexedImage, Place, Skipped

FILE_NAME = "catalog.sqlite"
BACKUP_NAME = "backup.sqlite"
_APPLICATION_ID = 0x53454E47  # "SENG"

_COLUMNS = (
    "root", "path", "row", "norm2", "crc", "content_hash", "size", "mtime_ns", "settled", "width", "height", "colour",
    "format", "ctime_ns", "id",
)  # fmt: skip
_INSERT = f"INSERT INTO images ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_UPDATE = f"UPDATE images SET {', '.join(f'{name} = ?' for name in _COLUMNS[:-1])} WHERE id = ?"  # noqa: S608

# Each column of a sound row is what the writer puts there; NULL where there is no file.
_IMPOSSIBLE = """
SELECT id FROM images WHERE NOT (
    typeof(row) = 'integer' AND typeof(norm2) = 'real' AND typeof(crc) = 'integer'
    AND (path IS NULL OR typeof(path) = 'blob')
    AND (content_hash IS NULL OR (typeof(content_hash) = 'blob' AND length(content_hash) = 16))
    AND (size IS NULL OR (typeof(size) = 'integer' AND size >= 0))
    AND (mtime_ns IS NULL OR typeof(mtime_ns) = 'integer')
    AND (ctime_ns IS NULL OR typeof(ctime_ns) = 'integer')
    AND (settled IS NULL OR settled IN (0, 1))
    AND (width IS NULL OR (typeof(width) = 'integer' AND width > 0))
    AND (height IS NULL OR (typeof(height) = 'integer' AND height > 0))
    AND (colour IS NULL OR colour GLOB '#[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]')
    AND (format IS NULL OR typeof(format) = 'text')
)
"""


class Catalog(Database):
    """One connection to a catalog; the errors of ``Database``."""

    # -- opening ----------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, last_id: int = 0) -> Catalog:
        """Make a new, empty catalog in the folder; ids up to ``last_id`` are taken. It exists whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE_NAME
        part = file.with_name(f"{FILE_NAME}.part")
        for stray in folder.glob(f"{FILE_NAME}*"):  # of a run that was killed right here: no log must meet another file
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
            any_format: open also one of a newer format, as far as it can be understood.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError, IndexError_: each names the folder and the remedy.
        """
        file = folder / FILE_NAME
        # The matrix is looked for first: a run that begins just now makes the catalog before it.
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
        """This catalog or, of an older format, one that is up to date."""
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
        """Copy all of it to a file beside it, which takes the place of the last such copy when it is whole."""
        folder = self.file.parent
        with writable(folder), replacing(folder / BACKUP_NAME) as part:
            self.copy_to(part)

    # -- manifest ---------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        """One entry of the manifest."""
        value = self.value("SELECT value FROM manifest WHERE key = ?", (key,))
        return None if value is None else str(value)

    def need(self, key: str) -> str:
        """One entry of the manifest that must exist; IndexDamagedError."""
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

    def manifest(self) -> dict[str, str]:
        """All of it."""
        return dict(self.rows("SELECT key, value FROM manifest"))

    def run(self) -> tuple[int, int] | None:
        """How many files the run that is active, or was killed, has done, and of how many; None if none is."""
        note = self.get("run")
        if note is None:
            return None
        try:
            values = parse_json(note)
            return int(values["done"]), int(values["total"])
        except (TypeError, ValueError, KeyError) as error:
            raise self.damaged(f"its manifest says run is {note!r}") from error

    def set_all(self, values: dict[str, str | None] | dict[str, str]) -> None:
        """Write entries of the manifest, or remove those with None."""
        for key, value in values.items():
            if value is None:
                self.change("DELETE FROM manifest WHERE key = ?", (key,))
            else:
                self.change("INSERT OR REPLACE INTO manifest VALUES (?, ?)", (key, value))

    def count_edit(self) -> None:
        """Rows that readers have seen changed, so that they must read all of them again."""
        self.set_all({"edits": str(self.need_number("edits") + 1)})

    def mark_revision(self) -> None:
        """Part of each transaction: two catalogs with the same revision say the same."""
        self.set_all({"revision": uuid4().hex, "updated": timestamp()})

    @property
    def revision(self) -> bytes | None:
        """See ``mark_revision``; as bytes, because damaged ones are no text."""
        value = self.value("SELECT CAST(value AS BLOB) FROM manifest WHERE key = 'revision'")
        return None if value is None else bytes(value)

    # -- checks -----------------------------------------------------------------------------------------------------

    def damaged(self, why: str) -> IndexDamagedError:
        """The error for a catalog that cannot be true."""
        return damaged(self.file, why, self.file.parent)

    def check(self) -> None:
        """Read every page; IndexDamagedError."""
        for problem in self.problems():
            raise self.damaged(problem)

    def problems(self) -> Iterator[str]:
        """What is wrong with its pages and its tables, at most a few lines."""
        pages = [row[0] for row in self.rows("PRAGMA integrity_check(5)")]
        if pages != ["ok"]:
            yield from pages
        elif not schema.has_tables(self._connection):
            yield "its tables are not those of this program"

    def contradictions(self) -> list[tuple[str, str]]:
        """Rows that refer to one that is missing: the tables of both."""
        return [(row[0], row[2]) for row in self.rows("PRAGMA foreign_key_check")]

    def impossible_images(self) -> list[int]:
        """The ids of images of which the catalog says what cannot be."""
        return [row[0] for row in self.rows(_IMPOSSIBLE)]

    def everything(self) -> Generator[object, None, None]:
        """Every row of every table, one by one, to be compared with those of a copy."""
        for table in (*schema.TABLES, "sqlite_sequence"):
            yield from self.each_row(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608
            yield table

    # -- images -----------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Images in the index."""
        return int(self.value("SELECT count(*) FROM images"))

    def ids(self) -> set[int]:
        """Of all images."""
        return {row[0] for row in self.rows("SELECT id FROM images")}

    def last_id(self) -> int:
        """The largest id that was ever given; none is given twice."""
        return int(self.value("SELECT seq FROM sqlite_sequence WHERE name = 'images'") or 0)

    def reserve_ids(self, last_id: int) -> None:
        """Ids up to that one are taken."""
        self.change("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'", (last_id,))

    def rows_from(self, first: int | None) -> list[tuple[int, int, float]]:
        """(row, id, squared norm) of each image whose row is at least ``first``; of all for None."""
        least = -(2**63) if first is None else first  # of a damaged catalog, rows below 0 are to be seen too
        return self.rows("SELECT row, id, norm2 FROM images WHERE row >= ?", (least,))

    def checksums(self) -> list[tuple[int, int, float, int]]:
        """(row, CRC-32, squared norm, id) of each image, by row."""
        return self.rows("SELECT row, crc, norm2, id FROM images ORDER BY row")

    def known(self) -> dict[Place, IndexedImage]:
        """Every image that has a file, by root and path."""
        labels: dict[int, tuple[str, ...]] = {}
        for image, label in self.rows("SELECT image, label FROM labels ORDER BY image, position"):
            labels[image] = (*labels.get(image, ()), label)
        return {
            (root, path): IndexedImage(
                id_, row, digest, FileState(size, mtime, bool(settled), ctime), labels.get(id_, ())
            )
            for id_, root, path, row, digest, size, mtime, settled, ctime in self.rows(
                "SELECT id, root, path, row, content_hash, size, mtime_ns, settled, ctime_ns FROM images "
                "WHERE path IS NOT NULL"
            )
        }

    def places(self) -> set[Place]:
        """Root and path of every image that has a file."""
        return set(self.rows("SELECT root, path FROM images WHERE root IS NOT NULL"))

    def files(self) -> Iterator[tuple[int, bytes, bytes, bytes | None]]:
        """(id, folder, path within it, content hash) of every image that has a file, by id."""
        return self.each_row(
            "SELECT images.id, roots.path, images.path, content_hash FROM images JOIN roots ON roots.id = images.root "
            "ORDER BY images.id"
        )

    def of_content(self, content_hash: bytes) -> tuple[Any, ...] | None:
        """(id, row, width, height, colour, format) of the first image of that content."""
        rows = self.rows(
            "SELECT id, row, width, height, colour, format FROM images WHERE content_hash = ? ORDER BY id LIMIT 1",
            (content_hash,),
        )
        return rows[0] if rows else None

    def ids_of_paths(self, *paths: bytes) -> list[int]:
        """The ids of images with one of those paths."""
        marks = ", ".join("?" * len(paths))
        return [row[0] for row in self.rows(f"SELECT id FROM images WHERE path IN ({marks}) ORDER BY id", paths)]  # noqa: S608

    def records(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """(id, root, path, width, height, colour, size, format, content hash, labels) of those that exist."""
        wanted = (json.dumps(list(ids)),)
        labels: dict[int, tuple[str, ...]] = {}
        for image, label in self.rows(
            "SELECT image, label FROM labels WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, position",
            wanted,
        ):
            labels[image] = (*labels.get(image, ()), label)
        rows = self.rows(
            "SELECT id, root, path, width, height, colour, size, format, content_hash FROM images "
            "WHERE id IN (SELECT value FROM json_each(?))",
            wanted,
        )
        return [(*row, labels.get(row[0], ())) for row in rows]

    def store(self, image: ImageRow, row: int, norm2: float, crc: int) -> None:
        """A new image, or the new content of a known one, whose feature is that row of the matrix."""
        state = image.state
        values = (
            image.root, image.path, row, norm2, crc, image.content_hash, state and state.size, state and state.mtime_ns,
            state and int(state.settled), image.width, image.height, image.colour, image.format,
            state and state.ctime_ns, image.id,
        )  # fmt: skip
        if image.replaces:
            assert image.id is not None
            self.change(_UPDATE, values)
            self.set_labels(image.id, image.labels)
        else:
            self._add_labels(self.change(_INSERT, values), image.labels)

    def set_labels(self, image: int, labels: Sequence[str]) -> None:
        """The labels of an image, in place of those that it had."""
        self.change("DELETE FROM labels WHERE image = ?", (image,))
        self._add_labels(image, labels)

    def _add_labels(self, image: int, labels: Sequence[str]) -> None:
        self.change_many("INSERT INTO labels VALUES (?, ?, ?)", ((image, i, label) for i, label in enumerate(labels)))

    def move(self, seen: Sequence[ImageUpdate]) -> None:
        """Known images that were found again, perhaps at another place or with other labels."""
        # First all paths are cleared: two files may have swapped names, and each path is unique.
        self.change_many("UPDATE images SET path = NULL WHERE id = ?", ((image.id,) for image in seen))
        for image in seen:
            state = image.state
            self.change(
                "UPDATE images SET root = ?, path = ?, size = ?, mtime_ns = ?, settled = ?, ctime_ns = ? WHERE id = ?",
                (image.root, image.path, state.size, state.mtime_ns, int(state.settled), state.ctime_ns, image.id),
            )
            self.set_labels(image.id, image.labels)

    def remove(self, ids: Iterable[int]) -> None:
        """Images go, and their labels with them; their rows of the matrix are dead from now on."""
        self.change_many("DELETE FROM images WHERE id = ?", ((id_,) for id_ in ids))

    def renumber(self, ids: Sequence[int]) -> None:
        """Row 0, 1, ... for those images, which were in the order of their rows."""
        # ascending, so that no row number is taken by two at any time
        self.change_many("UPDATE images SET row = ? WHERE id = ?", enumerate(ids))

    # -- image folders ----------------------------------------------------------------------------------------------

    def roots(self) -> list[tuple[int, bytes, str]]:
        """The image folders: id, path, name."""
        return self.rows("SELECT id, path, name FROM roots ORDER BY id")

    def set_roots(self, roots: Sequence[tuple[int, bytes, str]]) -> None:
        """The image folders: id, path, name; ids that are in use keep their meaning."""
        # two may have changed places, and no two may have the same, not even for a moment
        self.change_many("UPDATE roots SET path = ? WHERE id = ?", ((b"%d" % id_, id_) for id_, _, _ in roots))
        self.change_many(
            "INSERT INTO roots VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET path = excluded.path, "
            "name = excluded.name",
            roots,
        )

    # -- files that were skipped ------------------------------------------------------------------------------------

    def skipped(self) -> list[Skipped]:
        """Every file that could not be used."""
        return [Skipped(*row) for row in self.rows("SELECT * FROM skipped ORDER BY root, path")]

    def count_skipped(self) -> int:
        """How many they are."""
        return int(self.value("SELECT count(*) FROM skipped"))

    def add_skipped(self, files: Iterable[Skipped]) -> None:
        """Files that could not be used."""
        self.change_many(
            "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?, ?)",
            ((file.root, file.path, file.reason, file.size, file.mtime_ns, file.ctime_ns) for file in files),
        )

    def forget_skipped(self, files: Iterable[tuple[int | None, bytes | None]]) -> None:
        """Files that are images now, or gone."""
        self.change_many("DELETE FROM skipped WHERE root = ? AND path = ?", files)

    # -- another catalog --------------------------------------------------------------------------------------------

    def take_over(self, other: Path, within: Callable[[], None]) -> None:
        """Replace all that this catalog holds by what another file holds, in one transaction with ``within``."""
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
