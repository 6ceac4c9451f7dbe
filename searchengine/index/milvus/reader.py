"""An index in a collection of Milvus, open for reading.

Milvus only finds candidates; hits are ranked by exact distances, as in an index folder. A reader sees what a running
writer commits. Everything known of an image is in Milvus, so several servers need nothing else. The ``folder`` holds
data computed from it on this machine, and can be deleted.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.address import MilvusAddress
from searchengine.errors import QueryError
from searchengine.index import column_reader
from searchengine.index.columns import Columns
from searchengine.index.exact import Searcher, checked_queries
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.milvus import schema
from searchengine.index.milvus.connection import STRONG, Connection
from searchengine.index.milvus.lease import is_held
from searchengine.index.milvus.schema import FEATURE, RECORD, About, quoted
from searchengine.index.milvus.snapshot import Search, Snapshot, latest
from searchengine.index.protocol import Index
from searchengine.index.state import State, present_folders
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress, parse_run_note
from searchengine.progress import QUIET, Progress

_CACHED = 0.1  # seconds for which a snapshot is used again
COUNTED = 100_000  # maximum number of images to count facets of
STATE_BYTES = 4 * 10**9  # maximum size of features to load into memory


class MilvusIndex(Index):
    """An index in Milvus, open for reading. It is safe to share between threads, but must be opened after a fork.

    ``Index`` documents the methods that have no docstring here.
    """

    def __init__(self, address: MilvusAddress, folder: Path, images_dir: Path | None = None) -> None:
        self.address = address
        self.folder = folder
        self._images_dir = images_dir
        self._connection = Connection(address)
        self._latest: tuple[float, Snapshot] | None = None  # a snapshot, and the time when it was requested
        self._lock = threading.Lock()
        self._columns: Columns | None = None
        self._state: State | None = None

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
        """Return the k nearest images of each query; see ``Index.search``.

        Images that Milvus does not find are missing; see ``Search.is_exact``. It ranks at most the first 16 384 images,
        in the metric that its index was made for or one that ranks alike. In other metrics, up to 20 000 images are
        compared one by one.
        """
        search = Search.by(metric, filter, self._snapshot())
        return search.hits(checked_queries(queries, search.about.dimension, k, after), int(k), after)

    def approximation(self, metric: str | None = None) -> None:
        """Return None: Milvus has a structure of its own."""
        return

    def search_remark(self, metric: str) -> str | None:
        if Search.by(metric, EVERYTHING, self._snapshot()).is_exact:
            return None
        return "Quick search: some of the nearest images may be missing."

    # -- filters ----------------------------------------------------------------------------------------------------

    def count(self, filter: Filter = EVERYTHING) -> int:
        snapshot = self._snapshot()
        return self._connection.count(snapshot.where(filter)) if filter else snapshot.about.images

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        snapshot = self._snapshot()
        where = snapshot.where(filter)
        if after_id is not None:
            where += f" and place > {2 * min(after_id, 2**61) + 1}"
        rows = latest(self._connection.each_row(where, RECORD, at_once=n + 1))
        return snapshot.records(itertools.islice(rows, n))

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """Return the facets of the images that pass a filter; they are not offered for very many images."""
        snapshot = self._snapshot()
        if snapshot.about.images > COUNTED:
            return Facets(offered=False)
        with self._lock:
            generation = snapshot.about.content
            if self._columns is None or self._columns.generation != generation:
                rows = list(snapshot.all_rows(schema.EVERYTHING_BUT_FEATURE))
                self._columns = column_reader.of_rows(
                    generation,
                    np.array([row["id"] for row in rows], dtype=np.int64),
                    snapshot.roots,
                    [
                        (
                            at, schema.root_of(row), schema.path_of(row), row["width"], row["height"], row["format"],
                            row["taken"] or None, row["camera"], schema.mtime_of(row),
                        )
                        for at, row in enumerate(rows)
                    ],
                    [(at, label) for at, row in enumerate(rows) for label in row["facts"]["labels"]],
                )  # fmt: skip
            return self._columns.facets(filter)

    # -- records ------------------------------------------------------------------------------------------------------

    def feature(self, image_id: int) -> NDArray[np.float32]:
        row = self._snapshot().row(image_id)
        if row is None:
            raise self.unknown(image_id)
        return np.array(row[FEATURE], dtype=np.float32)

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        known = self._snapshot().records_of(ids)
        return [known[id_] for id_ in ids if id_ in known]

    def find(self, other: ImageRecord) -> int | None:
        snapshot = self._snapshot()
        where, connection = snapshot.where(), self._connection
        if other.content_hash is not None:
            same = f"content == {quoted(other.content_hash)} and {where}"
            for row in connection.each_row(same, RECORD, at_once=1):
                return int(row["id"])
        paths = ", ".join(map(quoted, (other.path, other.path.partition("/")[2])))
        rows = latest(connection.each_row(f"path in [{paths}] and {where}", RECORD))
        candidates = snapshot.records(rows)
        if other.path.startswith("#") and other.path[1:].isascii() and other.path[1:].isdecimal():
            candidates += self.known([int(other.path[1:])])  # an imported feature without a path is shown as #id
        for record in candidates:
            if record.path == other.path and None in (record.content_hash, other.content_hash):
                return record.id
        return None

    def named(self, name: str) -> list[int]:
        """Return the ids, ascending, of images that have a text as a label, in the usual variants of capitalisation.

        In Milvus, the names of files and folders are not compared.
        """
        variants = dict.fromkeys(
            each
            for words in (name, name.replace(" ", "_"), name.replace(" ", "-"))
            for each in (words, words.lower(), words.capitalize(), words.title(), words.upper())
        )
        labels = Filter(labels=tuple(each for each in variants if each.strip()))
        where = self._snapshot().where(labels)
        return [int(row["id"]) for row in latest(self._connection.each_row(where, ("id", "born")))]

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        snapshot = self._snapshot()
        return snapshot.records(snapshot.rows_at(snapshot.spread(skip + n)[skip:], RECORD))

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        snapshot = self._snapshot()
        spread = snapshot.spread(n + len(without), f" and id <= {newest}")
        places = [place for place in spread if place // 2 not in without][:n]
        features = [row[FEATURE] for row in snapshot.rows_at(places, ("id", "born", FEATURE))]
        return np.array(features, dtype=np.float32).reshape(len(features), snapshot.about.dimension)

    # -- all images ---------------------------------------------------------------------------------------------------

    def state(self) -> State:
        snapshot = self._snapshot()
        if snapshot.about.images * snapshot.about.dimension * 4 > STATE_BYTES:
            raise QueryError(
                "This is not available for an index in Milvus with more than "
                f"{STATE_BYTES / 1e9:.0f} GB of features. Index a part of the images into a folder for it."
            )
        with self._lock:
            if self._state is None or self._state.generation != snapshot.about.content:
                self._state = _load_state(snapshot)
            return self._state

    def whole_set_searcher(self, state: State, metric: str, k: int, progress: Progress = QUIET) -> Searcher:
        """Return exact search over the features in memory, however Milvus searches."""
        return state.searcher(metric)

    @property
    def generation(self) -> object:
        return self._about().content

    def __len__(self) -> int:
        return self._about().images

    # -- the manifest -------------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> str | None:
        return self._about().entries.get(key)

    @property
    def fingerprint(self) -> str:
        return self._about().entries["fingerprint"]

    @property
    def spec(self) -> str:
        return self._about().entries["spec"]

    @property
    def dimension(self) -> int:
        return self._about().dimension

    @property
    def normalized(self) -> bool:
        return self._about().normalized

    @property
    def metric(self) -> str:
        return self._about().metric

    @property
    def typical_length(self) -> float:
        about = self._about()
        return float(np.sqrt(max(about.squared, 0.0) / about.images)) if about.images else 0.0

    @property
    def newest(self) -> int:
        """The largest id given so far; -1 if there is no image."""
        about = self._about()
        return about.last_id if about.images else -1

    def status(self) -> IndexStatus:
        """Return the index in numbers; ``bytes`` is the size of its features."""
        about = self._about()
        run = parse_run_note(about.entries.get("run"))
        return IndexStatus(
            images=about.images,
            skipped=self._connection.count_skipped(),
            dimension=about.dimension,
            extractor=about.entries["extractor"],
            fingerprint=about.entries["fingerprint"],
            bytes=about.images * about.dimension * 4,
            updated=about.updated,
            run=RunProgress(*run, is_held(self._connection.about(schema.WRITER))) if run else None,
        )

    def skipped(self) -> list[tuple[str, str]]:
        files = map(schema.skipped_of, self._connection.skipped())
        return sorted((file.path.decode("utf-8", "replace"), file.reason) for file in files)

    def close(self) -> None:
        self._connection.close()

    def _snapshot(self) -> Snapshot:
        """Return a snapshot of the collection as of now or a moment ago; IndexNotFoundError."""
        cached, requested = self._latest, time.monotonic()
        if cached is not None and requested - cached[0] < _CACHED and self._connection.consistency != STRONG:
            return cached[1]
        text = self._connection.about()
        if text is None:
            raise self._connection.missing()
        about = About.from_text(text, self.address)
        snapshot = Snapshot(self._connection, about, present_folders(about.image_folders, self._images_dir))
        self._latest = requested, snapshot
        return snapshot

    def _about(self) -> About:
        return self._snapshot().about


def _load_state(snapshot: Snapshot) -> State:
    """Load all features into memory."""
    about = snapshot.about
    rows = np.empty((about.images, about.dimension), dtype=np.float32)
    ids: list[int] = []
    for row in itertools.islice(snapshot.all_rows(("id", "born", FEATURE)), about.images):
        rows[len(ids)] = row[FEATURE]
        ids.append(int(row["id"]))
    rows = rows[: len(ids)]
    return State(
        generation=about.content,
        data_version=about.generation,
        edits="",
        fingerprint=about.entries["fingerprint"],
        spec=about.entries["spec"],
        normalized=about.normalized,
        metric=about.metric,
        features_file="",
        rows=rows,
        scattered=rows,
        squared_norms=np.einsum("ij,ij->i", rows, rows, dtype=np.float64),
        ids=np.array(ids, dtype=np.int64),
        roots=snapshot.roots,
    )
