"""An index in a collection of Milvus, for reading.

Milvus names candidates; what is shown is ranked by exact distances from their features, as in an index in a folder. It
sees what a running writer commits. All that is known of an image lies in Milvus, so several servers need nothing else;
``folder`` holds what this machine has computed from it, and can be deleted.
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
from searchengine.index.milvus.nearest import Search
from searchengine.index.milvus.schema import FEATURE, RECORD, About, quoted
from searchengine.index.milvus.snapshot import Snapshot, latest
from searchengine.index.protocol import Index
from searchengine.index.state import State, folders_now
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress, parse_run_note
from searchengine.progress import QUIET, Progress

_KEPT = 0.1  # seconds for which what is known of the whole is not asked for again
COUNTED = 100_000  # images whose facets are counted
STATE_BYTES = 4 * 10**9  # of features that are brought into memory


class MilvusIndex(Index):
    """An index in Milvus, open for reading. Safe to share between threads; open it after a fork."""

    def __init__(self, address: MilvusAddress, folder: Path, images_dir: Path | None = None) -> None:
        self.address = address
        self.folder = folder
        self._images_dir = images_dir
        self._connection = Connection(address)
        self._latest: tuple[float, Snapshot] | None = None  # and when it was asked for
        self._lock = threading.Lock()
        self._counted: Columns | None = None
        self._state: State | None = None
        self._seen: dict[tuple[str, int, object], int] = {}

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
        """The k nearest images of each query; see ``LocalIndex.search``.

        What Milvus does not find is missing: see ``Search.is_exact``. It ranks the first 16 384 images at most, and by
        the metric for which it was made, or one that ranks alike; others are compared one by one, up to 20 000 images.
        """
        search = Search.by(metric, filter, self._now())
        return search.hits(checked_queries(queries, search.about.dimension, k, after), int(k), after)

    def approximation(self, metric: str | None = None) -> None:
        """Milvus has its own."""
        return

    def search_remark(self, metric: str) -> str | None:
        """For people, where searches by a metric are approximate."""
        if Search.by(metric, EVERYTHING, self._now()).is_exact:
            return None
        return "Quick search: some of the nearest images may be missing."

    # -- filters ----------------------------------------------------------------------------------------------------

    def count(self, filter: Filter = EVERYTHING) -> int:
        """How many images pass a filter."""
        now = self._now()
        return self._connection.count(now.where(filter)) if filter else now.about.images

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        """The first n images that pass a filter, by id, that come after ``after_id``."""
        now = self._now()
        where = now.where(filter)
        if after_id is not None:
            where += f" and place > {2 * min(after_id, 2**61) + 1}"
        rows = latest(self._connection.each_row(where, RECORD, at_once=n + 1))
        return now.records(itertools.islice(rows, n))

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """What the images that pass a filter have, with counts; not offered (``offered``) for very many images."""
        now = self._now()
        if now.about.images > COUNTED:
            return Facets(offered=False)
        with self._lock:
            generation = self._number(now.about)
            if self._counted is None or self._counted.generation != generation:
                rows = list(now.all_rows(schema.EVERYTHING_BUT_FEATURE))
                self._counted = column_reader.of_rows(
                    generation,
                    np.array([row["id"] for row in rows], dtype=np.int64),
                    now.roots,
                    [
                        (
                            at, schema.root_of(row), schema.path_of(row), row["width"], row["height"], row["format"],
                            row["taken"] or None, row["camera"], schema.mtime_of(row),
                        )
                        for at, row in enumerate(rows)
                    ],
                    [(at, label) for at, row in enumerate(rows) for label in row["facts"]["labels"]],
                )  # fmt: skip
            return self._counted.facets(filter)

    # -- what is known of images --------------------------------------------------------------------------------------

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """The feature of one image, (d,) float32; UnknownImageError."""
        row = self._now().row(image_id)
        if row is None:
            raise self.unknown(image_id)
        return np.array(row[FEATURE], dtype=np.float32)

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        """What is known of those images that still exist, in the order of the ids."""
        known = self._now().records_of(ids)
        return [known[id_] for id_ in ids if id_ in known]

    def find(self, other: ImageRecord) -> int | None:
        """The id of the image that is the same picture as one of another index; see ``LocalIndex.find``."""
        now = self._now()
        where, connection = now.where(), self._connection
        if other.content_hash is not None:
            same = f"content == {quoted(other.content_hash)} and {where}"
            for row in connection.each_row(same, RECORD, at_once=1):
                return int(row["id"])
        paths = ", ".join(map(quoted, (other.path, other.path.partition("/")[2])))
        rows = latest(connection.each_row(f"path in [{paths}] and {where}", RECORD))
        candidates = now.records(rows)
        if other.path.startswith("#") and other.path[1:].isascii() and other.path[1:].isdecimal():
            candidates += self.known([int(other.path[1:])])  # a row that has no more than a number
        for record in candidates:
            if record.path == other.path and None in (record.content_hash, other.content_hash):
                return record.id
        return None

    def named(self, name: str) -> list[int]:
        """The ids of images that have a text as a label, ascending; as it is written, capitalised or in small letters.

        Names of files and folders are not looked at in Milvus.
        """
        written = dict.fromkeys(
            each
            for words in (name, name.replace(" ", "_"), name.replace(" ", "-"))
            for each in (words, words.lower(), words.capitalize(), words.title(), words.upper())
        )
        labels = Filter(labels=tuple(each for each in written if each.strip()))
        where = self._now().where(labels)
        return [int(row["id"]) for row in latest(self._connection.each_row(where, ("id", "born")))]

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        """At most n images, spread evenly over the collection, by id; see ``LocalIndex.sample``."""
        now = self._now()
        return now.records(now.rows_at(now.spread(skip + n)[skip:], RECORD))

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """At most (n, d) features of images with ids up to ``newest``; see ``Index.draw``."""
        now = self._now()
        spread = now.spread(n + len(without), f" and id <= {newest}")
        places = [place for place in spread if place // 2 not in without][:n]
        features = [row[FEATURE] for row in now.rows_at(places, ("id", "born", FEATURE))]
        return np.array(features, dtype=np.float32).reshape(len(features), now.about.dimension)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """All features in memory, as they stand now; QueryError where they are too many."""
        now = self._now()
        if now.about.images * now.about.dimension * 4 > STATE_BYTES:
            raise QueryError(
                f"This is not offered for an index in Milvus of more than {STATE_BYTES / 1e9:.0f} GB of features. Make "
                "an index in a folder of a part of the images for it."
            )
        with self._lock:
            number = self._number(now.about)
            if self._state is None or self._state.generation != number:
                self._state = _brought(now, number)
            return self._state

    def whole_set_searcher(self, now: State, metric: str, k: int, progress: Progress = QUIET) -> Searcher:
        """What compares features in memory with each other: exact, however Milvus searches."""
        return now.searcher(metric)

    @property
    def generation(self) -> object:
        """Differs whenever what the index holds has changed."""
        return self._number(self._about())

    def __len__(self) -> int:
        return self._about().images

    # -- what made it -------------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> str | None:
        """One entry of the manifest, as it stands now."""
        return self._about().entries.get(key)

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features."""
        return self._about().entries["fingerprint"]

    @property
    def spec(self) -> str:
        """The extractor's spec, as JSON."""
        return self._about().entries["spec"]

    @property
    def dimension(self) -> int:
        """Numbers in a feature."""
        return self._about().dimension

    @property
    def normalized(self) -> bool:
        """Whether the features have length 1."""
        return self._about().normalized

    @property
    def metric(self) -> str:
        """What a distance is measured in, unless a search names another metric."""
        return self._about().metric

    @property
    def typical_length(self) -> float:
        """The root mean square of the lengths of all features."""
        about = self._about()
        return float(np.sqrt(max(about.squared, 0.0) / about.images)) if about.images else 0.0

    @property
    def newest(self) -> int:
        """The largest id that was given so far; -1 where there is no image."""
        about = self._about()
        return about.last_id if about.images else -1

    def status(self) -> IndexStatus:
        """The index in numbers, as it stands now; ``bytes`` of its features."""
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
        """Every file that could not be used: path and reason."""
        files = map(schema.skipped_of, self._connection.skipped())
        return sorted((file.path.decode("utf-8", "replace"), file.reason) for file in files)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _now(self) -> Snapshot:
        """The collection as it stands now, or did a moment ago; IndexNotFoundError."""
        latest, asked = self._latest, time.monotonic()
        if latest is not None and asked - latest[0] < _KEPT and self._connection.consistency != STRONG:
            return latest[1]
        text = self._connection.about()
        if text is None:
            raise self._connection.missing()
        about = About.from_text(text, self.address)
        now = Snapshot(self._connection, about, folders_now(about.image_folders, self._images_dir))
        self._latest = asked, now
        return now

    def _about(self) -> About:
        return self._now().about

    def _number(self, about: About) -> int:
        """A number of this process for what the index holds; a collection that was made again has another."""
        key = (about.entries.get("created", ""), about.generation, about.roots)
        return self._seen.setdefault(key, len(self._seen))


def _brought(now: Snapshot, number: int) -> State:
    """All features in memory."""
    about = now.about
    rows = np.empty((about.images, about.dimension), dtype=np.float32)
    ids: list[int] = []
    for row in itertools.islice(now.all_rows(("id", "born", FEATURE)), about.images):
        rows[len(ids)] = row[FEATURE]
        ids.append(int(row["id"]))
    rows = rows[: len(ids)]
    return State(
        generation=number,
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
        roots=now.roots,
    )
