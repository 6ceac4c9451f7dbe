"""Checks an index whole: every page of the catalog, every row of the matrix, and that the two agree."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import IndexDamagedError, IndexError_
from searchengine.index.catalog import Catalog
from searchengine.index.disk import translated
from searchengine.index.features import map_rows

_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found. ``problems`` and ``mend`` are sentences; ``missing_files`` are told, but no damage."""

    images: int
    problems: tuple[str, ...]
    missing_files: int
    mend: str | None

    @property
    def sound(self) -> bool:
        """Whether every answer of this index can be trusted."""
        return not self.problems


def verify(folder: Path, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check the index in a folder; ``progress`` is told (rows done, rows).

    Raises:
        IndexNotFoundError: there is none.
    """
    anew = f"python offline_index.py IMAGES --index-dir {folder} --rebuild"
    try:
        catalog = Catalog.open(folder)
    except IndexDamagedError as error:
        return Verification(0, (str(error),), 0, anew)
    try:
        problems: list[str] = []
        with translated(folder), catalog.snapshot():
            checked = [row[0] for row in catalog.execute("PRAGMA integrity_check(5)")]
            if checked != ["ok"]:
                problems += [f"The catalog is damaged: {line}." for line in checked]
                return Verification(0, tuple(problems), 0, anew)
            problems += [
                f"The catalog contradicts itself: a row of {row[0]} names none of {row[2]}."
                for row in catalog.execute("PRAGMA foreign_key_check")
            ]
            rows, dimension = int(catalog.need("rows")), int(catalog.need("dimension"))
            stored = catalog.execute("SELECT row, crc, id FROM images ORDER BY row").fetchall()
            roots = [os.fsdecode(row[0]) for row in catalog.execute("SELECT path FROM roots ORDER BY id")]
            missing = sum(
                not os.path.exists(os.path.join(root, path))  # noqa: PTH110, PTH118  (bytes)
                for root, path in catalog.execute(
                    "SELECT roots.path, images.path FROM images JOIN roots ON roots.id = images.root"
                )
            )
            problems += _check_rows(folder / catalog.need("features_file"), rows, dimension, stored, progress)
            imported = json.loads(catalog.need("spec")).get("model") == "imported"
        if imported:
            anew = f"searchengine import FEATURES --index-dir {folder}-2"
        elif roots:
            anew = anew.replace("IMAGES", " ".join(roots))
        return Verification(len(stored), tuple(problems), missing, anew if problems else None)
    except IndexError_ as error:
        return Verification(0, (str(error),), 0, anew)
    finally:
        catalog.close()


def _check_rows(
    file: Path,
    rows: int,
    dimension: int,
    stored: list[tuple[int, int, int]],
    progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Every stored row must be within the matrix and have the CRC-32 that was noted when it was written."""
    if stored and not 0 <= stored[0][0] <= stored[-1][0] < rows:
        return ["The catalog names rows that the feature matrix does not have."]
    try:
        features = map_rows(file, rows, dimension)
    except IndexDamagedError as error:
        return [str(error)]
    bad: list[int] = []
    for start in range(0, len(stored), _CHUNK_ROWS):
        chunk = stored[start : start + _CHUNK_ROWS]
        bad += [id_ for row, crc, id_ in chunk if zlib.crc32(features[row].tobytes()) != crc]
        if progress is not None:
            progress(min(start + _CHUNK_ROWS, len(stored)), len(stored))
    if not bad:
        return []
    named = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    return [f"The features of {len(bad)} images are not what was written (ids {named})."]
