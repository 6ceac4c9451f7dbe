"""Changes to a local index, a batch at a time: rows first, flushed; then the catalog, in one transaction."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError, SearchEngineError
from searchengine.index import entries, swapping
from searchengine.index.catalog import Catalog, now
from searchengine.index.changes import Batch, Known, ReadyRow, Skipped, Twin
from searchengine.index.disk import translated, writable
from searchengine.index.features import FeatureWriter, map_rows, matrices

_COMPACT_ABOVE = 0.25  # of all rows are dead: searches read them for nothing


class IndexWriter:
    """Writes to one index folder. The caller holds its lock."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.folder = folder
        self.catalog = catalog
        try:
            with translated(folder), writable(folder):
                self.dimension = catalog.need_number("dimension")
                self._features = FeatureWriter(
                    folder / catalog.need("features_file"), catalog.need_number("rows"), self.dimension
                )
        except BaseException:
            catalog.close()
            raise

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, dimension: int, last_id: int = 0) -> IndexWriter:
        """A new, empty index. ``manifest`` says what made its features; ids up to ``last_id`` are taken."""
        with writable(folder):
            # left over from a run that was killed before its catalog stood; nothing counts on it
            (folder / "features.npy").unlink(missing_ok=True)
            own = {"dimension": str(dimension), "rows": "0", "edits": "0", "features_file": "features.npy"}
            return cls(folder, Catalog.create(folder, {**manifest, **own}, last_id=last_id))

    @classmethod
    def open(cls, folder: Path) -> IndexWriter:
        """An index that is there already; the errors of ``Catalog.open``."""
        writer = cls(folder, Catalog.open(folder, write=True))
        try:
            with translated(folder):
                if entries.odd(writer.catalog):
                    raise writer.catalog.damaged("what it says of some images cannot be true")
        except BaseException:
            writer.close()
            raise
        writer._remove_strays()
        return writer

    # -- reading what is known ----------------------------------------------------------------------------------------

    def known(self) -> dict[tuple[int, bytes], Known]:
        """Every image that has a file, by root and path."""
        with translated(self.folder):
            return entries.known(self.catalog)

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

    def reserve_ids(self, last_id: int) -> None:
        """Ids up to that one are taken."""
        with self._committed():
            self.catalog.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'", (last_id,))

    def set_roots(self, roots: Iterable[tuple[int, bytes, str]]) -> None:
        """Record the image folders; ids that are in use keep their meaning."""
        with self._committed():
            entries.note_roots(self.catalog, list(roots))

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
                with writable(self.folder):
                    first = self._features.append(block)
            with self._committed():
                entries.remove(self.catalog, batch.removed)
                entries.note_seen(self.catalog, batch.seen)
                for offset, image in enumerate(batch.stored):
                    entries.store(self.catalog, image, first + offset, float(norms[offset]), checks[offset])
                entries.forget_skipped(self.catalog, ((image.root, image.path) for image in batch.stored))
                entries.forget_skipped(self.catalog, ((image.root, image.path) for image in batch.seen))
                entries.note_skipped(self.catalog, batch.skipped)
                if batch.removed or any(image.replaces for image in batch.stored):
                    self.catalog.set("edits", str(self.catalog.need_number("edits") + 1))
                self.catalog.set("rows", str(self._features.rows))
                for key, value in (manifest or {}).items():
                    self.catalog.set(key, value)
        except BaseException:
            self._features.roll_back(before)
            raise
        if batch.stored:
            with writable(self.folder):
                self._features.publish()
        return first

    def commit_ready(
        self,
        blocks: Iterable[NDArray[np.float32]],
        images: Iterable[ReadyRow],
        roots: Sequence[tuple[int, bytes, str]] = (),
    ) -> None:
        """Make ready-made features part of the index in one transaction: all of them or, if anything fails, none.

        ``blocks`` are (n, d) float32, together one row for each of ``images``; ``roots``: as for ``set_roots``.
        IndexingError, IndexDamagedError.
        """
        before = self._features.rows
        norms: list[float] = []
        checks: list[int] = []
        try:
            for given in blocks:
                block = given.astype("<f4", copy=False)
                norms += np.einsum("ij,ij->i", block, block, dtype=np.float64).tolist()
                checks += [zlib.crc32(row.tobytes()) for row in block]
                with writable(self.folder):
                    self._features.append(block)
            with self._committed():
                entries.note_roots(self.catalog, roots)
                first = entries.next_id(self.catalog)
                for offset, (image, norm2, crc) in enumerate(zip(images, norms, checks, strict=True)):
                    id_ = first + offset if image.id is None else image.id
                    entries.store_ready(self.catalog, image, id_, before + offset, norm2, crc)
                self.catalog.set("rows", str(self._features.rows))
        except BaseException:
            self._features.roll_back(before)
            raise
        with writable(self.folder):
            self._features.publish()

    def forget_skipped(self, files: Iterable[tuple[int, bytes]]) -> None:
        """Strike skipped files that are no longer there off the list."""
        with self._committed():
            entries.forget_skipped(self.catalog, files)

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
        old, file = self._features, self._next_file()
        try:
            with translated(self.folder):
                new, ids = swapping.copy_live(self.catalog, old, file)
        except IndexingError:
            file.unlink(missing_ok=True)  # the disk is full
            raise
        with self._committed():
            swapping.renumber(self.catalog, ids)
            self.catalog.set("rows", str(len(ids)))
            self._name(file)
        self._features = new
        old.close()
        self._remove_strays()

    def adopt(self, staged: Path) -> None:
        """Take over all of another index, made in a folder within this one, in one transaction."""
        file = self._next_file()
        source = Catalog.open(staged)
        try:
            with translated(staged):
                swapping.bring_over(staged / source.need("features_file"), file)
        finally:
            source.close()
        with translated(self.folder):
            self.catalog.execute("ATTACH DATABASE ? AS staged", (str(staged / self.catalog.file.name),))
        with self._committed():
            edits, created = self.catalog.need("edits"), self.catalog.need("created")
            swapping.take_tables(self.catalog)
            self.catalog.set("edits", edits)  # counted on from here, or a reader would take it for what it has seen
            self.catalog.set("created", created)
            self._name(file)
        self.catalog.execute("DETACH DATABASE staged")
        self._features.close()
        self.dimension = self.catalog.need_number("dimension")
        self._features = FeatureWriter(file, self.catalog.need_number("rows"), self.dimension)
        self._remove_strays()

    def _next_file(self) -> Path:
        return self.folder / swapping.next_name(self._features.file.name)

    def _name(self, file: Path) -> None:
        """Within a transaction: that matrix counts from now on, and readers must take up all of it anew."""
        self.catalog.set("features_file", file.name)
        self.catalog.set("edits", str(self.catalog.need_number("edits") + 1))

    def _remove_strays(self) -> None:
        """Delete feature files that the catalog does not name; readers that map one keep it until they let go."""
        for file in matrices(self.folder):
            if file.name != self._features.file.name:
                with contextlib.suppress(OSError):
                    file.unlink()

    def back_up(self) -> None:
        """Keep a copy of the catalog, unless there is one that is up to date; a damaged one is made anew by its ids.

        It is done without where there is no room for it.
        """
        with contextlib.suppress(IndexingError):
            with translated(self.folder):
                state = self.catalog.state
            if state != self._state_of_copy():
                self.catalog.back_up()

    def _state_of_copy(self) -> tuple[bytes | None, int] | None:
        try:
            copy = Catalog.open_backup(self.folder)
        except SearchEngineError:
            return None
        try:
            with translated(self.folder):
                copy.check()
                return copy.state
        except SearchEngineError:
            return None
        finally:
            copy.close()

    # -- the rest -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _committed(self) -> Iterator[None]:
        with translated(self.folder), self.catalog.transaction():
            commits = self.catalog.commits  # before it: all that the manifest says may be replaced
            yield
            self.catalog.set("commits", str(commits + 1))
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
