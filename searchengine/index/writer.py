"""Changes to a local index, a batch at a time: rows first, flushed; then the catalog, in one transaction."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.index.catalog import Catalog, now, translated
from searchengine.index.changes import Batch, FileState, ImageRow, Known, ReadyRow, Seen, Skipped, Twin
from searchengine.index.features import FeatureWriter, map_rows

_COMPACT_ABOVE = 0.25  # of all rows are dead: searches read them for nothing
_COPY_ROWS = 4096


class IndexWriter:
    """Writes to one index folder. The caller holds its lock."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.folder = folder
        self.catalog = catalog
        try:
            with translated(folder), _disk(folder):
                self.dimension = int(catalog.need("dimension"))
                self._features = FeatureWriter(
                    folder / catalog.need("features_file"), int(catalog.need("rows")), self.dimension
                )
        except BaseException:
            catalog.close()
            raise

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, dimension: int, last_id: int = 0) -> IndexWriter:
        """A new, empty index. ``manifest`` says what made its features; ids up to ``last_id`` are taken."""
        with _disk(folder):
            # left over from a run that was killed before its catalog stood; nothing counts on it
            (folder / "features.npy").unlink(missing_ok=True)
            own = {"dimension": str(dimension), "rows": "0", "edits": "0", "features_file": "features.npy"}
            return cls(folder, Catalog.create(folder, {**manifest, **own}, last_id=last_id))

    @classmethod
    def open(cls, folder: Path) -> IndexWriter:
        """An index that is there already; the errors of ``Catalog.open``."""
        writer = cls(folder, Catalog.open(folder, write=True))
        writer._remove_strays()
        return writer

    # -- reading what is known ----------------------------------------------------------------------------------------

    def known(self) -> dict[tuple[int, bytes], Known]:
        """Every image that has a file, by root and path."""
        with translated(self.folder):
            labels: dict[int, tuple[str, ...]] = {}
            for image, label in self.catalog.execute("SELECT image, label FROM labels ORDER BY image, position"):
                labels[image] = (*labels.get(image, ()), label)
            return {
                (root, path): Known(id_, row, digest, FileState(size, mtime, bool(settled)), labels.get(id_, ()))
                for id_, root, path, row, digest, size, mtime, settled in self.catalog.execute(
                    "SELECT id, root, path, row, content_hash, size, mtime_ns, settled FROM images "
                    "WHERE path IS NOT NULL"
                )
            }

    def skipped(self) -> dict[tuple[int, bytes], Skipped]:
        """Every file that was skipped, by root and path."""
        with translated(self.folder):
            return {(row[0], row[1]): Skipped(*row) for row in self.catalog.execute("SELECT * FROM skipped")}

    def roots(self) -> list[tuple[int, bytes, str]]:
        """The image folders: id, path, name."""
        with translated(self.folder):
            return list(self.catalog.execute("SELECT id, path, name FROM roots ORDER BY id"))

    def feature(self, row: int) -> NDArray[np.float32]:
        """A copy of one committed row, (d,) float32."""
        mapped = map_rows(self._features.file, self._features.rows, self.dimension)
        return np.array(mapped[row], dtype=np.float32)

    def twin(self, content_hash: bytes) -> Twin | None:
        """An image of that very content, if there is one."""
        with translated(self.folder):
            row = self.catalog.execute(
                "SELECT row, width, height, colour, format FROM images WHERE content_hash = ? LIMIT 1", (content_hash,)
            ).fetchone()
        return None if row is None else Twin(self.feature(row[0]), *row[1:])

    # -- writing ------------------------------------------------------------------------------------------------------

    def set_roots(self, roots: Iterable[tuple[int, bytes, str]]) -> None:
        """Record the image folders; ids that are in use keep their meaning."""
        with self._committed():
            self.catalog.execute_many(
                "INSERT INTO roots VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET path = excluded.path, name = excluded.name",
                roots,
            )

    def set(self, values: dict[str, str | None]) -> None:
        """Write entries of the manifest."""
        with self._committed():
            for key, value in values.items():
                self.catalog.set(key, value)

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> int:
        """Make one batch part of the index: all of it or, if anything fails, nothing.

        Returns the row of the first stored image; the others follow it.

        Raises:
            IndexingError: the disk is full or read-only; IndexDamagedError.
        """
        before = self._features.rows
        try:
            first = before
            norms: NDArray[np.float64] = np.empty(0)
            checks: list[int] = []
            if batch.stored:
                block = np.stack(batch.features).astype("<f4", copy=False)  # n of (d,) -> (n, d)
                norms = np.einsum("ij,ij->i", block, block, dtype=np.float64)
                checks = [zlib.crc32(row.tobytes()) for row in block]
                with _disk(self.folder):
                    first = self._features.append(block)
            with self._committed():
                self._remove(batch.removed)
                self._note_seen(batch.seen)
                for offset, image in enumerate(batch.stored):
                    self._store(image, first + offset, float(norms[offset]), checks[offset])
                self._note_skipped(batch)
                if batch.removed or any(image.replaces for image in batch.stored):
                    self.catalog.set("edits", str(int(self.catalog.need("edits")) + 1))
                self.catalog.set("rows", str(self._features.rows))
                for key, value in (manifest or {}).items():
                    self.catalog.set(key, value)
        except BaseException:
            self._features.roll_back(before)
            raise
        if batch.stored:
            with _disk(self.folder):
                self._features.publish()
        return first

    def commit_ready(self, blocks: Iterable[NDArray[np.float32]], images: Iterable[ReadyRow]) -> None:
        """Make ready-made features part of the index in one transaction: all of them or, if anything fails, none.

        ``blocks`` are (n, d) float32, together one row for each of ``images``. IndexingError, IndexDamagedError.
        """
        before = self._features.rows
        norms: list[float] = []
        checks: list[int] = []
        try:
            for given in blocks:
                block = given.astype("<f4", copy=False)
                norms += np.einsum("ij,ij->i", block, block, dtype=np.float64).tolist()
                checks += [zlib.crc32(row.tobytes()) for row in block]
                with _disk(self.folder):
                    self._features.append(block)
            with self._committed():
                next_id = (
                    int(self.catalog.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()[0]) + 1
                )
                for offset, (image, norm2, crc) in enumerate(zip(images, norms, checks, strict=True)):
                    id_ = next_id + offset if image.id is None else image.id
                    state = image.state
                    self.catalog.execute(
                        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            id_, image.root, image.path, before + offset, norm2, crc, image.content_hash,
                            state and state.size, state and state.mtime_ns, state and int(state.settled), image.width,
                            image.height, image.colour, image.format,
                        ),
                    )  # fmt: skip
                    self._label(id_, image.labels)
                self.catalog.set("rows", str(self._features.rows))
        except BaseException:
            self._features.roll_back(before)
            raise
        with _disk(self.folder):
            self._features.publish()

    def _store(self, image: ImageRow, row: int, norm2: float, crc: int) -> None:
        values = (
            image.root, image.path, row, norm2, crc, image.content_hash, image.state.size, image.state.mtime_ns,
            int(image.state.settled), image.width, image.height, image.colour, image.format,
        )  # fmt: skip
        if image.replaces:
            self.catalog.execute(
                "UPDATE images SET root = ?, path = ?, row = ?, norm2 = ?, crc = ?, content_hash = ?, size = ?, "
                "mtime_ns = ?, settled = ?, width = ?, height = ?, colour = ?, format = ? WHERE id = ?",
                (*values, image.id),
            )
            id_ = image.id
        else:
            id_ = self.catalog.execute(
                "INSERT INTO images (root, path, row, norm2, crc, content_hash, size, mtime_ns, settled, width, "
                "height, colour, format, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, image.id),
            ).lastrowid
        assert id_ is not None
        self._label(id_, image.labels)

    def _label(self, id_: int, labels: tuple[str, ...]) -> None:
        self.catalog.execute("DELETE FROM labels WHERE image = ?", (id_,))
        self.catalog.execute_many("INSERT INTO labels VALUES (?, ?, ?)", ((id_, i, t) for i, t in enumerate(labels)))

    def _note_seen(self, seen: list[Seen]) -> None:
        # First all out of the way: two files may have swapped names, and a path stands but once.
        self.catalog.execute_many("UPDATE images SET path = NULL WHERE id = ?", ((image.id,) for image in seen))
        for image in seen:
            self.catalog.execute(
                "UPDATE images SET root = ?, path = ?, size = ?, mtime_ns = ?, settled = ? WHERE id = ?",
                (
                    image.root,
                    image.path,
                    image.state.size,
                    image.state.mtime_ns,
                    int(image.state.settled),
                    image.id,
                ),
            )
            self._label(image.id, image.labels)

    def _note_skipped(self, batch: Batch) -> None:
        found = [(image.root, image.path) for image in batch.stored]
        found += [(image.root, image.path) for image in batch.seen]
        self.catalog.execute_many("DELETE FROM skipped WHERE root = ? AND path = ?", found)
        self.catalog.execute_many(
            "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?)",
            ((file.root, file.path, file.reason, file.size, file.mtime_ns) for file in batch.skipped),
        )

    def forget_skipped(self, files: Iterable[tuple[int, bytes]]) -> None:
        """Strike skipped files that are no longer there off the list."""
        with self._committed():
            self.catalog.execute_many("DELETE FROM skipped WHERE root = ? AND path = ?", files)

    def _remove(self, ids: list[int]) -> None:
        self.catalog.execute_many("DELETE FROM images WHERE id = ?", ((id_,) for id_ in ids))

    # -- compaction ---------------------------------------------------------------------------------------------------

    def compact_if_sparse(self) -> bool:
        """Compact when more than a quarter of the rows are dead."""
        with translated(self.folder):
            live = int(self.catalog.execute("SELECT count(*) FROM images").fetchone()[0])
        if self._features.rows - live <= _COMPACT_ABOVE * self._features.rows:
            return False
        self.compact()
        return True

    def compact(self) -> None:
        """Copy the rows that count into a new file, and name it in the same transaction. Ids stay."""
        with translated(self.folder):
            live = list(self.catalog.execute("SELECT row, id FROM images ORDER BY row"))
        old = self._features
        source = map_rows(old.file, old.rows, self.dimension)
        file = self.folder / _next_name(old.file.name)
        with _disk(self.folder):
            file.unlink(missing_ok=True)
            new = FeatureWriter(file, 0, self.dimension)
            for start in range(0, len(live), _COPY_ROWS):
                new.append(source[[row for row, _ in live[start : start + _COPY_ROWS]]])
            new.publish()
        with self._committed():
            # ascending, so that no row number is taken by two at any time
            self.catalog.execute_many(
                "UPDATE images SET row = ? WHERE id = ?", ((row, id_) for row, (_, id_) in enumerate(live))
            )
            self.catalog.set("features_file", file.name)
            self.catalog.set("rows", str(len(live)))
            self.catalog.set("edits", str(int(self.catalog.need("edits")) + 1))
        self._features = new
        old.close()
        self._remove_strays()

    def adopt(self, staged: Path) -> None:
        """Take over all of another index, made in a folder within this one, in one transaction."""
        source = Catalog.open(staged)
        file = self.folder / _next_name(self.catalog.need("features_file"))
        with _disk(self.folder):
            file.unlink(missing_ok=True)
            made = staged / source.need("features_file")
            try:
                file.hardlink_to(made)
            except OSError:  # a file system without hard links
                shutil.copyfile(made, file)
        source.close()
        with translated(self.folder):
            self.catalog.execute("ATTACH DATABASE ? AS staged", (str(staged / self.catalog.file.name),))
        tables = ("labels", "skipped", "images", "roots", "manifest")
        with self._committed():
            edits = int(self.catalog.need("edits")) + 1
            created = self.catalog.need("created")
            for table in tables:
                self.catalog.execute(f"DELETE FROM main.{table}")  # noqa: S608
            for table in reversed(tables):
                self.catalog.execute(f"INSERT INTO main.{table} SELECT * FROM staged.{table}")  # noqa: S608
            self.catalog.set("features_file", file.name)
            self.catalog.set("edits", str(edits))
            self.catalog.set("created", created)
        self.catalog.execute("DETACH DATABASE staged")
        self._features.close()
        self.dimension = int(self.catalog.need("dimension"))
        self._features = FeatureWriter(file, int(self.catalog.need("rows")), self.dimension)
        self._remove_strays()

    def _remove_strays(self) -> None:
        """Delete feature files that the catalog does not name; readers that map one keep it until they let go."""
        for file in self.folder.glob("features*.npy"):
            if file.name != self._features.file.name:
                with contextlib.suppress(OSError):
                    file.unlink()

    # -- the rest -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _committed(self) -> Iterator[None]:
        with translated(self.folder), self.catalog.transaction():
            yield
            self.catalog.set("updated", now())

    def close(self) -> None:
        """Close both files, the write-ahead log folded in where no reader is in the way."""
        with contextlib.suppress(sqlite3.Error):
            self.catalog.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._features.close()
        self.catalog.close()

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_note(done: int, total: int, started: str) -> str:
    """What the manifest says under ``run`` while a run goes on."""
    return json.dumps({"done": done, "total": total, "started": started})


def _next_name(name: str) -> str:
    """features.npy -> features-2.npy -> features-3.npy ..."""
    _, _, number = name.removesuffix(".npy").partition("-")
    return f"features-{int(number or 1) + 1}.npy"


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise IndexingError(
                f"The disk that holds {folder} is full. The index is as it was before the last batch: make room and "
                "give the same command again."
            ) from error
        raise IndexingError(f"The index folder {folder} cannot be written to: {error.strerror}.") from error
