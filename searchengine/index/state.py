"""The state of an index at one moment, as a reader holds it. A state never changes; a commit leads to a new one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived, StoredData
from searchengine.errors import IndexDamagedError
from searchengine.index.catalog import Catalog
from searchengine.index.exact import Searcher
from searchengine.index.features import map_rows
from searchengine.index.metrics import EUCLIDEAN
from searchengine.index.types import ImageFolder, ImageRecord

NO_IMAGE = -1  # in place of an id, for a row without an image

_ROW = np.dtype([("row", np.int64), ("id", np.int64), ("norm2", np.float64)])
_GENERATIONS = itertools.count()


@dataclass(frozen=True, slots=True)
class RowsSheet:
    """The description of a copy of the catalog's rows, which is valid only for one ``revision`` of the catalog."""

    format: Literal[1]
    revision: str


S = TypeVar("S", bound=RowsSheet)

# The ids and squared norms of a State, (r,) each; reading those of a million rows from SQLite takes over a second.
ROWS = Derived("rows.npz", RowsSheet, command="searchengine index", columns=("ids", "squared_norms"), compressed=False)

Roots = dict[int, tuple[Path, str]]  # the image folders: id -> (present location, name)


@dataclass(frozen=True, slots=True)
class State:
    """The rows that searches see. A row is live if it has an image, and dead once that image was removed or changed."""

    generation: object  # differs for every state that this process has loaded
    data_version: int
    edits: str
    fingerprint: str
    spec: str
    normalized: bool  # all features have norm 1
    metric: str
    features_file: str
    rows: NDArray[np.float32]  # (r, d), mapped
    scattered: NDArray[np.float32]  # the same rows, mapped for random access
    squared_norms: NDArray[np.float64]  # (r,), infinite for dead rows
    ids: NDArray[np.int64]  # (r,), NO_IMAGE for dead rows
    roots: Roots
    _searchers: dict[tuple[str, int, bool], Searcher] = field(default_factory=dict)

    @property
    def live(self) -> NDArray[np.int64]:
        """The live rows, ascending."""
        return np.flatnonzero(self.ids != NO_IMAGE)

    @property
    def live_by_id(self) -> NDArray[np.int64]:
        """The live rows, in the order of their ids."""
        live = self.live
        return live[np.argsort(self.ids[live], kind="stable")]

    @property
    def count(self) -> int:
        """The number of live rows."""
        return int(np.count_nonzero(self.ids != NO_IMAGE))

    @property
    def typical_length(self) -> float:
        """The root mean square of the norms of the live rows."""
        return float(np.sqrt(self.squared_norms[self.live].mean())) if self.count else 0.0

    def sample(self, n: int, skip: int = 0) -> list[int]:
        """Return the ids, ascending, of at most n images spread evenly over the index; see ``Index.sample``.

        The images are taken in bit-reversed order of their positions (van der Corput, 1935).
        """
        ids = np.sort(self.ids[self.live], kind="stable")  # quick, because they are nearly in order
        bits = max(len(ids) - 1, 0).bit_length()
        counters = np.arange(min(2 * (skip + n), 1 << bits))  # at least half of the reversed ones are valid positions
        positions = np.zeros_like(counters)
        for bit in range(bits):
            positions |= (counters >> bit & 1) << (bits - 1 - bit)
        chosen: list[int] = np.sort(ids[positions[positions < len(ids)][skip : skip + n]]).tolist()
        return chosen

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """Return at most (n, d) features of random images with ids up to ``newest``; see ``Index.draw``."""
        live = self.live_by_id
        ids = self.ids[live]
        live = live[(ids <= newest) & ~np.isin(ids, list(without))]
        return np.asarray(self.scattered[np.sort(live[np.random.default_rng(0).permutation(len(live))[:n]])])

    def searcher(self, metric: str | None = None, first: int = 0, *, scattered: bool = False) -> Searcher:
        """Return exact search over the rows from ``first`` on, by default in the index's metric; UnknownNameError.

        ``scattered`` is for searches that read only a few rows.
        """
        key = (metric or self.metric, first, scattered)
        if key not in self._searchers:  # if two threads both create one, either will do
            rows = self.scattered if scattered else self.rows
            positions = np.arange(first, len(self.ids)) if first else None
            self._searchers[key] = Searcher(
                key[0], rows[first:], self.squared_norms[first:], self.ids[first:], positions
            )
        return self._searchers[key]


