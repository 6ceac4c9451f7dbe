"""The nearest images of a query: Milvus names candidates, and exact distances from their features rank these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.address import milvus_parameters
from searchengine.errors import QueryError
from searchengine.index.exact import Neighbours, Searcher
from searchengine.index.filters import Cursor, Filter
from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT, check_metric, rank_alike, score
from searchengine.index.milvus import schema
from searchengine.index.milvus.connection import MOST_ROWS, Row
from searchengine.index.milvus.schema import FEATURE, RECORD, About
from searchengine.index.milvus.snapshot import Snapshot, latest
from searchengine.index.types import Hit

SCANNED = 20_000  # images that are compared one by one, where Milvus cannot rank them
_ALL_LISTS = 50_000  # images up to which all lists of IVF are read
_OURS = {"L2": EUCLIDEAN, "COSINE": COSINE, "IP": INNER_PRODUCT}
_EXTRA = 8  # candidates beyond those wanted
_ANSWER_BYTES = 16 * 2**20  # of features, in the answer to a search
_EFFORT = 512  # of a search in HNSW or DISKANN
_READ_LISTS = 8  # one in so many of those of IVF is read in a larger collection
_COARSE = frozenset({"IVF_SQ8", "DISKANN"})  # these measure by codes: more candidates are looked at
_ERROR = 1e-5  # of a distance that Milvus computes in float32, relative to the squared lengths


@dataclass(frozen=True, slots=True)
class Search:
    """Queries of one metric among the images that pass a filter.

    Attributes:
        snapshot: what is searched.
        metric: one of ours.
        where: the expression of the filter.
    """

    snapshot: Snapshot
    metric: str
    where: str

    @classmethod
    def by(cls, metric: str | None, filter: Filter, snapshot: Snapshot) -> Search:
        """By a metric, or that of the index; UnknownNameError."""
        return cls(snapshot, check_metric(metric or snapshot.about.metric), snapshot.where(filter))

    @property
    def about(self) -> About:
        """The commit as of which it is."""
        return self.snapshot.about

    @property
    def is_ranked(self) -> bool:
        """Whether Milvus ranks by this metric; if not, all images are compared."""
        return rank_alike(self.metric, _OURS[self.about.measured], normalized=self.about.normalized)

    @property
    def is_exact(self) -> bool:
        """Whether nothing that is near can be missed. Every index of Milvus but FLAT is approximate for new images."""
        return not self.is_ranked or self.about.index_type == "FLAT"

    def hits(self, block: NDArray[np.float32], k: int, after: Cursor | None) -> list[list[Hit]]:
        """(m, d) -> for each query its k nearest images, by (distance, id)."""
        candidates = self._near(block, k, after) if self.is_ranked else [self._all()] * len(block)
        return [self._ranked(each, query, k, after) for each, query in zip(candidates, block, strict=True)]

    def _all(self) -> _Candidates:
        """All that passes the filter; QueryError where that is too much."""
        connection = self.snapshot.connection
        if connection.count(self.where) > SCANNED:
            raise QueryError(
                f"This index in Milvus ranks by another metric. By this one, at most {SCANNED} images can be compared: "
                "choose fewer by a filter."
            )
        return _Candidates.of(latest(connection.each_row(self.where, (*RECORD, FEATURE))), self.metric)

    def _near(self, block: NDArray[np.float32], k: int, after: Cursor | None) -> list[_Candidates]:
        """For each of the (m, d) queries what may be among its k nearest: more and more, until nothing else can be."""
        rows: list[dict[int, Row]] = [{} for _ in block]  # by place
        done: dict[int, _Candidates] = {}
        count = min((8 if self.about.index_type in _COARSE else 1) * k + _EXTRA, MOST_ROWS)
        while len(done) < len(block):
            waiting = [at for at in range(len(block)) if at not in done]
            is_small = 4 * len(waiting) * count * self.about.dimension <= _ANSWER_BYTES
            fields = (*RECORD, FEATURE) if is_small else ()
            for at, hits in zip(waiting, self._found(block[waiting], count, fields), strict=True):
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

    def _found(self, block: NDArray[np.float32], count: int, fields: Sequence[str]) -> list[list[Row]]:
        """For each of the (m, d) queries what Milvus finds, the nearest first: id, distance, and fields as entity."""
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
        return 1.0 if self.about.measured == "L2" else -1.0  # the others are larger for what is nearer

    def _effort(self, count: int) -> dict[str, int]:
        """How far Milvus's index is searched for so many candidates."""
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
        images = self.snapshot.records(candidates.rows[at] for at in nearest.positions.tolist())
        return [
            Hit(
                rank,
                image.id,
                image.path,
                distance,
                score(self.metric, distance, normalized=self.about.normalized),
                image.label,
                image,
            )
            for rank, (image, distance) in enumerate(zip(images, nearest.distances.tolist(), strict=True), 1)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Rows of images with their features, to be ranked by exact distances."""

    rows: list[Row]
    lengths: NDArray[np.float64]  # of their features
    searcher: Searcher

    @classmethod
    def of(cls, rows: Iterable[Row], metric: str) -> _Candidates:
        rows = list(latest(sorted(rows, key=lambda row: int(row["place"]))))
        features = np.array([row[FEATURE] for row in rows] or np.empty((0, 1)), dtype=np.float32)  # (n, d)
        squared_norms = np.einsum("ij,ij->i", features, features, dtype=np.float64)
        ids = np.array([row["id"] for row in rows], dtype=np.int64)
        return cls(rows, np.sqrt(squared_norms), Searcher(metric, features, squared_norms, ids))

    def nearest(self, query: NDArray[np.float32], k: int, after: Cursor | None) -> Neighbours:
        """The k nearest rows, by (distance, id)."""
        return self.searcher.nearest(query[None], k, after)[0]

    def hold(self, query: NDArray[np.float32], k: int, after: Cursor | None, near: dict[int, float]) -> bool:
        """Whether the k nearest of what Milvus looks at are among these, by how far it finds the farthest of them."""
        nearest = self.nearest(query, k, after).positions.tolist()
        if len(nearest) < k:
            return False
        error = _ERROR * (float(np.linalg.norm(query)) + float(self.lengths[nearest].max())) ** 2
        return max(near.get(self.rows[at]["place"], 0.0) for at in nearest) + error < max(near.values())
