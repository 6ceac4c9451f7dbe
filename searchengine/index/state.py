"""The state of an index at one moment, as a reader holds it: it never changes; a commit makes a new one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived
from searchengine.errors import IndexDamagedError
from searchengine.index.catalog import Catalog
from searchengine.index.exact import Searcher
from searchengine.index.features import map_rows
from searchengine.index.metrics import EUCLIDEAN
from searchengine.index.types import ImageRecord

NO_IMAGE = -1  # an id that no image has

_ROW = np.dtype([("row", np.int64), ("id", np.int64), ("norm2", np.float64)])
_BLOCK = 4096  # rows whose images are counted together
_GENERATIONS = itertools.count()


@dataclass(frozen=True, slots=True)
class RowsSheet:
    """``revision``: that of the catalog from which the rows were read; they are valid for no other."""

    format: Literal[1]
    revision: str


# (r,) each: the ids and squared norms of a State, which of a million rows SQLite gives in more than a second
ROWS = Derived("rows.npz", RowsSheet, command="searchengine index", columns=("ids", "squared_norms"), compressed=False)

Roots = dict[int, tuple[Path, str]]  # the image folders: id -> where it is, name


@dataclass(frozen=True, slots=True)
class State:
    """The searched rows; each array has an entry for each row of the matrix."""

    generation: int  # differs for every state that this process has loaded
    data_version: int
    edits: str
    fingerprint: str
    spec: str
    normalized: bool  # the features have length 1
    metric: str
    features_file: str
    rows: NDArray[np.float32]  # (r, d), mapped
    scattered: NDArray[np.float32]  # the same, mapped for reading a few here and there
    squared_norms: NDArray[np.float64]  # (r,), infinite where no image stands behind the row
    ids: NDArray[np.int64]  # (r,), NO_IMAGE where no image stands behind the row
    roots: Roots
    revision: str = ""  # of the catalog; of one that another process keeps, none
    _searchers: dict[tuple[str, int], Searcher] = field(default_factory=dict)

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that count, ascending."""
        return np.flatnonzero(self.ids != NO_IMAGE)

    @property
    def live_by_id(self) -> NDArray[np.int64]:
        """Rows that count, in the order of their ids."""
        live = self.live
        return live[np.argsort(self.ids[live], kind="stable")]

    @property
    def count(self) -> int:
        """How many rows count."""
        return int(np.count_nonzero(self.ids != NO_IMAGE))

    @property
    def typical_length(self) -> float:
        """The root mean square of the lengths of all features."""
        return float(np.sqrt(self.squared_norms[self.live].mean())) if self.count else 0.0

    def sample(self, n: int, skip: int = 0) -> list[int]:
        """The ids of at most n images, spread evenly over the collection, ascending; see ``Index.sample``.

        They are the first n, or those that follow, of its positions in bit-reversed order (van der Corput, 1935).
        """
        ids = np.sort(self.ids[self.live], kind="stable")  # quick, because they are in order already
        bits = max(len(ids) - 1, 0).bit_length()
        counted = np.arange(min(2 * (skip + n), 1 << bits))  # at least every second of them lies within the collection
        positions = np.zeros_like(counted)
        for bit in range(bits):
            positions |= (counted >> bit & 1) << (bits - 1 - bit)
        chosen: list[int] = np.sort(ids[positions[positions < len(ids)][skip : skip + n]]).tolist()
        return chosen

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """At most (n, d) features of random images with ids up to ``newest``; see ``Index.draw``."""
        live = self.live_by_id
        ids = self.ids[live]
        live = live[(ids <= newest) & ~np.isin(ids, list(without))]
        return np.asarray(self.scattered[np.sort(live[np.random.default_rng(0).permutation(len(live))[:n]])])

    def searcher(self, metric: str | None = None, first: int = 0) -> Searcher:
        """Exact search over the rows from ``first`` on, by the metric of the index unless another is named.

        UnknownNameError.
        """
        key = (metric or self.metric, first)
        if key not in self._searchers:  # two threads may both make one: either will do
            positions = np.arange(first, len(self.ids)) if first else None
            self._searchers[key] = Searcher(
                key[0], self.rows[first:], self.squared_norms[first:], self.ids[first:], positions
            )
        return self._searchers[key]

    def scattered_searcher(self, metric: str) -> Searcher:
        """The same over all rows, where only some of them are read."""
        return self.searcher(metric).reading(self.scattered)


