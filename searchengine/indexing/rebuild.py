"""An index is made anew in a folder within the old one, which answers until the new one is whole."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from searchengine.errors import IndexError_, SearchEngineError
from searchengine.index.catalog import Catalog, translated

_STAGING = "rebuild"


@dataclass(slots=True)
class OldIds:
    """The ids that images had, by where they lay and by what they held."""

    by_file: dict[bytes, int] = field(default_factory=dict)  # absolute path -> id
    by_content: dict[bytes, list[int]] = field(default_factory=dict)
    last: int = 0
    used: set[int] = field(default_factory=set)

    @property
    def count(self) -> int:
        """How many images there were."""
        return len(self.by_file)

    @classmethod
    def read(cls, folder: Path) -> OldIds:
        """Read them off an index, as far as its catalog can still be read."""
        old = cls()
        try:
            catalog = Catalog.open(folder)
        except SearchEngineError:
            return old
        try:
            with translated(folder):
                roots: dict[int, bytes] = dict(catalog.execute("SELECT id, path FROM roots"))
                for id_, root, path, digest in catalog.execute(
                    "SELECT id, root, path, content_hash FROM images WHERE root IS NOT NULL ORDER BY id"
                ):
                    old.by_file[os.path.join(roots[root], path)] = id_  # noqa: PTH118  (bytes)
                    old.by_content.setdefault(digest, []).append(id_)
                last = catalog.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()
                old.last = int(last[0]) if last else 0
        except IndexError_:
            pass  # a damaged page: what was read so far keeps its ids
        finally:
            catalog.close()
        old.last = max([old.last, *old.by_file.values()])
        return old

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
        return sum(file not in found for file in self.by_file)


def staging(folder: Path, fingerprint: str) -> Path:
    """Where the new index is made; what a run for another extractor left there is thrown away."""
    staged = folder / _STAGING
    if staged.exists():
        try:
            catalog = Catalog.open(staged)
            same = catalog.get("fingerprint") == fingerprint
            catalog.close()
        except SearchEngineError:
            same = False
        if not same:
            discard(staged)
    staged.mkdir(exist_ok=True)
    return staged


def discard(staged: Path) -> None:
    """Throw the staging folder away."""
    shutil.rmtree(staged, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Move the files of a damaged index into a folder of their own: nothing is deleted that might be read again."""
    kept = folder / f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    kept.mkdir(parents=True, exist_ok=True)
    for file in [*folder.glob("catalog.sqlite*"), *folder.glob("features*.npy")]:
        file.replace(kept / file.name)
    return kept
