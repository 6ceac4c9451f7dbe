"""A whole new feature matrix takes the place of the old one, in the transaction that makes the catalog fit it.

The new file is written and flushed first, under a name of its own; the catalog then names it. So a reader maps one or
the other, and a run that is killed on the way leaves a stray file, which the next one deletes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from searchengine.files import flush, flush_folder
from searchengine.index.catalog import Catalog
from searchengine.index.disk import writable
from searchengine.index.features import FeatureWriter, map_rows

_COPY_ROWS = 4096
_TABLES = ("labels", "skipped", "images", "roots", "manifest")  # each before those that it refers to


def copy_live(catalog: Catalog, old: FeatureWriter, file: Path) -> tuple[FeatureWriter, list[int]]:
    """Copy the rows that count into a new file; returns it, and the ids of the images in the order of its rows."""
    live = list(catalog.execute("SELECT row, id FROM images ORDER BY row"))
    source = map_rows(old.file, old.rows, old.dimension)
    with writable(file.parent):
        file.unlink(missing_ok=True)
        new = FeatureWriter(file, 0, old.dimension)
        for start in range(0, len(live), _COPY_ROWS):
            new.append(source[[row for row, _ in live[start : start + _COPY_ROWS]]])
        new.publish()
        flush_folder(file.parent)
    return new, [id_ for _, id_ in live]


def renumber(catalog: Catalog, ids: list[int]) -> None:
    """Row 0, 1, ... for those images, which were in the order of their rows."""
    # ascending, so that no row number is taken by two at any time
    catalog.execute_many("UPDATE images SET row = ? WHERE id = ?", enumerate(ids))


def bring_over(made: Path, file: Path) -> None:
    """Put a finished matrix from another folder under a new name, flushed."""
    with writable(file.parent):
        file.unlink(missing_ok=True)
        try:
            file.hardlink_to(made)
        except OSError:  # a file system without hard links
            shutil.copyfile(made, file)
            flush(file)
        flush_folder(file.parent)


def take_tables(catalog: Catalog) -> None:
    """All that the attached database ``staged`` holds, in place of what the catalog held."""
    for table in _TABLES:
        catalog.execute(f"DELETE FROM main.{table}")  # noqa: S608
    for table in reversed(_TABLES):
        catalog.execute(f"INSERT INTO main.{table} SELECT * FROM staged.{table}")  # noqa: S608


def next_name(name: str) -> str:
    """features.npy -> features-2.npy -> features-3.npy ..."""
    _, _, number = name.removesuffix(".npy").partition("-")
    return f"features-{int(number or 1) + 1}.npy"