def load_state(folder: Path, catalog: Catalog, old: State | None, images_dir: Path | None = None) -> State:
    """Return the state as of the last commit; IndexDamagedError.

    If ``old`` has the same matrix, only new rows are read from the catalog, and which rows have an image if some died.
    Without ``old``, rows are taken from ``ROWS`` if that is of this revision of the catalog.

    ``images_dir`` is the present location of the image folder, if it has moved.
    """
    with catalog.snapshot():
        edits, file = catalog.need("edits"), catalog.need("features_file")
        total, dimension = catalog.need_number("rows"), catalog.need_number("dimension")
        version = catalog.data_version
        if old is not None and (old.features_file != file or len(old.ids) > total):
            old = None  # another matrix
        squared_norms, ids = np.full(total, np.inf), np.full(total, NO_IMAGE, dtype=np.int64)
        known = 0  # rows that need not be read: rows are only appended, though their ids may come in any order
        if old is not None:
            known = len(old.ids)
            squared_norms[:known], ids[:known] = old.squared_norms, old.ids
        elif (stored := stored_copy(ROWS, folder, catalog.revision, total)) is not None:
            known = total
            squared_norms, ids = stored.arrays["squared_norms"], stored.arrays["ids"]
        try:
            if old is not None and old.edits != edits:
                is_gone = np.ones(known, dtype=np.bool_)  # or was dead before: a dead row never gets another image
                is_gone[np.fromiter(catalog.rows_before(known), np.int64)] = False
                squared_norms[:known][is_gone], ids[:known][is_gone] = np.inf, NO_IMAGE
            new = np.fromiter(catalog.rows_from(known or None), _ROW)
        except (TypeError, ValueError, OverflowError) as error:
            raise catalog.damaged(str(error)) from error
        fingerprint, spec, normalized = catalog.need("fingerprint"), catalog.need("spec"), catalog.need("normalized")
        metric = catalog.get("metric") or EUCLIDEAN
        roots = catalog.roots()
    if len(new):
        if new["row"].max() >= total or new["row"].min() < 0:
            raise catalog.damaged("it refers to rows that the feature matrix does not have")
        ids[new["row"]], squared_norms[new["row"]] = new["id"], new["norm2"]
    return State(
        generation=next(_GENERATIONS),
        data_version=version,
        edits=edits,
        fingerprint=fingerprint,
        spec=spec,
        normalized=normalized == "1",
        metric=metric,
        features_file=file,
        rows=map_rows(folder / file, total, dimension),
        scattered=map_rows(folder / file, total, dimension, scattered=True),
        squared_norms=squared_norms,
        ids=ids,
        roots=present_folders(roots, images_dir),
    )


def stored_copy(kind: Derived[S], folder: Path, revision: str, rows: int) -> StoredData[S] | None:
    """Return the copy that a run stored in the folder, if it is of this revision of the catalog and has so many rows.

    A run may commit more rows and store its copy while a reader is still at work on an older state.
    """
    with suppress(IndexDamagedError):  # the next run replaces it
        stored = kind.load(folder)
        if stored is not None and stored.sheet.revision == revision:
            return stored if all(stored.arrays[name].shape == (rows,) for name in kind.columns) else None
    return None


def present_folders(recorded: Sequence[ImageFolder], images_dir: Path | None) -> Roots:
    """Return the present location of each image folder (id, path, name); a single folder gets an empty name."""
    several = len(recorded) > 1
    roots = {}
    for id_, path, name in recorded:
        folder = Path(os.fsdecode(path))
        if images_dir is not None:
            folder = images_dir / name if several else images_dir
        roots[id_] = (folder, name if several else "")
    return roots


def locate(id_: int, root: int | None, path: bytes | None, roots: Roots) -> tuple[str, Path | None]:
    """Return the path of an image as it is displayed, and its file."""
    if path is None:
        return f"#{id_}", None
    shown = path.decode("utf-8", "replace")
    if root not in roots:  # the path of an imported feature may be only a name
        return shown, None
    folder, name = roots[root]
    return f"{name}/{shown}" if name else shown, folder / os.fsdecode(path)


def record_of(row: Sequence[Any], roots: Roots) -> ImageRecord:
    """Turn a row of ``Tables.records`` into an ImageRecord."""
    id_, root, path, width, height, colour, size, format_, digest, labels = row
    shown, file = locate(id_, root, path, roots)
    content_hash = None if digest is None else digest.hex()
    return ImageRecord(id_, shown, file, labels, width, height, colour, size, format_, content_hash)
