"""A collection as of one commit: its rows, the images that pass a filter, and the images nearest to a query.

Milvus only finds candidates for a search. They are ranked by exact distances, computed from their features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from searchengine.address import milvus_parameters
from searchengine.errors import QueryError
from searchengine.index.exact import Neighbours, Searcher
from searchengine.index.filters import EVERYTHING, Cursor, Filter
from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT, check_metric, metric_title, rank_alike
from searchengine.index.milvus import schema
from searchengine.index.milvus.connection import MOST_ROWS, Connection, Row
from searchengine.index.milvus.schema import FEATURE, RECORD, SPREAD_BITS, About, quoted, record_of
from searchengine.index.state import Roots
from searchengine.index.types import Hit, ImageRecord

_IDS_AT_ONCE = 4096
_EXTRA_ROWS = 16  # rows fetched beyond the number wanted
SCANNED = 20_000  # maximum number of images to compare one by one if Milvus cannot rank them
_ALL_LISTS = 50_000  # number of images up to which all lists of IVF are read
_OURS = {"L2": EUCLIDEAN, "COSINE": COSINE, "IP": INNER_PRODUCT}
_EXTRA = 8  # candidates fetched beyond the number wanted
_ANSWER_BYTES = 16 * 2**20  # bytes of features in the response to a search
_EFFORT = 512  # search width of HNSW and DISKANN
_READ_LISTS = 8  # in a larger collection, an eighth of the lists of IVF is read
_COARSE = frozenset({"IVF_SQ8", "DISKANN"})  # index types that measure compressed vectors and so need more candidates
_ERROR = 1e-5  # error of the distances that Milvus computes in float32, relative to the squared norms


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A collection as of one commit. Threads may share it.

    Attributes:
        connection: the connection to the server.
        about: the row for the index as a whole.
        roots: the image folders: id -> (present location, name).
    """

    connection: Connection
    about: About
    roots: Roots
    _cached: dict[int, Row | None] = field(default_factory=dict)  # rows of single images, by id

    def where(self, filter: Filter = EVERYTHING) -> str:
        """Return the expression for the images that pass a filter."""
        return expression(filter, self.about.generation, {id_: name for id_, (_, name) in self.roots.items()})

    def all_rows(self, fields: Sequence[str], condition: str = "") -> Iterator[Row]:
        """Yield the rows of all images that meet a condition, by id."""
        return latest(self.connection.each_row(self.where() + condition, fields))

    def rows_at(self, places: Iterable[int], fields: Sequence[str]) -> list[Row]:
        """Return the latest row of each image at some places, by id."""
        listed = sorted(places)
        if not listed:
            return []
        where = f"place in {listed} and born <= {self.about.generation}"
        return list(latest(self.connection.each_row(where, fields, at_once=len(listed) + 1)))  # in one request

    def rows_of(self, ids: Sequence[int], fields: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of those images that exist, in portions of the ids."""
        existing = [id_ for id_ in ids if 0 <= id_ < 2**62]
        for start in range(0, len(existing), _IDS_AT_ONCE):
            part = existing[start : start + _IDS_AT_ONCE]
            yield from self.rows_at([place for id_ in part for place in (2 * id_, 2 * id_ + 1)], fields)

    def row(self, id_: int) -> Row | None:
        """Return the row of one image with its feature, or None; cached, because one page needs it several times."""
        if id_ not in self._cached:
            self._cached[id_] = next(self.rows_of([id_], (*RECORD, FEATURE)), None)
        return self._cached[id_]

    def spread(self, n: int, condition: str = "") -> list[int]:
        """Return the places of the n images with the smallest ``spread``, whose ids are spread evenly over all ids."""
        if not n or not self.about.images:
            return []
        share = min(1.0, 2 * (n + _EXTRA_ROWS) / self.about.images)
        while True:
            below = f" and spread < {int(share * 2**SPREAD_BITS)}" if share < 1 else ""
            rows = self.all_rows(("id", "born", "spread"), condition + below)
            smallest = sorted((int(row["spread"]), int(row["place"])) for row in rows)
            if len(smallest) >= n or share == 1:
                return [place for _, place in smallest[:n]]
            share = min(1.0, 4 * share)

    def records(self, rows: Iterable[Row]) -> list[ImageRecord]:
        """Return the records of images, from rows with the fields of ``RECORD``."""
        return [record_of(row, self.roots) for row in rows]

    def records_of(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Return the records of those images that exist, by id."""
        rows = [self.row(ids[0])] if len(ids) == 1 else self.rows_of(ids, RECORD)
        return {record.id: record for record in self.records(row for row in rows if row is not None)}


def latest(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the latest row of each image, from rows by place: for a moment, a changed image has two."""
    for _, of_image in itertools.groupby(rows, key=lambda row: row["place"] // 2):
        yield max(of_image, key=lambda row: int(row["born"]))


# -- search -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Search:
    """Searches in one metric among the images that pass a filter.

    Attributes:
        snapshot: the collection to search.
        metric: one of ``metrics.METRICS``.
        where: the expression for the filter.
    """

    snapshot: Snapshot
    metric: str
    where: str

    @classmethod
    def by(cls, metric: str | None, filter: Filter, snapshot: Snapshot) -> Search:
        """Return a search in a metric, by default that of the index; UnknownNameError."""
        return cls(snapshot, check_metric(metric or snapshot.about.metric), snapshot.where(filter))

    @property
    def about(self) -> About:
        """The row for the index as a whole."""
        return self.snapshot.about

    @property
    def is_ranked(self) -> bool:
        """Whether Milvus ranks by this metric; if not, all images are compared one by one."""
        return rank_alike(self.metric, _OURS[self.about.measured], normalized=self.about.normalized)

    @property
    def is_exact(self) -> bool:
        """Whether no near image can be missed. All index types of Milvus but FLAT are approximate for new images."""
        return not self.is_ranked or self.about.index_type == "FLAT"

    def hits(self, block: NDArray[np.float32], k: int, after: Cursor | None) -> list[list[Hit]]:
        """Return the k nearest images of each of (m, d) queries, by (distance, id)."""
        candidates = self._nearest(block, k, after) if self.is_ranked else [self._all()] * len(block)
        return [self._ranked(each, query, k, after) for each, query in zip(candidates, block, strict=True)]

    def _all(self) -> _Candidates:
        """Return all images that pass the filter as candidates; QueryError if they are too many."""
        connection = self.snapshot.connection
        if connection.count(self.where) > SCANNED:
            raise QueryError(
                f"Milvus cannot rank this index by {metric_title(self.metric)}. At most {SCANNED} images can be "
                "compared one by one. Choose fewer images with a filter."
            )
        return _Candidates.of(latest(connection.each_row(self.where, (*RECORD, FEATURE))), self.metric)

    def _nearest(self, block: NDArray[np.float32], k: int, after: Cursor | None) -> list[_Candidates]:
        """Return candidates for each of (m, d) queries: more and more, until they must include the k nearest."""
        rows: list[dict[int, Row]] = [{} for _ in block]  # by place
        done: dict[int, _Candidates] = {}
        count = min((8 if self.about.index_type in _COARSE else 1) * k + _EXTRA, MOST_ROWS)
        while len(done) < len(block):
            waiting = [at for at in range(len(block)) if at not in done]
            is_small = 4 * len(waiting) * count * self.about.dimension <= _ANSWER_BYTES
            fields = (*RECORD, FEATURE) if is_small else ()
            for at, hits in zip(waiting, self._ask_milvus(block[waiting], count, fields), strict=True):
                near = {hit["place"]: self._sign * hit["distance"] for hit in hits}  # smaller is nearer
                if is_small:
                    rows[at] |= {hit["place"]: hit["entity"] for hit in hits}
                else:
                    missing = self.snapshot.rows_at(near.keys() - rows[at].keys(), (*RECORD, FEATURE))
                    rows[at] |= {row["place"]: row for row in missing}
                candidates = _Candidates.of(rows[at].values(), self.metric)
                if len(near) < count or count == MOST_ROWS or candidates.hold(block[at], k, after, near):
                    done[at] = candidates
            count = min(4 * count, MOST_ROWS)
        return [done[at] for at in range(len(block))]

    def _ask_milvus(self, block: NDArray[np.float32], count: int, fields: Sequence[str]) -> list[list[Row]]:
        """Return Milvus's hits for each of (m, d) queries, nearest first: id, distance, and the fields as entity."""
        connection = self.snapshot.connection
        return connection.ask(
            lambda client: list(
                client.search(
                    connection.images,
                    data=list(block),
                    limit=count,
                    filter=self.where,
                    output_fields=["place", *fields],
                    search_params={"metric_type": self.about.measured, "params": self._effort(count)},
                    anns_field=FEATURE,
                    consistency_level=connection.consistency,
                    timeout=connection.timeout,
                )
            )
        )

    @property
    def _sign(self) -> float:
        return 1.0 if self.about.measured == "L2" else -1.0  # the values of the others grow with nearness

    def _effort(self, count: int) -> dict[str, int]:
        """Return the parameters that make Milvus search its index widely enough for ``count`` candidates."""
        chosen = milvus_parameters(self.snapshot.connection.address.options.search_params)
        match self.about.index_type:
            case "HNSW":
                return {"ef": max(chosen.get("ef", _EFFORT), 2 * count)}
            case "DISKANN":
                return {"search_list": max(chosen.get("search_list", _EFFORT), 2 * count)}
            case "IVF_FLAT" | "IVF_SQ8":
                lists = self.about.index_params.get("nlist", schema.LISTS)
                read = lists if self.about.images <= _ALL_LISTS else max(1, lists // _READ_LISTS)
                return {"nprobe": min(chosen.get("nprobe", read), lists)}
            case _:
                return chosen

    def _ranked(self, candidates: _Candidates, query: NDArray[np.float32], k: int, after: Cursor | None) -> list[Hit]:
        nearest = candidates.nearest(query, k, after)
        records = self.snapshot.records(candidates.rows[at] for at in nearest.positions.tolist())
        images = zip(records, nearest.distances.tolist(), strict=True)
        return Hit.ranked(images, self.metric, normalized=self.about.normalized)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Rows of images with their features, to be ranked by exact distances."""

    rows: list[Row]
    lengths: NDArray[np.float64]  # the norms of their features
    searcher: Searcher

    @classmethod
    def of(cls, rows: Iterable[Row], metric: str) -> _Candidates:
        rows = list(latest(sorted(rows, key=lambda row: int(row["place"]))))
        features = np.array([row[FEATURE] for row in rows] or np.empty((0, 1)), dtype=np.float32)  # (n, d)
        squared_norms = np.einsum("ij,ij->i", features, features, dtype=np.float64)
        ids = np.array([row["id"] for row in rows], dtype=np.int64)
        return cls(rows, np.sqrt(squared_norms), Searcher(metric, features, squared_norms, ids))

    def nearest(self, query: NDArray[np.float32], k: int, after: Cursor | None) -> Neighbours:
        """Return the k nearest rows, by (distance, id)."""
        return self.searcher.nearest(query[None], k, after)[0]

    def hold(self, query: NDArray[np.float32], k: int, after: Cursor | None, near: dict[int, float]) -> bool:
        """Return whether these include the k nearest of all images that Milvus looked at.

        ``near`` has Milvus's distances, by place: the k nearest must all be nearer than the last of its hits.
        """
        nearest = self.nearest(query, k, after).positions.tolist()
        if len(nearest) < k:
            return False
        error = _ERROR * (float(np.linalg.norm(query)) + float(self.lengths[nearest].max())) ** 2
        return max(near.get(self.rows[at]["place"], 0.0) for at in nearest) + error < max(near.values())


# -- filters ----------------------------------------------------------------------------------------------------------

_NOTHING = "place < 0"  # matches no primary key
_LAST_ID = 2**62 - 1
_FIRST_NS, _LAST_NS = -(2**62), 2**63 - 1


def expression(filter: Filter, generation: int, names: Mapping[int, str]) -> str:
    """Return the expression for the images that pass a filter as of a commit.

    ``names`` has, by image folder, the name that its displayed paths begin with, or an empty one.
    """
    parts = [f"born <= {generation}"]
    if filter.labels:
        parts.append(f'json_contains_any(facts["labels"], {_texts(filter.labels)})')
    if filter.tags:
        raise QueryError("An index in Milvus has no tags. Leave out the tag, or search by words instead.")
    if filter.folders:
        parts.append(_any([_below(folder, names) for folder in filter.folders]))
    if filter.formats:
        parts.append(f"format in {_texts(filter.formats)}")
    if filter.cameras:
        parts.append(f"camera in {_texts(filter.cameras)}")
    if filter.after is not None or filter.before is not None:
        parts.append(_taken(filter.after, filter.before))
    for name, least, most in (
        ("width", filter.min_width, filter.max_width),
        ("height", filter.min_height, filter.max_height),
    ):
        if least is not None or most is not None:
            parts.append(f"{name} >= {least or 1}")
        if most is not None:
            parts.append(f"{name} <= {most}")
    if filter.ids is not None:
        places = [place for id_ in filter.ids if id_ <= _LAST_ID for place in (2 * id_, 2 * id_ + 1)]
        parts.append(f"place in {places}" if places else _NOTHING)
    return " and ".join(parts)


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, values))}]"


def _any(parts: Sequence[str]) -> str:
    return f"({' or '.join(parts)})"


def _below(folder: str, names: Mapping[int, str]) -> str:
    """Return the condition for images below a folder, which is written as in displayed paths."""
    parts = []
    named = {root: name for root, name in names.items() if name}
    for root, name in named.items():
        if f"{name}/".startswith(f"{folder}/"):
            parts.append(f"root == {root}")
        elif folder.startswith(f"{name}/"):
            parts.append(f"(root == {root} and {_begins(folder[len(name) + 1 :])})")
    others = f"root not in {[*named]} and " if named else ""
    parts.append(f"({others}{_begins(folder)})")
    return _any(parts)


def _begins(folder: str) -> str:
    # "0" is the character after "/"; LIKE would take % and _ for wildcards
    return f"(path >= {quoted(folder + '/')} and path < {quoted(folder + '0')})"


def _taken(after: date | None, before: date | None) -> str:
    """Return the condition for images taken on those days, by EXIF data or else by the local time of the file."""
    by_exif, by_file = ['taken != ""'], ['taken == ""', f"mtime >= {_FIRST_NS}"]
    if after is not None:
        by_exif.append(f'taken >= "{after.isoformat()}"')
        by_file.append(f"mtime >= {_midnight_ns(after)}")
    if before is not None and before < date.max:
        following = before + timedelta(days=1)
        by_exif.append(f'taken < "{following.isoformat()}"')
        by_file.append(f"mtime < {_midnight_ns(following)}")
    return f"(({' and '.join(by_exif)}) or ({' and '.join(by_file)}))"


def _midnight_ns(day: date) -> int:
    """Return the time at which a day begins in the local time zone."""
    try:
        seconds = int(datetime(day.year, day.month, day.day).timestamp())
    except (OverflowError, OSError, ValueError):
        seconds = (day - date(1970, 1, 1)).days * 86_400
    return min(max(seconds * 10**9, _FIRST_NS), _LAST_NS)
