"""An index folder, open for reading: the catalog, the mapped features, and exact or approximate search over them.

A reader sees what a running writer commits, without being restarted. Before each answer it asks SQLite whether anything
was committed and, if so, reads the new rows. An answer in progress keeps the state that it began with.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.errors import IndexDamagedError, UnknownImageError
from searchengine.files import bytes_of, is_locked
from searchengine.index import column_reader
from searchengine.index.approximate import ApproximateSearcher, OpenedStructure, StructureSheet, structures
from searchengine.index.building import whole_set_searcher
from searchengine.index.catalog import LOCK_NAME, Catalog
from searchengine.index.columns import Columns, Mask, with_tags
from searchengine.index.exact import Searcher, checked_queries
from searchengine.index.features import is_whole
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.metrics import check_metric
from searchengine.index.protocol import Index
from searchengine.index.state import NO_IMAGE, State, load_state, record_of
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress
from searchengine.progress import QUIET, Progress


class LocalIndex(Index):
    """An index folder, open for reading. It is safe to share between threads, but must be opened after a fork.

    ``Index`` documents the methods that have no docstring here.
    """

    def __init__(self, folder: Path, catalog: Catalog, images_dir: Path | None = None, *, exact: bool = False) -> None:
        self.address = self.folder = folder
        self.images_dir = images_dir
        self._structure = OpenedStructure(folder, unused=exact)
        self._catalog = catalog
        self._lock = threading.RLock()  # guards the connection
        self._columns_lock = threading.Lock()  # held while the columns are read
        self._closing = weakref.finalize(self, catalog.close)  # in case the caller does not
        self._state: State | None = None
        self._columns: Columns | None = None
        self.state()

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        images_dir: str | os.PathLike[str] | None = None,
        exact: bool = False,
    ) -> LocalIndex:
        """Open the index in a folder.

        Args:
            folder: the folder that contains ``catalog.sqlite``.
            images_dir: the present location of the image folder, if it has moved since it was indexed.
            exact: search exactly even if there is a structure for approximate search.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError
        """
        path = Path(folder)
        return cls(path, Catalog.open(path), None if images_dir is None else Path(images_dir), exact=exact)

    # -- search -----------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: ArrayLike,
        k: int = 20,
        metric: str | None = None,
        *,
        filter: Filter = EVERYTHING,
        after: Cursor | None = None,
    ) -> list[list[Hit]]:
        state, passing = self.passing(filter) if filter else (self.state(), None)
        metric = check_metric(metric or state.metric)
        block = checked_queries(queries, state.rows.shape[1], k, after)
        structure = self._structure.serving(state, metric)
        searcher = state.searcher(metric) if structure is None else ApproximateSearcher(structure, state, metric)
        if passing is not None:
            searcher = searcher.among(passing)
        results = searcher.nearest(block, int(k), after)
        hits = [self.hits(state, state.ids[nearest.positions], nearest.distances, metric) for nearest in results]
        missing = sum(len(nearest.positions) for nearest in results) - sum(map(len, hits))
        if missing and self.state() is not state:  # a run has removed them meanwhile, perhaps all that were nearest
            return self.search(queries, k, metric, filter=filter, after=after)
        return hits

    def whole_set_searcher(
        self, state: State, metric: str, k: int, progress: Progress = QUIET
    ) -> Searcher | ApproximateSearcher:
        structure = self._structure.serving(state, metric)
        if structure is None:
            return state.searcher(metric)
        return whole_set_searcher(structure, state, metric, k, progress)

    def approximation(self, metric: str | None = None) -> StructureSheet | None:
        state = self.state()
        structure = self._structure.serving(state, check_metric(metric or state.metric))
        return None if structure is None else structure.sheet

    def search_remark(self, metric: str) -> str | None:
        structure = self._structure.get()
        return None if structure is None else structure.remark(self.state(), check_metric(metric))

    def hits(self, state: State, ids: NDArray[np.int64], distances: NDArray[np.float64], metric: str) -> list[Hit]:
        """Return images of a state as hits, in the given order; images removed since are left out."""
        records = {record.id: record for record in self._fetch(ids.tolist())}
        nearest = zip(ids.tolist(), distances.tolist(), strict=True)
        existing = [(records[id_], distance) for id_, distance in nearest if id_ in records]
        return Hit.ranked(existing, metric, normalized=state.normalized)

    def passing(self, filter: Filter) -> tuple[State, Mask]:
        """Return the current state, and an (r,) mask of the rows that pass a filter, which must not be modified."""
        state = self.state()
        if not filter:
            return state, state.ids != NO_IMAGE
        state, columns = self._known_columns()
        return state, columns.passing(filter)

    def count(self, filter: Filter = EVERYTHING) -> int:
        return int(np.count_nonzero(self.passing(filter)[1]))

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        state, passing = self.passing(filter)
        if after_id is not None:
            passing = passing & (state.ids > after_id)
        ids = state.ids[passing]
        if len(ids) > n:
            ids = np.partition(ids, n)[:n]
        return self._fetch(np.sort(ids).tolist())

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        return self._known_columns()[1].facets(filter)

    def feature(self, image_id: int) -> NDArray[np.float32]:
        state = self.state()
        if 0 <= image_id < 2**63:
            position = np.flatnonzero(state.ids == image_id)
            if len(position):
                return np.array(state.scattered[position[0]], dtype=np.float32)
        raise self.unknown(image_id)

    # -- records ------------------------------------------------------------------------------------------------------

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        self.state()  # keeps up with the writer
        return self._fetch(ids)

    def unknown(self, image_id: int) -> UnknownImageError:
        error, ids = super().unknown(image_id), self.ids
        if not len(ids):
            return error
        return UnknownImageError(
            f"{error} Its ids are between {ids.min()} and {ids.max()}; searchengine export lists them."
        )

    def find(self, other: ImageRecord) -> int | None:
        self.state()  # keeps up with the writer
        path = other.path.encode("utf-8")
        with self._lock:
            if other.content_hash is not None:
                same = self._catalog.of_content(bytes.fromhex(other.content_hash))
                if same is not None:
                    return int(same[0])
            # If there are several image folders, the shown path begins with the name of its folder.
            candidates = self._catalog.ids_of_paths(path, path.partition(b"/")[2])
        if other.path.startswith("#") and other.path[1:].isascii() and other.path[1:].isdecimal():
            candidates.append(int(other.path[1:]))  # an imported feature without a path is shown as #id
        for record in self._fetch(candidates):
            if record.path == other.path and None in (record.content_hash, other.content_hash):
                return record.id
        return None

    def named(self, text: str) -> list[int]:
        """Return the ids, ascending, of images that have a text as a label, or as the name of their file or a folder.

        Case and the characters between words do not matter.
        """
        with self._lock:
            return self._catalog.named(text)

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        return self._fetch(self.state().sample(n, skip))

    def _fetch(self, ids: Sequence[int]) -> list[ImageRecord]:
        records: dict[int, ImageRecord] = {}
        roots = self._state.roots if self._state else {}
        with self._lock:
            for row in self._catalog.records([id_ for id_ in ids if 0 <= id_ < 2**63]):
                try:
                    records[row[0]] = record_of(row, roots)
                except (AttributeError, TypeError, ValueError) as error:
                    raise self._catalog.damaged(f"its entry for image {row[0]} is impossible") from error
        return [records[id_] for id_ in ids if id_ in records]

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        return self.state().draw(n, newest, without)

    # -- all images -------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> NDArray[np.int64]:
        """The id of each image: (n,) int64, in the order of ``features``."""
        state = self.state()
        return state.ids[state.live]

    @property
    def paths(self) -> list[str]:
        """The path of each image in the image folder, ``/``-separated, in the order of ``features``."""
        return [record.path for record in self._fetch(self.ids.tolist())]

    @property
    def labels(self) -> list[str | None]:
        """The first label of each image, in the order of ``features``."""
        return [record.label for record in self._fetch(self.ids.tolist())]

    @property
    def features(self) -> NDArray[np.float32]:
        """All features, (n, d) float32: the mapped file itself, or a copy of its live rows once images were removed."""
        state = self.state()
        live = state.live
        return state.rows if len(live) == len(state.rows) else np.asarray(state.rows[live])

    @property
    def generation(self) -> object:
        return self.state().generation

    def __len__(self) -> int:
        return self.state().count

    # -- the manifest -----------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> str | None:
        with self._lock:
            return self._catalog.get(key)

    @property
    def fingerprint(self) -> str:
        return self.state().fingerprint

    @property
    def spec(self) -> str:
        return self.state().spec

    @property
    def dimension(self) -> int:
        return int(self.state().rows.shape[1])

    @property
    def normalized(self) -> bool:
        return self.state().normalized

    @property
    def metric(self) -> str:
        return self.state().metric

    @property
    def typical_length(self) -> float:
        return self.state().typical_length

    @property
    def newest(self) -> int:
        return int(self.state().ids.max(initial=-1))

    def status(self) -> IndexStatus:
        state = self.state()
        with self._lock:
            skipped, run = self._catalog.count_skipped(), self._catalog.run()
            title, updated = self._catalog.need("extractor"), self._catalog.need("updated")
        files = [self.folder / state.features_file, *self.folder.glob("*.sqlite*"), *structures(self.folder)]
        return IndexStatus(
            images=state.count,
            skipped=skipped,
            dimension=self.dimension,
            extractor=title,
            fingerprint=state.fingerprint,
            bytes=bytes_of(files),
            updated=updated,
            run=RunProgress(*run, is_locked(self.folder / LOCK_NAME)) if run else None,
        )

    def skipped(self) -> list[tuple[str, str]]:
        with self._lock:
            files = self._catalog.skipped()
        return [(file.path.decode("utf-8", "replace"), file.reason) for file in files]

    def close(self) -> None:
        with self._lock:
            self._catalog.close()

    # -- keeping up with the writer ---------------------------------------------------------------------------------

    def state(self) -> State:
        with self._lock:
            for attempt in range(3):
                if self._catalog.outdated:
                    self._reopen()
                old = self._state
                if old is not None and old.data_version == self._catalog.data_version:
                    if is_whole(old.rows):
                        return old
                    self._state = old = None  # the file was cut short: map it again once it has been restored
                try:
                    new = load_state(self.folder, self._catalog, old, self.images_dir)
                except IndexDamagedError:
                    # the writer may have replaced the matrix after we read its name in the catalog
                    if attempt == 2:
                        raise
                else:
                    if not self._catalog.outdated or attempt == 2:
                        self._state = new
                        return new
            raise AssertionError("unreachable")

    def _known_columns(self) -> tuple[State, Columns]:
        """Return the current state and its columns, which are read when a filter first needs them."""
        with self._columns_lock:
            while True:
                with self._lock:
                    state, catalog, columns = self.state(), self._catalog, self._columns
                if columns is None or columns.generation != state.generation:
                    # Reading all columns takes seconds: a second connection keeps searches from waiting for that.
                    with closing(Catalog.open(self.folder)) as second:
                        columns = column_reader.load(self.folder, second, state, columns)
                if columns is not None:
                    columns = with_tags(columns, self.folder, state.fingerprint)
                with self._lock:
                    if columns is not None and catalog is self._catalog and not catalog.outdated:
                        self._columns = columns
                        return state, columns

    def _reopen(self) -> None:
        """Open the catalog again, because it was replaced, or was opened without locks and has changed."""
        catalog = Catalog.open(self.folder)
        self._closing.detach()
        self._catalog.close()
        self._catalog, self._state, self._columns = catalog, None, None
        self._closing = weakref.finalize(self, catalog.close)