def load(folder: Path, catalog: Catalog, old: State | None, images_dir: Path | None = None) -> State:
    """The state as of the last commit. If ``old`` has the same matrix, only new rows are read, and which have gone.

    Without ``old``, rows are taken from ``ROWS``, if it is of this revision of the catalog.

    ``images_dir`` is where the image folder is now, if it has moved. IndexDamagedError.
    """
    with catalog.snapshot():
        edits, file, revision = catalog.need("edits"), catalog.need("features_file"), (catalog.revision or b"").hex()
        total, dimension = catalog.need_number("rows"), catalog.need_number("dimension")
        version = catalog.data_version
        if old is not None and (old.features_file != file or len(old.ids) > total):
            old = None  # another matrix
        gone = _rows_gone(catalog, old) if old is not None and old.edits != edits else []
        kept = _kept_rows(folder, revision, total) if old is None else (old.ids, old.squared_norms)
        known = 0 if kept is None else len(kept[0])  # rows are appended; ids may come in any order
        try:
            new = np.fromiter(catalog.rows_from(known or None), _ROW)
        except (TypeError, ValueError, OverflowError) as error:
            raise catalog.damaged(str(error)) from error
        fingerprint, spec, normalized = catalog.need("fingerprint"), catalog.need("spec"), catalog.need("normalized")
        metric = catalog.get("metric") or EUCLIDEAN
        roots = catalog.roots()
    squared_norms = np.full(total, np.inf)
    ids = np.full(total, NO_IMAGE, dtype=np.int64)
    if kept is not None:
        ids[:known], squared_norms[:known] = kept
        squared_norms[gone], ids[gone] = np.inf, NO_IMAGE
    if len(new):
        if new["row"].max() >= total or new["row"].min() < 0:
            raise catalog.damaged("it names rows that the feature matrix does not have")
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
        roots=folders_now(roots, images_dir),
        revision=revision,
    )


def _kept_rows(folder: Path, revision: str, total: int) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """The ids and squared norms that are kept in the folder, if they are of a revision."""
    try:
        kept = ROWS.load(folder)
    except IndexDamagedError:
        return None  # the next run replaces it
    if kept is None or kept.sheet.revision != revision:
        return None
    ids, squared_norms = kept.arrays["ids"], kept.arrays["squared_norms"]
    fits = (ids.dtype, squared_norms.dtype, ids.shape, squared_norms.shape) == (
        np.dtype(np.int64), np.dtype(np.float64), (total,), (total,),
    )  # fmt: skip
    return (ids, squared_norms) if fits else None


def _rows_gone(catalog: Catalog, old: State) -> list[int]:
    """The rows that counted in ``old`` and no longer do; a row of a matrix never gets another image."""
    live = old.live
    counts = np.bincount(live // _BLOCK, minlength=-(-len(old.ids) // _BLOCK))
    for block, count in catalog.count_by_rows(len(old.ids), _BLOCK):
        counts[block] -= count
    gone: list[int] = []
    for block in np.flatnonzero(counts).tolist():
        first, end = block * _BLOCK, (block + 1) * _BLOCK
        gone += {*live[(live >= first) & (live < end)].tolist()} - {*catalog.rows_between(first, end)}
    return gone


def folders_now(recorded: Sequence[tuple[int, bytes, str]], images_dir: Path | None) -> Roots:
    """Where each of the image folders (id, path, name) is; the name is empty where there is only one."""
    several = len(recorded) > 1
    roots = {}
    for id_, path, name in recorded:
        folder = Path(os.fsdecode(path))
        if images_dir is not None:
            folder = images_dir / name if several else images_dir
        roots[id_] = (folder, name if several else "")
    return roots


def located(id_: int, root: int | None, path: bytes | None, roots: Roots) -> tuple[str, Path | None]:
    """How the path of an image is shown, and its file in the image folders as they are now."""
    if path is None:
        return f"#{id_}", None
    shown = path.decode("utf-8", "replace")
    if root not in roots:  # of an imported feature, the path may be only a name
        return shown, None
    folder, name = roots[root]
    return f"{name}/{shown}" if name else shown, folder / os.fsdecode(path)


def record_of(row: Sequence[Any], roots: Roots) -> ImageRecord:
    """A row of ``Tables.records`` with its file, in the image folders as they are now."""
    id_, root, path, width, height, colour, size, format_, digest, labels = row
    shown, file = located(id_, root, path, roots)
    content_hash = None if digest is None else digest.hex()
    return ImageRecord(id_, shown, file, labels, width, height, colour, size, format_, content_hash)
