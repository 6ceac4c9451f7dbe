"""An index is made anew in a folder within the old one, which answers until the new one is whole."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from searchengine.errors import IndexError_, IndexingError, IndexNotFoundError, SearchEngineError
from searchengine.index.catalog import Catalog
from searchengine.index.disk import translated, writable
from searchengine.index.features import matrices
from searchengine.index.writer import IndexWriter

_STAGING = "rebuild"
_KEPT = "damaged-"


@dataclass(slots=True)
class OldIds:
    """The ids that images had, by where they lay and by what they held."""

    by_file: dict[bytes, int] = field(default_factory=dict)  # absolute path -> id
    by_content: dict[bytes, list[int]] = field(default_factory=dict)
    last: int = 0
    used: set[int] = field(default_factory=set)
    files: frozenset[bytes] = frozenset()  # of the images that the index had when it could last be read

    @property
    def count(self) -> int:
        """How many images there were."""
        return len(self.files)

    @classmethod
    def read(cls, folder: Path) -> OldIds:
        """Read them off an index, as far as its catalog can still be read; then off the copy of the catalog.

        And off what was set aside of a damaged index: a rebuild of it may have been killed half way.
        """
        places = [folder, folder, *sorted(folder.glob(f"{_KEPT}*"), reverse=True)]
        catalogs = []
        for i, place in enumerate(places):
            with suppress(SearchEngineError):
                catalogs.append(Catalog.open_backup(place) if i == 1 else Catalog.open(place))
        old = cls()
        try:
            for catalog in sorted(catalogs, key=_is_damaged):  # what is whole has the first word
                old._add(catalog)
        finally:
            for catalog in catalogs:
                catalog.close()
        return old

    def _add(self, catalog: Catalog) -> None:
        known = {*self.by_file.values(), *(id_ for ids in self.by_content.values() for id_ in ids)}
        # damaged pages: what was read so far keeps its ids
        with (
            suppress(IndexError_, IndexingError, KeyError, TypeError, ValueError),
            translated(catalog.file.parent),
        ):
            roots: dict[int, bytes] = dict(catalog.execute("SELECT id, path FROM roots"))
            last = catalog.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()
            self.last = max(self.last, int(last[0]) if last else 0)
            for id_, root, path, digest in catalog.execute(
                "SELECT id, root, path, content_hash FROM images WHERE root IS NOT NULL ORDER BY id"
            ):
                if id_ not in known:
                    self.by_file.setdefault(os.path.join(roots[root], path), id_)  # noqa: PTH118  (bytes)
                    self.by_content.setdefault(digest, []).append(id_)
        self.files = self.files or frozenset(self.by_file)
        self.last = max([self.last, *self.by_file.values()])

    def claim(self, file: bytes, content_hash: bytes) -> int | None:
        """The id that a file had, or that another of its content had, each given once; None: it is new."""
        id_ = self.by_file.get(file)
        if id_ is None or id_ in self.used:
            at_hand = (other for other in self.by_content.get(content_hash, ()) if other not in self.used)
            id_ = next(at_hand, None)
        if id_ is not None:
            self.used.add(id_)
        return id_

    def missing(self, found: set[bytes]) -> int:
        """How many of the old files are not among those found."""
        return len(self.files - found)


def _is_damaged(catalog: Catalog) -> bool:
    try:
        catalog.check()
    except SearchEngineError:
        return True
    return False


def staging(folder: Path, fingerprint: str) -> Path:
    """Where the new index is made.

    What is there already is thrown away if it was made for another extractor, is damaged, or was adopted by a run that
    was killed right then: its matrix is the live one under another name, and must not be written to.
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


def writer_there(staged: Path, last_id: int) -> IndexWriter | None:
    """To what a killed run has left there, if it left anything; ids up to ``last_id`` have been given since."""
    try:
        writer = IndexWriter.open(staged)
    except IndexNotFoundError:
        return None
    writer.reserve_ids(last_id)
    return writer


def discard(staged: Path) -> None:
    """Throw the staging folder away."""
    shutil.rmtree(staged, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Move the files of a damaged index into a folder of their own: nothing is deleted that might be read again."""
    kept = folder / f"{_KEPT}{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with writable(folder):
        kept.mkdir(parents=True, exist_ok=True)
        for file in [*matrices(folder), *folder.glob("catalog.sqlite*")]:
            file.replace(kept / file.name)
    return kept
