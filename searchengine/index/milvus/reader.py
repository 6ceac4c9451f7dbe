"""An index in a collection of Milvus, for reading.

Milvus names candidates; what is shown is ranked by exact distances from their features, as in an index in a folder. It
sees what a running writer commits. All that is known of an image lies in Milvus, so several servers need nothing else;
``folder`` holds what this machine has computed from it, and can be deleted.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.address import MilvusAddress
from searchengine.errors import QueryError, UnknownImageError
from searchengine.index import column_reader
from searchengine.index.columns import Columns
from searchengine.index.exact import Searcher, checked_queries
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT, check_metric, rank_alike, score
from searchengine.index.milvus import schema
from searchengine.index.milvus.connection import MOST_ROWS, STRONG, Connection, Row
from searchengine.index.milvus.expressions import expression, text
from searchengine.index.milvus.lease import is_held
from searchengine.index.milvus.schema import FEATURE, RECORD, SPREAD_BITS, About, record_of
from searchengine.index.protocol import Index
from searchengine.index.state import State
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress, run_of

SCANNED = 20_000  # images that are compared one by one, where Milvus cannot rank them
COUNTED = 100_000  # images whose facets are counted
STATE_BYTES = 4 * 10**9  # of features that are brought into memory
_OURS = {"L2": EUCLIDEAN, "COSINE": COSINE, "IP": INNER_PRODUCT}
_KEPT = 0.1  # seconds for which what is known of the whole is not asked for again
_MORE = 16  # candidates beyond those wanted
_EFFORT = 256  # of a search in HNSW, at least
_LISTS = 64  # that a search in IVF reads
_ERROR = 1e-5  # of a distance that Milvus computes in float32, relative to the squared lengths
_IDS_AT_ONCE = 4096


class MilvusIndex(Index):
    """An index in Milvus, open for reading. Safe to share between threads; open it after a fork."""

    def __init__(self, address: MilvusAddress, folder: Path, images_dir: Path | None = None) -> None:
        self.address = address
        self.folder = folder
        self.images_dir = images_dir
        self._connection = Connection(address)
        self._lock = threading.Lock()
        self._counted: Columns | None = None
        self._state: State | None = None
        self._latest_about: tuple[float, About] | None = None
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

        What Milvus does not find is not found: its index is approximate, unless it is FLAT. It ranks the first 16 384
        images at most, and by the metric for which it was made, or one that ranks alike; others are compared one by
        one, up to 20 000 images.
        """
        about = self._about()
        ours = check_metric(metric or self._metric(about))
        block = checked_queries(queries, about.dimension, k, after)
        where = self._where(filter, about)
        if not self._ranks(about, ours):
            candidates = [self._all_candidates(where, ours)] * len(block)
        else:
            candidates = self._near_candidates(about, where, block, int(k), ours, after)
        folders = about.folders(self.images_dir)
        return [
            each.hits(query, int(k), after, lambda row: record_of(row, folders), normalized=self._normalized(about))
            for each, query in zip(candidates, block, strict=True)
        ]

    def _near_candidates(
        self, about: About, where: str, block: NDArray[np.float32], k: int, metric: str, after: Cursor | None
    ) -> list[_Candidates]:
        """For each of the (m, d) queries what may be among its k nearest: more and more, until nothing else can be."""
        done: dict[int, _Candidates] = {}
        count = min(2 * k + _MORE, MOST_ROWS)
        while len(done) < len(block):
            waiting = [at for at in range(len(block)) if at not in done]
            for at, near in zip(waiting, self._nearest(about, where, block[waiting], count), strict=True):
                rows = self._rows(f"place in {schema.in_list(list(near))}", (*RECORD, FEATURE), len(near), about)
                candidates = _Candidates.of(rows, metric)
                if len(near) < count or count == MOST_ROWS or candidates.hold(block[at], k, after, near):
                    done[at] = candidates
            count = min(4 * count, MOST_ROWS)
        return [done[at] for at in range(len(block))]

    def _nearest(self, about: About, where: str, block: NDArray[np.float32], count: int) -> Iterator[dict[int, float]]:
        """For each of the (m, d) queries: place -> how far Milvus finds it, smaller is nearer."""
        effort = {
            "HNSW": {"ef": max(_EFFORT, 2 * count)},
            "IVF_FLAT": {"nprobe": _LISTS},
            "IVF_SQ8": {"nprobe": _LISTS},
            "DISKANN": {"search_list": max(_EFFORT, 2 * count)},
        }
        sign = 1.0 if about.measured == "L2" else -1.0  # the others are larger for what is nearer
        found = self._connection.ask(
            lambda client: client.search(
                self._connection.images,
                data=block.tolist(),
                limit=count,
                filter=where,
                output_fields=["place"],
                search_params={"metric_type": about.measured, "params": effort.get(about.index_type, {})},
                anns_field=FEATURE,
                consistency_level=self._connection.consistency,
                timeout=self._connection.timeout,
            )
        )
        return ({int(hit["id"]): sign * float(hit["distance"]) for hit in hits} for hits in found)

    def _ranks(self, about: About, metric: str) -> bool:
        """Whether Milvus ranks by a metric."""
        return rank_alike(metric, _OURS[about.measured], normalized=self._normalized(about))

    def _all_candidates(self, where: str, metric: str) -> _Candidates:
        """All that passes a filter; QueryError where that is too much."""
        if self._connection.count(where) > SCANNED:
            raise QueryError(
                f"This index in Milvus ranks by another metric. By this one, at most {SCANNED} images can be compared: "
                "choose fewer by a filter."
            )
        return _Candidates.of(list(self._connection.each_row(where, (*RECORD, FEATURE))), metric)

    def approximation(self, metric: str | None = None) -> None:
        """Milvus has its own."""
        return

    def search_remark(self, metric: str) -> str | None:
        """For people, where searches by a metric are approximate."""
        about = self._about()
        exact = about.index_type == "FLAT" or not self._ranks(about, check_metric(metric))
        return None if exact else "Quick search: some of the nearest images may be missing."

    # -- filters ----------------------------------------------------------------------------------------------------

    def count(self, filter: Filter = EVERYTHING) -> int:
        """How many images pass a filter."""
        about = self._about()
        return self._connection.count(self._where(filter, about)) if filter else about.images

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        """The first n images that pass a filter, by id, that come after ``after_id``."""
        about = self._about()
        where = self._where(filter, about)
        if after_id is not None:
            where += f" and place > {2 * min(after_id, 2**61) + 1}"
        rows = itertools.islice(_latest(self._connection.each_row(where, RECORD, at_once=n)), n)
        return self._records(rows, about)

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """What the images that pass a filter have, with counts; not offered (``offered``) for very many images."""
        about = self._about()
        if about.images > COUNTED:
            return Facets(offered=False)
        with self._lock:
            generation = self._number(about)
            if self._counted is None or self._counted.generation != generation:
                rows = list(self._all(about, schema.EVERYTHING_BUT_FEATURE))
                self._counted = column_reader.of_rows(
                    generation,
                    np.array([row["id"] for row in rows], dtype=np.int64),
                    about.folders(self.images_dir),
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
        for row in self._of_ids([image_id], self._about(), (*RECORD, FEATURE)):
            return np.array(row[FEATURE], dtype=np.float32)
        raise self._unknown(image_id)

    def records(self, ids: Sequence[int]) -> list[ImageRecord]:
        """What is known of each image, in the order of the ids; UnknownImageError."""
        known = {record.id: record for record in self.known(ids)}
        for id_ in ids:
            if id_ not in known:
                raise self._unknown(id_)
        return [known[id_] for id_ in ids]

    def _unknown(self, image_id: int) -> UnknownImageError:
        return UnknownImageError(f"The index holds no image {image_id}.")

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        """What is known of those images that still exist, in the order of the ids."""
        about = self._about()
        known = {record.id: record for record in self._records(self._of_ids(ids, about, RECORD), about)}
        return [known[id_] for id_ in ids if id_ in known]

    def find(self, other: ImageRecord) -> int | None:
        """The id of the image that is the same picture as one of another index; see ``LocalIndex.find``."""
        about = self._about()
        where = self._where(EVERYTHING, about)
        if other.content_hash is not None:
            same = f"content == {text(other.content_hash)} and {where}"
            for row in self._connection.each_row(same, RECORD, at_once=1):
                return int(row["id"])
        paths = ", ".join(map(text, (other.path, other.path.partition("/")[2])))
        candidates = self._records(_latest(self._connection.each_row(f"path in [{paths}] and {where}", RECORD)), about)
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
        where = self._where(Filter(labels=tuple(each for each in written if each.strip())), self._about())
        return [int(row["id"]) for row in _latest(self._connection.each_row(where, ("id", "born")))]

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        """At most n images, spread evenly over the collection, by id; see ``LocalIndex.sample``."""
        about = self._about()
        places = sorted(place for _, place in self._spread(skip + n, about)[skip:])
        rows = self._rows(f"place in {schema.in_list(places)}", RECORD, n, about) if places else []
        return self._records(sorted(rows, key=lambda row: int(row["id"])), about)

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """At most (n, d) features of images with ids up to ``newest``; see ``Index.draw``."""
        about = self._about()
        spread = self._spread(n + len(without), about, f" and id <= {newest}")
        places = [place for _, place in spread if place // 2 not in without][:n]
        rows = self._rows(f"place in {schema.in_list(places)}", ("id", "born", FEATURE), n, about) if places else []
        features = [row[FEATURE] for row in sorted(rows, key=lambda row: int(row["id"]))]
        return np.array(features, dtype=np.float32).reshape(len(features), about.dimension)

    def _spread(self, n: int, about: About, condition: str = "") -> list[tuple[int, int]]:
        """(number, place) of the n images whose numbers are the smallest; these lie evenly among all ids."""
        if not n or not about.images:
            return []
        share = min(1.0, 2 * (n + _MORE) / about.images)
        while True:
            below = f" and spread < {int(share * 2**SPREAD_BITS)}" if share < 1 else ""
            rows = self._all(about, ("id", "born", "spread"), condition + below)
            smallest = sorted((int(row["spread"]), int(row["place"])) for row in rows)
            if len(smallest) >= n or share == 1:
                return smallest[:n]
            share = min(1.0, 4 * share)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """All features in memory, as they stand now; QueryError where they are too many."""
        about = self._about()
        if about.images * about.dimension * 4 > STATE_BYTES:
            raise QueryError(
                f"This is not offered for an index in Milvus of more than {STATE_BYTES / 1e9:.0f} GB of features. Make "
                "an index in a folder of a part of the images for it."
            )
        with self._lock:
            number = self._number(about)
            if self._state is None or self._state.generation != number:
                self._state = self._brought(about, number)
            return self._state

    def _brought(self, about: About, number: int) -> State:
        rows = np.empty((about.images, about.dimension), dtype=np.float32)
        ids: list[int] = []
        for row in itertools.islice(self._all(about, ("id", "born", FEATURE)), about.images):
            rows[len(ids)] = row[FEATURE]
            ids.append(int(row["id"]))
        rows = rows[: len(ids)]
        return State(
            generation=number,
            data_version=about.generation,
            edits="",
            fingerprint=about.entries["fingerprint"],
            spec=about.entries["spec"],
            normalized=self._normalized(about),
            metric=self._metric(about),
            features_file="",
            rows=rows,
            squared_norms=np.einsum("ij,ij->i", rows, rows, dtype=np.float64),
            ids=np.array(ids, dtype=np.int64),
            roots=about.folders(self.images_dir),
        )

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
        return self._normalized(self._about())

    @property
    def metric(self) -> str:
        """What a distance is measured in, unless a search names another metric."""
        return self._metric(self._about())

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
        run = run_of(about.entries.get("run"))
        return IndexStatus(
            images=about.images,
            skipped=len(self.skipped()),
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

    # -- questions ----------------------------------------------------------------------------------------------------

    def _about(self) -> About:
        """The whole as it stands now, or did a moment ago; IndexNotFoundError."""
        kept = self._latest_about
        if kept is not None and time.monotonic() - kept[0] < _KEPT and self._connection.consistency != STRONG:
            return kept[1]
        asked, found = time.monotonic(), self._connection.about()
        if found is None:
            raise self._connection.missing()
        about = About.from_text(found, self.address)
        self._latest_about = (asked, about)
        return about

    def _number(self, about: About) -> int:
        """A number of this process for what the index holds; a collection that was made again has another."""
        key = (about.entries.get("created", ""), about.generation, about.roots)
        return self._seen.setdefault(key, len(self._seen))

    @staticmethod
    def _metric(about: About) -> str:
        return about.entries.get("metric") or EUCLIDEAN

    @staticmethod
    def _normalized(about: About) -> bool:
        return about.entries.get("normalized") == "1"

    def _where(self, filter: Filter, about: About) -> str:
        names = {id_: name for id_, (_, name) in about.folders(None).items()}
        return expression(filter, about.generation, names)

    def _all(self, about: About, fields: Sequence[str], condition: str = "") -> Iterator[Row]:
        """The rows of all images, by id; with a condition, of those that it leaves."""
        return _latest(self._connection.each_row(self._where(EVERYTHING, about) + condition, fields))

    def _of_ids(self, ids: Sequence[int], about: About, fields: Sequence[str]) -> Iterator[Row]:
        existing = [id_ for id_ in ids if 0 <= id_ < 2**62]
        for start in range(0, len(existing), _IDS_AT_ONCE):
            part = existing[start : start + _IDS_AT_ONCE]
            places = [place for id_ in part for place in (2 * id_, 2 * id_ + 1)]
            yield from self._rows(f"place in {schema.in_list(places)}", fields, len(places), about)

    def _rows(self, condition: str, fields: Sequence[str], most: int, about: About) -> list[Row]:
        """The rows of some places, the latest of each image."""
        where = f"{condition} and born <= {about.generation}"
        return list(_latest(self._connection.each_row(where, fields, at_once=most)))

    def _records(self, rows: Iterator[Row] | Sequence[Row], about: About) -> list[ImageRecord]:
        folders = about.folders(self.images_dir)
        return [record_of(row, folders) for row in rows]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Rows of images with their features, to be ranked by exact distances."""

    rows: list[Row]
    searcher: Searcher
    metric: str

    @classmethod
    def of(cls, rows: list[Row], metric: str) -> _Candidates:
        rows = sorted(_latest(rows), key=lambda row: int(row["id"]))
        features = np.array([row[FEATURE] for row in rows] or np.empty((0, 1)), dtype=np.float32)  # (n, d)
        return cls(rows, Searcher.of_rows(features, metric), metric)

    def hold(self, query: NDArray[np.float32], k: int, after: Cursor | None, near: dict[int, float]) -> bool:
        """Whether the k nearest are certainly among these, by what Milvus says of the farthest of them."""
        if len(self.rows) < k:
            return False
        nearest = self.searcher.nearest(query[None], k, after)[0].positions.tolist()
        if len(nearest) < k:
            return False
        lengths = [float(np.linalg.norm(query)), *(float(np.linalg.norm(self.rows[at][FEATURE])) for at in nearest)]
        error = _ERROR * (lengths[0] + max(lengths[1:])) ** 2
        return max(near[self.rows[at]["place"]] for at in nearest) + error < max(near.values())

    def hits(
        self,
        query: NDArray[np.float32],
        k: int,
        after: Cursor | None,
        record: Callable[[Row], ImageRecord],
        *,
        normalized: bool,
    ) -> list[Hit]:
        """The k nearest, by (distance, id)."""
        if not self.rows:
            return []
        found = self.searcher.nearest(query[None], k, after)[0]
        hits = []
        for rank, (at, distance) in enumerate(zip(found.positions.tolist(), found.distances.tolist(), strict=True), 1):
            image = record(self.rows[at])
            worth = score(self.metric, distance, normalized=normalized)
            hits.append(Hit(rank, image.id, image.path, distance, worth, image.label, image))
        return hits


def _latest(rows: Iterator[Row] | Sequence[Row]) -> Iterator[Row]:
    """Of rows in the order of their places, the latest of each image: for a moment, a changed one has two."""
    for _, of_image in itertools.groupby(rows, key=lambda row: row["place"] // 2):
        yield max(of_image, key=lambda row: int(row["born"]))
