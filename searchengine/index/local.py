"""An index on one machine, for reading: catalog + mapped features + exact search.

It sees what a running writer commits, without a restart: before each answer it asks SQLite whether anything was
committed and, if so, takes up the new rows. Answers that are under way keep the state that they began with.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.errors import IndexDamagedError, QueryError, UnknownImageError
from searchengine.index import exact, lock
from searchengine.index.catalog import Catalog, translated
from searchengine.index.features import map_rows
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress


@dataclass(frozen=True, slots=True)
class _State:
    """What is searched: everything is indexed by the row of the matrix, and never changed once made."""

    data_version: int
    edits: str
    fingerprint: str
    spec: str
    normalized: bool
    features_file: str
    rows: NDArray[np.float32]  # (r, d), mapped
    norm2: NDArray[np.float64]  # (r,), infinite where no image stands behind the row
    ids: NDArray[np.int64]  # (r,), 0 where no image stands behind the row
    last_id: int
    roots: dict[int, tuple[Path, str]]  # id -> folder, name

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that count, ascending."""
        return np.flatnonzero(self.ids)

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.ids))


class LocalIndex:
    """An index folder, open for reading. Safe to share between threads; open it after a fork."""

    def __init__(self, folder: Path, catalog: Catalog, images_dir: Path | None = None) -> None:
        self.folder = folder
        self.images_dir = images_dir
        self._catalog = catalog
        self._lock = threading.Lock()  # of the connection
        self._state: _State | None = None
        self._current()

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, images_dir: str | os.PathLike[str] | None = None) -> LocalIndex:
        """Open the index in a folder.

        Args:
            folder: where ``catalog.sqlite`` lies.
            images_dir: where the image folder is now, if it has moved since it was indexed.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError
        """
        path = Path(folder)
        return cls(path, Catalog.open(path), None if images_dir is None else Path(images_dir))

    # -- search -----------------------------------------------------------------------------------------------------

    def search(self, queries: ArrayLike, k: int = 20) -> list[list[Hit]]:
        """The k nearest images of each query.

        Args:
            queries: (m, d) float32, or (d,) for a single one; made by the extractor of this index.
            k: at least 1; more than there are gives all.

        Returns:
            m lists of hits, ordered by (distance, id).

        Raises:
            QueryError: a wrong shape, NaN or infinity, or k below 1.
        """
        state = self._current()
        block = np.atleast_2d(np.asarray(queries, dtype=np.float32))  # (d,) -> (1, d)
        if block.ndim != 2 or block.shape[1] != state.rows.shape[1]:
            raise QueryError(f"A query has the shape {block.shape}; this index wants (m, {state.rows.shape[1]}).")
        if not np.isfinite(block).all():
            raise QueryError("A query holds NaN or infinity, so nothing can be near it.")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise QueryError(f"k must be a whole number of at least 1, not {k!r}.")
        found = exact.euclidean(state.rows, state.norm2, state.ids, block, int(k))
        return [self._hits(state.ids[n.positions], n.distances, state.normalized) for n in found]

    def _hits(self, ids: NDArray[np.int64], distances: NDArray[np.float64], normalized: bool) -> list[Hit]:
        known = {record.id: record for record in self._fetch(ids.tolist())}
        hits: list[Hit] = []
        for id_, distance in zip(ids.tolist(), distances.tolist(), strict=True):
            record = known.get(id_)
            if record is not None:  # removed since the search began
                # larger is better: the cosine where |x| = |q| = 1, since then d^2 = 2 - 2 cos
                score = 1.0 - distance * distance / 2.0 if normalized else 1.0 / (1.0 + distance)
                hits.append(Hit(len(hits) + 1, id_, record.path, distance, score, record.label))
        return hits

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """A copy of the feature of one image, (d,) float32; UnknownImageError."""
        state = self._current()
        if 0 < image_id < 2**63:
            position = np.flatnonzero(state.ids == image_id)
            if len(position):
                return np.array(state.rows[position[0]], dtype=np.float32)
        raise UnknownImageError(f"The index holds no image {image_id}.")

    # -- what stands behind the rows --------------------------------------------------------------------------------

    def records(self, ids: Sequence[int]) -> list[ImageRecord]:
        """What is known of each image, in the order of the ids; UnknownImageError."""
        self._current()
        known = {record.id: record for record in self._fetch([i for i in ids if 0 < i < 2**63])}
        for id_ in ids:
            if id_ not in known:
                raise UnknownImageError(f"The index holds no image {id_}.")
        return [known[id_] for id_ in ids]

    def sample(self, n: int) -> list[ImageRecord]:
        """At most n images, spread evenly over the collection; the same each time while it does not change."""
        state = self._current()
        ids = np.sort(state.ids[state.live])
        chosen = ids[np.unique(np.linspace(0, len(ids) - 1, min(n, len(ids))).astype(np.int64))] if len(ids) else ids
        return self._fetch(chosen.tolist())

    def _fetch(self, ids: list[int]) -> list[ImageRecord]:
        records: dict[int, ImageRecord] = {}
        labels: dict[int, list[str]] = {}
        roots = self._state.roots if self._state else {}
        with self._lock, translated(self.folder):
            wanted = json.dumps(ids)
            for image, label in self._catalog.execute(
                "SELECT image, label FROM labels WHERE image IN (SELECT value FROM json_each(?)) "
                "ORDER BY image, position",
                (wanted,),
            ):
                labels.setdefault(image, []).append(label)
            for row in self._catalog.execute(
                "SELECT id, root, path, width, height, colour, size, format, content_hash FROM images "
                "WHERE id IN (SELECT value FROM json_each(?))",
                (wanted,),
            ):
                records[row[0]] = _record(row, roots, tuple(labels.get(row[0], ())))
        return [records[id_] for id_ in ids if id_ in records]

    # -- the whole, row by row --------------------------------------------------------------------------------------

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64, in the order of ``features``."""
        state = self._current()
        return state.ids[state.live]

    @property
    def paths(self) -> list[str]:
        """Where each image lies in the image folder, ``/``-separated, in the order of ``features``."""
        return [record.path for record in self._fetch(self.ids.tolist())]

    @property
    def labels(self) -> list[str | None]:
        """The first label of each image, in the order of ``features``."""
        return [record.label for record in self._fetch(self.ids.tolist())]

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, d) float32: the mapped file itself while nothing has been deleted, else a copy of the rows that count."""
        state = self._current()
        live = state.live
        return state.rows if len(live) == len(state.rows) else np.asarray(state.rows[live])

    def __len__(self) -> int:
        return self._current().count

    # -- what made it -----------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> str | None:
        """One entry of the manifest, as it stands now."""
        with self._lock, translated(self.folder):
            return self._catalog.get(key)

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features."""
        return self._current().fingerprint

    @property
    def spec(self) -> str:
        """The extractor's spec, as JSON."""
        return self._current().spec

    @property
    def dimension(self) -> int:
        """Numbers in a feature."""
        return int(self._current().rows.shape[1])

    @property
    def normalized(self) -> bool:
        """Whether the features have length 1."""
        return self._current().normalized

    def status(self) -> IndexStatus:
        """The index in numbers, as it stands now."""
        state = self._current()
        with self._lock, translated(self.folder):
            skipped = int(self._catalog.execute("SELECT count(*) FROM skipped").fetchone()[0])
            run = self._catalog.get_json("run")
            title, updated = self._catalog.need("extractor"), self._catalog.need("updated")
        files = [self.folder / state.features_file, *self.folder.glob("catalog.sqlite*")]
        return IndexStatus(
            images=state.count,
            skipped=skipped,
            dimension=self.dimension,
            extractor=title,
            fingerprint=state.fingerprint,
            bytes=sum(file.stat().st_size for file in files if file.exists()),
            updated=updated,
            run=RunProgress(int(run["done"]), int(run["total"]), lock.is_held(self.folder)) if run else None,
        )

    def skipped(self) -> list[tuple[str, str]]:
        """Every file that could not be used: path and reason."""
        with self._lock, translated(self.folder):
            rows = self._catalog.execute("SELECT path, reason FROM skipped ORDER BY root, path").fetchall()
        return [(path.decode("utf-8", "replace"), reason) for path, reason in rows]

    def close(self) -> None:
        """Let go of the catalog."""
        with self._lock:
            self._catalog.close()

    # -- keeping up with the writer ---------------------------------------------------------------------------------

    def _current(self) -> _State:
        with self._lock, translated(self.folder):
            old = self._state
            if old is not None and old.data_version == self._catalog.data_version:
                return old
            for attempt in range(3):
                try:
                    self._state = self._load(old)
                    return self._state
                except IndexDamagedError:
                    # the writer may have put another file in place between our look at the catalog and at the folder
                    if attempt == 2:
                        raise
            raise AssertionError("unreachable")

    def _load(self, old: _State | None) -> _State:
        catalog = self._catalog
        with catalog.snapshot():
            edits, file = catalog.need("edits"), catalog.need("features_file")
            total, dimension = int(catalog.need("rows")), int(catalog.need("dimension"))
            version = catalog.data_version
            grown = old is not None and (old.edits, old.features_file) == (edits, file)
            after = old.last_id if old is not None and grown else 0
            new: list[Any] = catalog.execute("SELECT row, id, norm2 FROM images WHERE id > ?", (after,)).fetchall()
            fingerprint, spec = catalog.need("fingerprint"), catalog.need("spec")
            roots = {id_: (path, name) for id_, path, name in catalog.execute("SELECT id, path, name FROM roots")}
        norm2 = np.full(total, np.inf)
        ids = np.zeros(total, dtype=np.int64)
        if old is not None and grown:
            norm2[: len(old.norm2)], ids[: len(old.ids)] = old.norm2, old.ids
        if new:
            rows, new_ids, norms = zip(*new, strict=True)
            if max(rows) >= total or min(rows) < 0:
                raise IndexDamagedError(f"The catalog in {self.folder} names rows that the matrix does not have.")
            ids[list(rows)], norm2[list(rows)] = new_ids, norms
        return _State(
            data_version=version,
            edits=edits,
            fingerprint=fingerprint,
            spec=spec,
            normalized=json.loads(spec)["normalize"] == "l2",
            features_file=file,
            rows=map_rows(self.folder / file, total, dimension),
            norm2=norm2,
            ids=ids,
            last_id=max(int(ids.max(initial=0)), after),
            roots=self._folders(roots),
        )

    def _folders(self, roots: dict[int, tuple[bytes, str]]) -> dict[int, tuple[Path, str]]:
        several = len(roots) > 1
        folders = {}
        for id_, (path, name) in roots.items():
            folder = Path(os.fsdecode(path))
            if self.images_dir is not None:
                folder = self.images_dir / name if several else self.images_dir
            folders[id_] = (folder, name if several else "")
        return folders


def _record(row: Sequence[Any], roots: dict[int, tuple[Path, str]], labels: tuple[str, ...]) -> ImageRecord:
    id_, root, path, width, height, colour, size, format_, digest = row
    file: Path | None = None
    shown = f"#{id_}"
    if path is not None and root in roots:
        folder, name = roots[root]
        file = folder / os.fsdecode(path)
        shown = (f"{name}/" if name else "") + path.decode("utf-8", "replace")
    return ImageRecord(
        id_,
        shown,
        file,
        labels,
        width,
        height,
        colour,
        size,
        format_,
        None if digest is None else digest.hex(),
    )
