"""Rank a whole collection by (distance, id) for many queries, and measure each ranking.

Images are ordered by the rough float32 values of ``index.distances``, which are computed in blocks, so there is never
more than one block of distances in memory. The first ``HEAD`` places are computed again in float64 and sorted by
(distance, id), as in a search. Farther down, two images whose distances differ by less than the rounding of float32 may
be swapped. Images with equal features are always tied, at any place, and are ordered by id.

Each ranking is measured and discarded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import metrics
from searchengine.analyse.evaluation.metrics import Relevance
from searchengine.analyse.evaluation.statistics import GROUPS, without_each_group
from searchengine.index.distances import MEASURES
from searchengine.index.metrics import check_metric
from searchengine.processors import processors

HEAD: Final = 20
FIRST: Final = 10  # places kept of each ranking, about as many as a person looks at
_BLOCK_BYTES = 64 * 2**20  # size of a block of distances
_QUERIES = 256  # in a block at most, so that the progress bar moves
_FAINTEST = 1e-28  # products of this size lose digits in float32

T = TypeVar("T")
Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking: ``order`` (n,) int64 positions, nearest first; ``distances`` (h,) float64 of the first h."""

    order: Positions
    distances: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Collection:
    """The images to rank. A position, from 0 to n - 1, is the place of an image in the order of ids.

    Attributes:
        rows: (r, d) float32; may be a memory map.
        squared_norms: (r,) float64; infinite for rows that do not count.
        columns: (n,) int64, the row of each image.
        relevance: the labels of the n images.
        groups: (n,) int64, the group of each image in a jackknife, if one is wanted.
    """

    rows: NDArray[np.float32]
    squared_norms: NDArray[np.float64]
    columns: Positions
    relevance: Relevance
    groups: NDArray[np.int64] | None = None

    @classmethod
    def of_features(cls, features: NDArray[np.float32], labels: Sequence[Sequence[str]] = ()) -> Collection:
        """Make a collection of (n, d) float32 features and the labels of each."""
        rows = np.ascontiguousarray(features, dtype=np.float32)
        norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return cls(rows, norms, np.arange(len(rows), dtype=np.int64), Relevance(labels))

    def __len__(self) -> int:
        return len(self.columns)

    def features(self, positions: Positions) -> NDArray[np.float32]:
        """Copy the features at (b,) positions -> (b, d) float32."""
        return np.array(self.rows[self.columns[positions]], dtype=np.float32)


