"""Reads the columns that filters use: from the catalog, or from a copy stored beside it.

The first filter reads all columns, later ones only those of new rows. For a million images, that takes ten seconds of
processor time. So at its end, a run stores a copy in the folder of a large index (``keep``), together with the row data
that searches need first. The copy is used only for the revision of the catalog that it was made from.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived
from searchengine.errors import SearchEngineError
from searchengine.index.catalog import Catalog
from searchengine.index.columns import NO_DAY, NO_TEXT, NO_YEAR, Columns, Numbers, Texts
from searchengine.index.state import ROWS, Roots, RowsSheet, State, load_state, stored_copy

Label = tuple[int, str]  # row, label

_LARGE = 50_000  # rows that SQLite reads in half a second; larger indexes store a copy
_BLOCK_ROWS = 10_000
_QUARTER = 900  # seconds; offsets from UTC are multiples of a quarter of an hour
_MONTH = 30 * 86_400  # seconds


@dataclass(frozen=True, slots=True)
class ColumnsSheet(RowsSheet):
    """The description of a copy of the columns: the time ``zone`` of the days too, and texts by number."""

    zone: int
    labels: list[str]
    folders: list[str]
    formats: list[str]
    cameras: list[str]


_MISSING = {"folder": NO_TEXT, "format": NO_TEXT, "camera": NO_TEXT, "day": NO_DAY, "width": 0, "height": 0}
_BY_ROW = (*_MISSING, "year")
_PAIRS = ("label_of", "below")
_TEXTS = ("labels", "folders", "formats", "cameras")
COLUMNS = Derived(
    "columns.npz", ColumnsSheet, command="searchengine index", columns=_BY_ROW, arrays=_PAIRS, compressed=False
)


def load(folder: Path, catalog: Catalog, state: State, old: Columns | None) -> Columns | None:
    """Return the columns of a state; if rows were only added or removed since ``old``, only new rows are read.

    Return None if existing rows of the catalog have changed since the state was read. IndexDamagedError.
    """
    with catalog.snapshot():
        if (catalog.need("edits"), catalog.need("features_file")) != (state.edits, state.features_file):
            return None
        names = tuple((id_, name) for id_, (_, name) in sorted(state.roots.items()))
        version = (state.features_file, catalog.get("details"), names)
        if old is None or old.version != version:
            old = _stored_columns(folder, catalog.revision, state, version) or _empty(version)
        first, end = len(old.ids), len(state.ids)
        if first == end and first:
            return replace(old, generation=state.generation, ids=state.ids, _passing={}, _facets={})
        try:
            return _grown(
                replace(old, generation=state.generation),
                state.ids,
                state.roots,
                catalog.filter_columns(first, end),
                catalog.labelled_rows(first, end),
            )
        except (AttributeError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise catalog.damaged(f"its entries for some images are impossible ({error})") from error


# -- the copy beside the catalog --------------------------------------------------------------------------------------


def keep(folder: Path) -> None:
    """Store the row data and columns of a large index, so that readers need not read all rows from the catalog.

    The caller holds the lock. The index works without them, so a failure is not reported.
    """
    # opened for writing, because the last connection leaves the catalog's log behind if it only reads
    with suppress(SearchEngineError), closing(Catalog.open(folder, write=True)) as catalog:
        if catalog.need_number("rows") < _LARGE:
            for kind in (ROWS, COLUMNS):
                kind.path(folder).unlink(missing_ok=True)
            return
        state, revision = load_state(folder, catalog, None), catalog.revision
        if stored_copy(ROWS, folder, revision, len(state.ids)) is None:
            ROWS.save(folder, RowsSheet(1, revision), {"ids": state.ids, "squared_norms": state.squared_norms})
        if stored_copy(COLUMNS, folder, revision, len(state.ids)) is not None:
            return
        columns = load(folder, catalog, state, None)
        if columns is not None:
            sheet = ColumnsSheet(1, revision, _zone(), *(getattr(columns, name).texts for name in _TEXTS))
            COLUMNS.save(folder, sheet, {name: getattr(columns, name) for name in (*_BY_ROW, *_PAIRS)})


def _stored_columns(folder: Path, revision: str, state: State, version: tuple[object, ...]) -> Columns | None:
    """Return the columns stored in the folder, if they are of this revision and of the local time zone."""
    stored = stored_copy(COLUMNS, folder, revision, len(state.ids))
    if stored is None or stored.sheet.zone != _zone():
        return None
    values: dict[str, Any] = {name: Texts(getattr(stored.sheet, name)) for name in _TEXTS}
    values |= {name: stored.arrays[name] for name in (*_BY_ROW, *_PAIRS)}
    return replace(_empty(version), ids=state.ids, **values)


@cache
def _zone() -> int:
    """Return a checksum of the local time zone: its offsets from UTC, month by month."""
    return zlib.crc32(repr([_utc_offset(month * _MONTH) for month in range(1000)]).encode())


# -- the catalog ------------------------------------------------------------------------------------------------------


def _empty(version: tuple[object, ...]) -> Columns:
    pairs = np.empty((0, 2), dtype=np.int32)
    values: dict[str, Any] = {name: Texts() for name in _TEXTS}
    values |= {name: np.empty(0, dtype=np.int32) for name in _BY_ROW}
    return Columns(None, version, np.empty(0, dtype=np.int64), label_of=pairs, below=pairs, **values)


def of_rows(
    generation: object, ids: NDArray[np.int64], roots: Roots, rows: Iterable[tuple[Any, ...]], labels: Iterable[Label]
) -> Columns:
    """Return columns made from rows and labels such as ``Tables.filter_columns`` and ``labelled_rows`` yield."""
    return _grown(replace(_empty(()), generation=generation), ids, roots, iter(rows), iter(labels))


def _grown(
    old: Columns, ids: NDArray[np.int64], roots: Roots, rows: Iterator[tuple[Any, ...]], labelled: Iterator[Label]
) -> Columns:
    """Return columns extended by new rows. ``ids`` has all rows; ``rows`` and ``labelled`` have the new ones only."""
    first, end = len(old.ids), len(ids)
    folders, formats, cameras = _Folders(old, roots), Texts(old.formats.texts), Texts(old.cameras.texts)
    by_row: dict[str, Any] = {name: np.full(end, missing, dtype=np.int32) for name, missing in _MISSING.items()}
    for name, values in by_row.items():
        values[:first] = getattr(old, name)
    for row, root, path, widths, heights, names, taken, models, mtimes in _blocks(rows):
        at = np.array(row, dtype=np.int64)
        by_row["folder"][at] = [folders.number(*place) for place in zip(root, path, strict=True)]
        by_row["format"][at] = [formats.number(name and name.upper()) for name in names]
        by_row["camera"][at] = [cameras.number(model) for model in models]
        by_row["width"][at] = [width or 0 for width in widths]
        by_row["height"][at] = [height or 0 for height in heights]
        by_row["day"][at] = _days(taken, mtimes)
    labels = Texts(old.labels.texts)
    label_of = [
        np.array([row, [labels.number(label) for label in texts]], dtype=np.int32).T for row, texts in _blocks(labelled)
    ]
    return replace(
        old,
        ids=ids,
        labels=labels,
        label_of=np.concatenate([old.label_of, _distinct(np.concatenate([old.label_of[:0], *label_of]))]),
        folders=folders.texts,
        below=np.concatenate([old.below, np.array(folders.below, dtype=np.int32).reshape(-1, 2)]),
        formats=formats,
        cameras=cameras,
        year=_years(by_row["day"]),
        **by_row,
        _passing={},
        _facets={},
    )


def _blocks(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    """Transpose rows into columns, a block of rows at a time."""
    while block := list(islice(rows, _BLOCK_ROWS)):
        yield tuple(zip(*block, strict=True))


def _distinct(pairs: Numbers) -> Numbers:
    """Return each of (p, 2) pairs of a row and a label once; label files may give a label twice."""
    _, first = np.unique(pairs.astype(np.int64) @ np.array([2**31, 1]), return_index=True)
    distinct: Numbers = pairs[first[pairs[first, 1] != NO_TEXT]]
    return distinct


class _Folders:
    """The folders of images, as in displayed paths, and all folders above them."""

    def __init__(self, old: Columns, roots: Roots) -> None:
        self.texts = Texts(old.folders.texts)
        self.below: list[tuple[int, int]] = []  # the new pairs; see Columns
        self._roots = roots
        self._numbers: dict[tuple[int | None, bytes], int] = {}

    def number(self, root: int | None, path: bytes | None) -> int:
        """Return the number of a file's folder."""
        place = (root, b"" if path is None else path.rpartition(b"/")[0])
        if place not in self._numbers:
            name = self._roots[root][1] if root is not None and root in self._roots else ""
            self._numbers[place] = self._number(f"{name}/{place[1].decode('utf-8', 'replace')}".strip("/"))
        return self._numbers[place]

    def _number(self, folder: str) -> int:
        numbers: list[int] = []  # of all folders above it, from the top, and its own
        for end in [*(i for i, letter in enumerate(folder) if letter == "/" and folder[i - 1] != "/"), len(folder)]:
            known = len(self.texts)
            numbers.append(self.texts.number(folder[:end]))
            if numbers[-1] == known:
                self.below += [(known, above) for above in numbers]
        return numbers[-1]


def _days(taken: Sequence[str | None], mtimes_ns: Sequence[int | None]) -> NDArray[np.int64]:
    """Return the local day of each image, since 1970, from its EXIF data or else from the time of its file."""
    by_exif = np.array(["NaT" if text is None else text[:10] for text in taken], dtype="datetime64[D]")
    seconds = np.array([0 if mtime is None else mtime // 10**9 for mtime in mtimes_ns], dtype=np.int64)
    quarters, quarter = np.unique(seconds // _QUARTER, return_inverse=True)
    offsets = np.array([_utc_offset(int(each) * _QUARTER) for each in quarters], dtype=np.int64)
    by_file = (seconds + offsets[quarter]) // 86_400
    by_file[[mtime is None for mtime in mtimes_ns]] = NO_DAY
    return np.where(np.isnat(by_exif), by_file, by_exif.astype(np.int64))


def _utc_offset(seconds: int) -> int:
    try:
        return time.localtime(seconds).tm_gmtoff
    except (OverflowError, OSError, ValueError):
        return 0


def _years(day: Numbers) -> Numbers:
    years = day.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return np.where(day == NO_DAY, NO_YEAR, years).astype(np.int32)
