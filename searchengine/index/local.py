"""An index on one machine, for reading: catalog + mapped features + exact search.

It sees what a running writer commits, without a restart: before each answer it asks SQLite whether anything was
committed and, if so, reads the new rows. Answers in progress keep the state that they began with.
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
from searchengine.index import column_reader, columns, state
from searchengine.index.approximate import ApproximateSearcher
from searchengine.index.calibration import whole_set_searcher
from searchengine.index.catalog import LOCK_NAME, Catalog
from searchengine.index.columns import Columns, Mask
from searchengine.index.exact import Searcher, checked_queries
from searchengine.index.features import is_whole
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.metrics import check_metric, score
from searchengine.index.protocol import Index
from searchengine.index.state import NO_IMAGE, State, record_of
from searchengine.index.structure import OpenedStructure, StructureSheet, structures
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress
from searchengine.progress import QUIET, Progress


class LocalIndex(Index):
    """An index folder, open for reading. Safe to share between threads; open it after a fork."""

    def __init__(self, folder: Path, catalog: Catalog, images_dir: Path | None = None, *, exact: bool = False) -> None:
        self.address = self.folder = folder
        self.images_dir = images_dir
        self._structure = OpenedStructure(folder, unused=exact)
        self._catalog = catalog
        self._lock = threading.RLock()  # guards the connection
        self._columns_lock = threading.Lock()  # of whoever reads the columns
        self._closing = weakref.finalize(self, catalog.close)  # if the caller does not
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
            folder: where ``catalog.sqlite`` lies.
            images_dir: where the image folder is now, if it has moved since it was indexed.
            exact: search exactly, even where there is a structure for approximate search.

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
        """The k nearest images of each query.

        Args:
            queries: (m, d) float32, or (d,) for a single one; made by the extractor of this index.
            k: at least 1; at most as many hits as there are images.
            metric: for this search; None for that of the index. See ``metrics`` for distances and scores.
            filter: only images that pass it are ranked.
            after: only what comes after this hit of the same, single query is answered, as long as there is more. While
                images are added, nothing is answered twice, and none is left out that was there from the beginning.

        Returns:
            m lists of hits, ordered by (distance, id).

        Raises:
            QueryError: a wrong shape, NaN or infinity, k below 1, or a cursor for several queries.
            UnknownNameError: no such metric.
        """
        now, passing = self.passing(filter) if filter else (self.state(), None)
        metric = check_metric(metric or now.metric)
        block = checked_queries(queries, now.rows.shape[1], k, after)
        structure = self._structure.serving(now, metric)
        searcher = now.searcher(metric) if structure is None else ApproximateSearcher(structure, now, metric)
        if passing is not None:
            searcher = searcher.among(passing)
        neighbours = searcher.nearest(block, int(k), after)
        return [self.hits(now, now.ids[each.positions], each.distances, metric) for each in neighbours]

    def whole_set_searcher(
        self, now: State, metric: str, k: int, progress: Progress = QUIET
    ) -> Searcher | ApproximateSearcher:
        """What finds the k nearest rows of each row of a state: exact where there is no structure for that."""
        structure = self._structure.serving(now, metric)
        if structure is None:
            return now.searcher(metric)
        return whole_set_searcher(structure, now, metric, k, progress)

    def approximation(self, metric: str | None = None) -> StructureSheet | None:
        """What is known of the structure that searches by a metric use; None where they are exact."""
        now = self.state()
        structure = self._structure.serving(now, check_metric(metric or now.metric))
        return None if structure is None else structure.sheet

    def search_remark(self, metric: str) -> str | None:
        """For people, where searches by a metric are approximate, or take long; None where they are as usual."""
        structure = self._structure.get()
        return None if structure is None else structure.remark(self.state(), check_metric(metric))

    def hits(self, now: State, ids: NDArray[np.int64], distances: NDArray[np.float64], metric: str) -> list[Hit]:
        """Images of a state as hits, in their order; what has been removed since is left out."""
        known = {record.id: record for record in self._fetch(ids.tolist())}
        hits: list[Hit] = []
        for id_, distance in zip(ids.tolist(), distances.tolist(), strict=True):
            record = known.get(id_)
            if record is not None:
                worth = score(metric, distance, normalized=now.normalized)
                hits.append(Hit(len(hits) + 1, id_, record.path, distance, worth, record.label, record))
        return hits

    def passing(self, filter: Filter) -> tuple[State, Mask]:
        """The current state, and an (r,) mask of the rows that pass a filter, which must not be changed."""
        now = self.state()
        if not filter:
            return now, now.ids != NO_IMAGE
        now, known = self._known_columns()
        return now, known.passing(filter)

    def count(self, filter: Filter = EVERYTHING) -> int:
        """How many images pass a filter."""
        return int(np.count_nonzero(self.passing(filter)[1]))

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        """The first n images that pass a filter, by id, that come after ``after_id``."""
        now, passing = self.passing(filter)
        if after_id is not None:
            passing = passing & (now.ids > after_id)
        ids = now.ids[passing]
        if len(ids) > n:
            ids = np.partition(ids, n)[:n]
        return self._fetch(np.sort(ids).tolist())

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """The labels, folders, formats, ... of the images that pass a filter, with counts."""
        return self._known_columns()[1].facets(filter)

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """A copy of the feature of one image, (d,) float32; UnknownImageError."""
        now = self.state()
        if 0 <= image_id < 2**63:
            position = np.flatnonzero(now.ids == image_id)
            if len(position):
                return np.array(now.scattered[position[0]], dtype=np.float32)
        raise self.unknown(image_id)

    # -- records ------------------------------------------------------------------------------------------------------

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        """The records of those images that still exist, in the order of the ids."""
        self.state()
        return self._fetch(ids)

    def unknown(self, image_id: int) -> UnknownImageError:
        """The error for an id that no image has; it names those between which ids lie."""
        ids = self.ids
        known = f"Its ids lie between {ids.min()} and {ids.max()}; searchengine export lists them." if len(ids) else ""
        return UnknownImageError(f"The index holds no image {image_id}. {known}".rstrip())

    def find(self, other: ImageRecord) -> int | None:
        """The id of the image that is the same picture as one of another index, by its content, else by its path.

        The path counts only if one of the two has no content hash, as imported features have none.
        """
        self.state()
        path = other.path.encode("utf-8")
        with self._lock:
            if other.content_hash is not None:
                same = self._catalog.of_content(bytes.fromhex(other.content_hash))
                if same is not None:
                    return int(same[0])
            # With several image folders, a path is shown with the name of its folder before it.
            candidates = self._catalog.ids_of_paths(path, path.partition(b"/")[2])
        if other.path.startswith("#") and other.path[1:].isascii() and other.path[1:].isdecimal():
            candidates.append(int(other.path[1:]))  # a row that has only a number
        for record in self._fetch(candidates):
            if record.path == other.path and None in (record.content_hash, other.content_hash):
                return record.id
        return None

    def named(self, text: str) -> list[int]:
        """The ids of images that have a text as a label, or whose file or folder is called by it, ascending.

        Case does not matter, nor what stands between words.
        """
        with self._lock:
            return self._catalog.named(text)

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        """At most n images, spread evenly over the collection, by id; ``skip`` leaves out those of an earlier sample.

        The same each time while the collection does not change.
        """
        return self._fetch(self.state().sample(n, skip))

    def _fetch(self, ids: Sequence[int]) -> list[ImageRecord]:
        records: dict[int, ImageRecord] = {}
        roots = self._state.roots if self._state else {}
        with self._lock:
            for row in self._catalog.records([id_ for id_ in ids if 0 <= id_ < 2**63]):
                try:
                    records[row[0]] = record_of(row, roots)
                except (AttributeError, TypeError, ValueError) as error:
                    raise self._catalog.damaged(f"what it says of image {row[0]} cannot be true") from error
        return [records[id_] for id_ in ids if id_ in records]

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """At most (n, d) features of random images with ids up to ``newest``; see ``Index.draw``."""
        return self.state().draw(n, newest, without)

    # -- the whole, row by row --------------------------------------------------------------------------------------

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64, in the order of ``features``."""
        now = self.state()
        return now.ids[now.live]

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
        now = self.state()
        live = now.live
        return now.rows if len(live) == len(now.rows) else np.asarray(now.rows[live])

    @property
    def generation(self) -> object:
        """Differs whenever what the index holds has changed."""
        return self.state().generation

    def __len__(self) -> int:
        return self.state().count

    # -- what made it -----------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> str | None:
        """One entry of the manifest, as it stands now."""
        with self._lock:
            return self._catalog.get(key)

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features."""
        return self.state().fingerprint

    @property
    def spec(self) -> str:
        """The extractor's spec, as JSON."""
        return self.state().spec

    @property
    def dimension(self) -> int:
        """Numbers in a feature."""
        return int(self.state().rows.shape[1])

    @property
    def normalized(self) -> bool:
        """Whether the features have length 1."""
        return self.state().normalized

    @property
    def metric(self) -> str:
        """What a distance is measured in, unless a search names another metric."""
        return self.state().metric

    @property
    def typical_length(self) -> float:
        """The root mean square of the lengths of all features."""
        return self.state().typical_length

    @property
    def newest(self) -> int:
        """The largest id; -1 where there is no image."""
        return int(self.state().ids.max(initial=-1))

    def status(self) -> IndexStatus:
        """The index in numbers, as it stands now."""
        now = self.state()
        with self._lock:
            skipped, run = self._catalog.count_skipped(), self._catalog.run()
            title, updated = self._catalog.need("extractor"), self._catalog.need("updated")
        files = [self.folder / now.features_file, *self.folder.glob("*.sqlite*"), *structures(self.folder)]
        return IndexStatus(
            images=now.count,
            skipped=skipped,
            dimension=self.dimension,
            extractor=title,
            fingerprint=now.fingerprint,
            bytes=bytes_of(files),
            updated=updated,
            run=RunProgress(*run, is_locked(self.folder / LOCK_NAME)) if run else None,
        )

    def skipped(self) -> list[tuple[str, str]]:
        """Every file that could not be used: path and reason."""
        with self._lock:
            files = self._catalog.skipped()
        return [(file.path.decode("utf-8", "replace"), file.reason) for file in files]

    def close(self) -> None:
        """Close the catalog."""
        with self._lock:
            self._catalog.close()

    # -- keeping up with the writer ---------------------------------------------------------------------------------

    def state(self) -> State:
        """The current state; it stays as it is when the index changes."""
        with self._lock:
            for attempt in range(3):
                if self._catalog.outdated:
                    self._reopen()
                old = self._state
                if old is not None and old.data_version == self._catalog.data_version:
                    if is_whole(old.rows):
                        return old
                    self._state = old = None  # map the file again once it has been put back
                try:
                    new = state.load(self.folder, self._catalog, old, self.images_dir)
                except IndexDamagedError:
                    # the writer may have put another file in place between our look at the catalog and at the folder
                    if attempt == 2:
                        raise
                else:
                    if not self._catalog.outdated or attempt == 2:
                        self._state = new
                        return new
            raise AssertionError("unreachable")

    def _known_columns(self) -> tuple[State, Columns]:
        """The current state, and the columns that filters look at; these are read when they are first asked for."""
        with self._columns_lock:
            while True:
                with self._lock:
                    now, catalog, known = self.state(), self._catalog, self._columns
                if known is None or known.generation != now.generation:
                    # By another connection, so that searches need not wait: reading all columns takes seconds.
                    with closing(Catalog.open(self.folder)) as another:
                        known = column_reader.load(self.folder, another, now, known)
                if known is not None:
                    known = columns.with_tags(known, self.folder, now.fingerprint)
                with self._lock:
                    if known is not None and catalog is self._catalog and not catalog.outdated:
                        self._columns = known
                        return now, known

    def _reopen(self) -> None:
        """Open the catalog again: it was replaced, or it was written to where nothing can be locked."""
        catalog = Catalog.open(self.folder)
        self._closing.detach()
        self._catalog.close()
        self._catalog, self._state, self._columns = catalog, None, None
        self._closing = weakref.finalize(self, catalog.close)