class Ranker:
    """Ranks one collection by one metric."""

    def __init__(self, collection: Collection, metric: str) -> None:
        """Prepare to rank by ``metric``; UnknownNameError if there is no such metric."""
        self._collection = collection
        self._measure = MEASURES[check_metric(metric)](collection.rows, collection.squared_norms)
        norms = collection.squared_norms
        nonzero = np.isfinite(norms) & (norms > 0)
        self._smallest = float(np.sqrt(norms.min(initial=np.inf, where=nonzero)))
        self._repeats, self._firsts = _equal_features(collection)

    def rank(
        self,
        features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        left_out: Sequence[Positions],
        take: Callable[[int, Ranking], T],
    ) -> Iterator[T]:
        """Rank the collection for every query, and pass each ranking to ``take``, in several threads.

        Args:
            features: (b,) numbers of queries -> their (b, d) float32 features.
            left_out: for each query, the positions to leave out of its ranking.
            take: called with the number of a query and its ranking, which is then discarded.

        Yields:
            the results of ``take``, in the order of the queries.
        """

        def ranked(number: int, query: NDArray[np.float32], rough: NDArray[np.float32]) -> T:
            return take(number, self._order(query, rough, left_out[number]))

        size = min(_QUERIES, max(1, _BLOCK_BYTES // (4 * max(len(self._collection.rows), 1))))
        with ThreadPoolExecutor(processors(), thread_name_prefix="rank") as pool:
            for start in range(0, len(left_out), size):
                numbers = np.arange(start, min(start + size, len(left_out)))
                block = features(numbers)
                # (b, d) -> b of (r,) float32
                yield from pool.map(ranked, numbers.tolist(), block, self._measure.rough(block))

    def _order(self, query: NDArray[np.float32], rough: NDArray[np.float32], left_out: Positions) -> Ranking:
        columns, exact = self._collection.columns, query.astype(np.float64)
        values = rough[columns]  # (r,) -> (n,)
        if self._can_be_ordered_by(values, exact):
            values[self._repeats] = values[self._firsts]
            values[left_out] = np.inf
            order = stable_argsort(values)
        else:
            all_distances = self._measure.distances(columns, exact)
            all_distances[left_out] = np.inf
            order = np.argsort(all_distances, kind="stable")
        order = order[: len(values) - len(left_out)]
        head = order[:HEAD]
        distances = self._measure.distances(columns[head], exact)
        better = np.lexsort((head, distances))
        order[:HEAD] = head[better]
        return Ranking(order, distances[better])

    def _can_be_ordered_by(self, values: NDArray[np.float32], query: NDArray[np.float64]) -> bool:
        """Return whether float32 values can order these features: nothing overflows, and products keep their digits."""
        faintest = max(float(np.linalg.norm(query)), self._smallest) * self._smallest
        return (
            faintest >= _FAINTEST
            and bool(np.isfinite(self._measure.limit(0.0, query)))
            and bool(np.isfinite(values).all())
        )


def stable_argsort(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the (n,) int64 indices that sort (n,) float32 values without NaN; equal values stay in order.

    Each value is packed into one integer with its index: NumPy sorts integers several times faster than it sorts
    indices stably.
    """
    bits = (values + np.float32(0.0)).view(np.int32)  # -0.0 becomes 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)  # now the integers have the order of the floats
    keys = bits.astype(np.int64)
    keys <<= 32
    keys |= np.arange(len(values))
    keys.sort()
    keys &= 0xFFFFFFFF
    return keys


def _equal_features(collection: Collection) -> tuple[Positions, Positions]:
    """Find repeated features, for which BLAS may give different values: their positions, and those of the originals."""
    first: dict[bytes, int] = {}
    repeats: list[int] = []
    firsts: list[int] = []
    for position, column in enumerate(collection.columns):
        row = collection.rows[column] + np.float32(0.0)  # -0.0 is 0.0
        known = first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), position)
        if known != position:
            repeats.append(position)
            firsts.append(known)
    return np.array(repeats, dtype=np.int64), np.array(firsts, dtype=np.int64)


# -- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queries:
    """The q queries of an evaluation.

    ``left_out`` has, for each query, the positions in the collection to leave out of its ranking. ``features`` turns
    (b,) numbers of queries into their (b, d) float32 features.
    """

    labels: Sequence[tuple[str, ...]]
    left_out: Sequence[Positions]
    features: Callable[[NDArray[np.int64]], NDArray[np.float32]]

    @classmethod
    def leave_one_out(cls, collection: Collection) -> Queries:
        """Query with each image of a collection, and leave it out of its own ranking."""
        alone = [np.array([i], dtype=np.int64) for i in range(len(collection))]
        return cls(collection.relevance.of_images, alone, collection.features)

    def answerable(self, relevance: Relevance) -> NDArray[np.bool_]:
        """Return (q,) bool: whether any image that is not left out shares a label with the query."""
        gains = (relevance.gains(*query) for query in zip(self.labels, self.left_out, strict=True))
        return np.array([of_query.any() for of_query in gains], dtype=np.bool_)

    def take(self, numbers: NDArray[np.int64]) -> Queries:
        """Select some of the queries."""
        return Queries(
            [self.labels[i] for i in numbers],
            [self.left_out[i] for i in numbers],
            lambda chosen: self.features(numbers[chosen]),
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class QueryScores:
    """The measures of the rankings of q queries.

    Attributes:
        collection: the images ranked.
        queries: the queries.
        names: the names of the m measures.
        values: (q, m) float64.
        ceilings: (q, m) float64, the measures of a perfect ranking.
        curve: (levels,) float64, the mean precision by recall.
        first: (q, 10) int64, the positions of the nearest images; -1 if there are fewer.
        distances: (q, 10) float64, their distances.
        relevant: (q, 10) bool, whether they are relevant.
        replicates: (q, GROUPS, m) float32, the measures without each group of the collection, if it has groups.
    """

    collection: Collection
    queries: Queries
    names: tuple[str, ...]
    values: NDArray[np.float64]
    ceilings: NDArray[np.float64]
    curve: NDArray[np.float64]
    first: NDArray[np.int64]
    distances: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    replicates: NDArray[np.float32] | None = None

    def by_label(self) -> dict[str, NDArray[np.int64]]:
        """Return the numbers of the queries with each label of the collection."""
        numbers = metrics.members(self.queries.labels)
        return {label: numbers[label] for label in numbers if self.collection.relevance.size(label)}


def measure(
    collection: Collection,
    queries: Queries,
    metric: str,
    *,
    recall_at: Sequence[int] = metrics.RECALL_AT,
    advance: Callable[[int], None] = lambda _: None,
) -> QueryScores:
    """Rank the collection for each query, and measure the rankings.

    Every query must be ``answerable``. If the collection has groups, everything is also measured without each of them.
    Raises UnknownNameError for an unknown metric.
    """
    names, relevance, groups = metrics.names(recall_at), collection.relevance, collection.groups
    count = len(queries)
    values = np.empty((count, len(names)))
    ceilings = np.empty((count, len(names)))
    first = np.full((count, FIRST), -1, dtype=np.int64)
    distances = np.full((count, FIRST), np.nan)
    relevant = np.zeros((count, FIRST), dtype=np.bool_)
    replicates = None if groups is None else np.empty((count, GROUPS, len(names)), dtype=np.float32)

    def take(number: int, ranking: Ranking) -> NDArray[np.float64]:
        gains = relevance.gains(queries.labels[number], queries.left_out[number])  # (n,)
        ranked = gains[ranking.order]
        hits = np.flatnonzero(ranked)
        places, worth = hits + 1, ranked[hits].astype(np.float64)
        values[number] = metrics.measured(places, worth, recall_at)
        if groups is not None and replicates is not None:
            replicates[number] = without_each_group(groups[ranking.order], hits, worth, recall_at)
        ceilings[number] = metrics.ceilings(len(places), recall_at)
        kept = min(FIRST, len(ranking.order))
        first[number, :kept] = ranking.order[:kept]
        distances[number, :kept] = ranking.distances[:kept]
        relevant[number, :kept] = ranked[:kept] > 0
        return metrics.precision_by_recall(places)

    curve = np.zeros(metrics.LEVELS)
    for precision in Ranker(collection, metric).rank(queries.features, queries.left_out, take):
        curve += precision
        advance(1)
    curve /= max(count, 1)
    return QueryScores(collection, queries, names, values, ceilings, curve, first, distances, relevant, replicates)


def evaluate_features(
    features: NDArray[np.float32],
    labels: Sequence[str | tuple[str, ...]],
    *,
    metric: str = "euclidean",
    recall_at: Sequence[int] = metrics.RECALL_AT,
) -> dict[str, float]:
    """Evaluate plain arrays by leave-one-out, e.g. a validation set during training.

    Args:
        features: (n, d) float32.
        labels: the label or labels of each row; "" or () for none.
        metric: the metric of the distances.
        recall_at: the k of recall@k.

    Returns:
        measure -> mean over the queries that have something relevant; NaN if there are none.
    """
    row_labels = [(label,) if isinstance(label, str) else label for label in labels]
    collection = Collection.of_features(features, row_labels)
    queries = Queries.leave_one_out(collection)
    queries = queries.take(np.flatnonzero(queries.answerable(collection.relevance)))
    if not len(queries):
        return dict.fromkeys(metrics.names(recall_at), float("nan"))
    measured = measure(collection, queries, metric, recall_at=recall_at)
    return dict(zip(measured.names, measured.values.mean(axis=0).tolist(), strict=True))
