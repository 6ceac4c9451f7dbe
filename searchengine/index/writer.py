"""An index folder, open for writing. A batch is appended to the matrix and flushed, then committed to the catalog."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError, SearchEngineError
from searchengine.files import flush, flush_folder
from searchengine.index.catalog import Catalog
from searchengine.index.database import on_error, writable
from searchengine.index.features import FeatureWriter, map_rows, matrices, next_name
from searchengine.index.protocol import Writer
from searchengine.index.types import Batch, ImageFolder, ImageRow, IndexedImage, Place, Skipped, Twin

_COMPACT_ABOVE = 0.25  # share of dead rows, which searches still read
_COPY_ROWS = 4096


class IndexWriter(Writer):
    """Writes to one index folder, whose lock the caller holds.

    Methods that write raise IndexingError if the disk is full or read-only, and IndexDamagedError. ``Writer`` documents
    the methods that have no docstring here.
    """

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.address = self.folder = folder
        self.catalog = catalog
        with on_error(catalog.close):
            self._features = self._feature_writer()

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, str], *, dimension: int, last_id: int = 0) -> IndexWriter:
        """Create an empty index. ``manifest`` names the extractor; ids up to ``last_id`` count as used."""
        with writable(folder):
            # left by a run that was killed before it created the catalog; nothing refers to it
            (folder / "features.npy").unlink(missing_ok=True)
            own = {"dimension": str(dimension), "rows": "0", "edits": "0", "features_file": "features.npy"}
            return cls(folder, Catalog.create(folder, {**manifest, **own}, last_id=last_id))

    @classmethod
    def open(cls, folder: Path) -> IndexWriter:
        """Open an existing index; raises what ``Catalog.open`` raises."""
        writer = cls(folder, Catalog.open(folder, write=True))
        with on_error(writer.close):
            if writer.catalog.impossible_images():
                raise writer.catalog.damaged("its entries for some images are impossible")
        writer._remove_strays()
        return writer

    def _feature_writer(self) -> FeatureWriter:
        """Open the matrix that the catalog names."""
        catalog = self.catalog
        with writable(self.folder):
            return FeatureWriter(
                self.folder / catalog.need("features_file"),
                catalog.need_number("rows"),
                catalog.need_number("dimension"),
            )

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def dimension(self) -> int:
        """The length of a feature vector."""
        return self._features.dimension

    def known(self) -> dict[Place, IndexedImage]:
        return self.catalog.known()

    def skipped(self) -> dict[Place, Skipped]:
        return {(file.root, file.path): file for file in self.catalog.skipped()}

    def roots(self) -> list[ImageFolder]:
        return self.catalog.roots()

    def manifest(self, key: str) -> str | None:
        return self.catalog.get(key)

    def count(self) -> int:
        return self.catalog.count()

    def twin(self, content_hash: bytes) -> Twin | None:
        row = self.catalog.of_content(content_hash)
        if row is None:
            return None
        if not 0 <= row[1] < self._features.rows:
            raise self.catalog.damaged("it refers to rows that the feature matrix does not have")
        mapped = map_rows(self._features.file, self._features.rows, self.dimension)
        return Twin(np.array(mapped[row[1]], dtype=np.float32), *row[2:])

    # -- writing ------------------------------------------------------------------------------------------------------

    def reserve_ids(self, last_id: int) -> None:
        """Mark ids up to ``last_id`` as used."""
        with self._committed():
            self.catalog.reserve_ids(last_id)

    def set_roots(self, roots: Iterable[ImageFolder]) -> None:
        with self._committed():
            self.catalog.set_roots(list(roots))

    def set(self, values: dict[str, str | None]) -> None:
        with self._committed():
            self.catalog.set_all(values)

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> None:
        blocks = [np.stack(batch.features)] if batch.stored else []  # n of (d,) -> (n, d)
        with self._appended(blocks) as rows:
            self.catalog.remove(batch.removed)
            self.catalog.move(batch.seen)
            self.catalog.set_shots(batch.shots)
            for image, row in zip(batch.stored, rows, strict=True):
                self.catalog.store(image, *row)
            self.catalog.forget_skipped((image.root, image.path) for image in batch.stored)
            self.catalog.forget_skipped((image.root, image.path) for image in batch.seen)
            self.catalog.add_skipped(batch.skipped)
            if batch.removed or any(image.replaces for image in batch.stored):
                self.catalog.count_edit()
            if batch.seen or batch.shots:
                self.catalog.count_detail()
            self.catalog.set_all(manifest or {})

    def commit_ready(
        self,
        blocks: Iterable[NDArray[np.float32]],
        images: Sequence[ImageRow],
        roots: Sequence[ImageFolder] = (),
    ) -> None:
        """Add imported features in one transaction: all of them or, if anything fails, none.

        ``blocks`` are (n, d) float32 and together have one row for each of ``images``; ``roots`` is that of
        ``set_roots``.
        """
        with self._appended(blocks) as rows:
            self.catalog.set_roots(roots)
            for image, row in zip(images, rows, strict=True):
                self.catalog.store(image, *row)

    @contextlib.contextmanager
    def _appended(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[list[tuple[int, float, int]]]:
        """Append rows, then open a transaction that publishes them; yields (row, squared norm, CRC-32) of each row.

        If the transaction fails, the rows are rolled back.
        """
        before = self._features.rows
        rows: list[tuple[int, float, int]] = []
        try:
            for block in blocks:
                block = block.astype("<f4", copy=False)
                with writable(self.folder):
                    first = self._features.append(block)
                norms = np.einsum("ij,ij->i", block, block, dtype=np.float64).tolist()
                checks = [zlib.crc32(row.tobytes()) for row in block]
                rows += zip(range(first, first + len(block)), norms, checks, strict=True)
            with self._committed():
                yield rows
                self.catalog.set_all({"rows": str(self._features.rows)})
        except BaseException:
            self._features.roll_back(before)
            raise
        if rows:
            with writable(self.folder):
                self._features.publish()

    @contextlib.contextmanager
    def _committed(self) -> Iterator[None]:
        with self.catalog.transaction():
            yield
            self.catalog.mark_revision()

    def forget_skipped(self, files: Iterable[Place]) -> None:
        with self._committed():
            self.catalog.forget_skipped(files)

    # -- replacing the matrix -----------------------------------------------------------------------------------------
    #
    # The new file is written and flushed under a new name; then the catalog names it. So a reader maps one file or the
    # other. A run that is killed in between leaves a stray file, which the next run deletes.

    def compact_if_sparse(self) -> None:
        if self._features.rows - self.count() > _COMPACT_ABOVE * self._features.rows:
            self.compact()

    def compact(self) -> None:
        """Copy the live rows into a new file and publish it in one transaction; ids stay the same."""
        old, file = self._features, self._next_file()
        live = self.catalog.checksums()
        try:
            with writable(self.folder):
                new = _copy_rows(old, [row for row, *_ in live], file)
        except IndexingError:
            file.unlink(missing_ok=True)  # the disk is probably full
            raise
        with self._committed():
            self.catalog.renumber([id_ for *_, id_ in live])
            self._use(file, len(live))
        self._features = new
        old.close()
        self._remove_strays()

    def empty(self, manifest: dict[str, str], dimension: int) -> None:
        """Turn an index without images into one of another extractor; ids that were given stay used."""
        file = self._next_file()
        with self._committed():
            self.catalog.set_all({**manifest, "dimension": str(dimension)})
            self._use(file, 0)
        self._features.close()
        self._features = self._feature_writer()
        self._remove_strays()

    def adopt(self, staged: Path) -> None:
        """Replace the content by that of the index in a folder inside this one, in one transaction."""
        file = self._next_file()
        with contextlib.closing(Catalog.open(staged)) as source:
            matrix, rows = staged / source.need("features_file"), source.need_number("rows")
        with writable(self.folder):
            _link_or_copy(matrix, file)
        # the count of edits continues, or a reader might mistake the new content for the old
        kept: dict[str, str | None] = {key: self.catalog.need(key) for key in ("edits", "created")}

        def finish() -> None:
            self.catalog.set_all(kept)
            self._use(file, rows)
            self.catalog.mark_revision()

        self.catalog.take_over(staged / self.catalog.file.name, finish)
        self._features.close()
        self._features = self._feature_writer()
        self._remove_strays()

    def _next_file(self) -> Path:
        return self.folder / next_name(self._features.file.name)

    def _use(self, file: Path, rows: int) -> None:
        """Within a transaction, publish another matrix, which readers must read from the beginning."""
        self.catalog.set_all({"features_file": file.name, "rows": str(rows)})
        self.catalog.count_edit()

    def _remove_strays(self) -> None:
        """Delete feature files that the catalog does not name; a reader that has mapped one keeps its data."""
        for file in matrices(self.folder):
            if file.name != self._features.file.name:
                with contextlib.suppress(OSError):
                    file.unlink()

    # -- the end of a run ---------------------------------------------------------------------------------------------

    def back_up(self) -> None:
        """Update the backup of the catalog, from which a damaged index takes its ids.

        If there is no room for it, the index does without.
        """
        with contextlib.suppress(IndexingError):
            if self.catalog.revision != self._backup_revision():
                self.catalog.back_up()

    def _backup_revision(self) -> str | None:
        with (
            contextlib.suppress(SearchEngineError),
            contextlib.closing(Catalog.open_backup(self.folder)) as copy,
        ):
            copy.check()
            return copy.revision
        return None

    def close(self) -> None:
        """Close both files, and write the write-ahead log back unless a reader prevents it."""
        self.catalog.fold_log()
        self._features.close()
        self.catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _copy_rows(old: FeatureWriter, rows: list[int], file: Path) -> FeatureWriter:
    """Copy rows of a matrix into a new file, flushed."""
    source = map_rows(old.file, old.rows, old.dimension)
    file.unlink(missing_ok=True)
    new = FeatureWriter(file, 0, old.dimension)
    for start in range(0, len(rows), _COPY_ROWS):
        new.append(source[rows[start : start + _COPY_ROWS]])
    new.publish()
    flush_folder(file.parent)
    return new


def _link_or_copy(source: Path, file: Path) -> None:
    """Link a finished matrix under another name, or copy it, flushed."""
    file.unlink(missing_ok=True)
    try:
        file.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, file)
        flush(file)
    flush_folder(file.parent)
