"""Rebuilds an index: the new one is made in a subfolder, and the old one stays in use until it is complete."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from searchengine.errors import IndexError_, IndexingError, IndexNotFoundError, SearchEngineError
from searchengine.index.catalog import Catalog
from searchengine.index.database import writable
from searchengine.index.features import matrices
from searchengine.index.writer import IndexWriter
from searchengine.indexing.scan import joined

_STAGING = "rebuild"
_KEPT = "damaged-"


@dataclass(slots=True)
class OldIds:
    """The ids that images had in the old index, by path and by content."""

    by_file: dict[bytes, int] = field(default_factory=dict)  # absolute path -> id
    by_content: dict[bytes, list[bytes]] = field(default_factory=dict)  # content hash -> absolute paths
    last: int = 0
    used: set[int] = field(default_factory=set)
    existing: set[bytes] = field(default_factory=set)  # absolute paths of files that exist, and claim their own ids
    files: frozenset[bytes] = frozenset()  # the files of the old index when it could last be read

    @property
    def count(self) -> int:
        """The number of images in the old index."""
        return len(self.files)

    @classmethod
    def read(cls, folder: Path) -> OldIds:
        """Read the ids from the catalog, its backup, and the files set aside from a damaged index.

        Each is read as far as possible. The files set aside count because a rebuild may have been killed.
        """
        places = [folder, folder, *sorted(folder.glob(f"{_KEPT}*"), reverse=True)]
        catalogs = []
        for i, place in enumerate(places):
            with suppress(SearchEngineError):
                catalogs.append(Catalog.open_backup(place) if i == 1 else Catalog.open(place))
        old = cls()
        try:
            for catalog in sorted(catalogs, key=_is_damaged):  # intact catalogs first
                old._add(catalog)
        finally:
            for catalog in catalogs:
                catalog.close()
        return old

    def _add(self, catalog: Catalog) -> None:
        known = set(self.by_file.values())
        with suppress(IndexError_, IndexingError, TypeError, ValueError):  # if damaged, keep what was read so far
            self.last = max(self.last, catalog.last_id())
            for id_, folder, path, digest in catalog.files():
                file = joined(folder, path)
                if id_ not in known and file not in self.by_file:
                    self.by_file[file] = id_
                    if digest is not None:
                        self.by_content.setdefault(digest, []).append(file)
        self.files = self.files or frozenset(self.by_file)
        self.last = max([self.last, *self.by_file.values()])

    def claim(self, file: bytes, content_hash: bytes) -> int | None:
        """Return the id of a file, or of a missing file with the same content; None for a new file.

        Each id is returned only once.
        """
        id_ = self.by_file.get(file)
        if id_ is None or id_ in self.used:
            missing = (other for other in self.by_content.get(content_hash, ()) if other not in self.existing)
            id_ = next((self.by_file[other] for other in missing if self.by_file[other] not in self.used), None)
        if id_ is not None:
            self.used.add(id_)
        return id_

    @property
    def missing(self) -> frozenset[bytes]:
        """The files of the old index that no longer exist."""
        return self.files - self.existing

    @property
    def unclaimed(self) -> int:
        """The number of images in the old index that no file has claimed."""
        return sum(self.by_file[file] not in self.used for file in self.files)


def _is_damaged(catalog: Catalog) -> bool:
    try:
        catalog.check()
    except SearchEngineError:
        return True
    return False


def has_begun(folder: Path) -> bool:
    """Return whether an unfinished rebuild has left its folder."""
    return (folder / _STAGING).exists()


def staging(folder: Path, fingerprint: str) -> Path:
    """Return the folder of the new index.

    The remains of a killed run are deleted if they are damaged, were made by another extractor, or were just being
    adopted: then their matrix is the live one under another name, and must not be written to.
    """
    staged = folder / _STAGING
    if _is_adopted(staged, folder):
        discard(staged)
    if staged.exists():
        try:
            with IndexWriter.open(staged) as writer:
                same = writer.catalog.get("fingerprint") == fingerprint
        except IndexNotFoundError:
            same = True
        except SearchEngineError:
            same = False
        if not same:
            discard(staged)
    with writable(folder):
        staged.mkdir(exist_ok=True)
    return staged


def _is_adopted(staged: Path, folder: Path) -> bool:
    live = {(file.stat().st_dev, file.stat().st_ino) for file in matrices(folder)}
    return any((file.stat().st_dev, file.stat().st_ino) in live for file in matrices(staged))


def open_staged(staged: Path, last_id: int) -> IndexWriter | None:
    """Open the index that a killed run left there, if any. Ids up to ``last_id`` are taken."""
    try:
        writer = IndexWriter.open(staged)
    except IndexNotFoundError:
        return None
    writer.reserve_ids(last_id)
    return writer


def discard(staged: Path) -> None:
    """Delete the staging folder."""
    shutil.rmtree(staged, ignore_errors=True)


def discard_empty(staged: Path) -> None:
    """Delete the staging folder if it is empty, as it is after a run that was refused."""
    with suppress(OSError):
        staged.rmdir()


def empty_like(staged: Path, folder: Path, last_id: int) -> IndexWriter:
    """Create an empty index in the folder, to adopt the rebuilt one. Ids up to ``last_id`` are taken."""
    with IndexWriter.open(staged) as rebuilt:
        return IndexWriter.create(folder, rebuilt.catalog.manifest(), dimension=rebuilt.dimension, last_id=last_id)


def set_aside(folder: Path) -> Path:
    """Move the files of a damaged index into a new folder. Nothing is deleted, because they may still be readable."""
    kept = folder / f"{_KEPT}{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with writable(folder):
        kept.mkdir(parents=True, exist_ok=True)
        for file in [*matrices(folder), *folder.glob("catalog.sqlite*")]:
            file.replace(kept / file.name)
    return kept
