"""Queries -> rankings -> measures of each query; a ranking is measured and forgotten, never kept as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import metrics
from searchengine.analyse.evaluation.metrics import Relevance
from searchengine.analyse.evaluation.ranking import Collection, Positions, Ranker, Ranking
from searchengine.analyse.evaluation.statistics import GROUPS, without_each_group

FIRST = 10  # places that are kept of each ranking: what a person sees


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries of an evaluation. ``features`` gives the (b, d) float32 features of a slice of them; ``left_out`` is,
    of each, the positions in the collection that have no place in its ranking: in leave-one-out, its own.
    """

    labels: Sequence[tuple[str, ...]]
    left_out: Sequence[Positions]
    features: Callable[[slice], NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Measured:
    """A line for each of the q queries.

    ``values`` (q, m) float64 and ``ceilings`` (q, m) float64 as ``metrics.names`` has them; ``curve`` (levels,) float64
    mean precision by recall; ``first`` (q, 10) int64 positions of the nearest, -1 where there are no more, with
    ``distances`` (q, 10) float64 and ``relevant`` (q, 10) bool.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    ceilings: NDArray[np.float64]
    curve: NDArray[np.float64]
    first: NDArray[np.int64]
    distances: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    replicates: NDArray[np.float32] | None = None  # (q, statistics.GROUPS, m)


def measure(
    collection: Collection,
    relevance: Relevance,
    queries: Queries,
    metric: str,
    *,
    recall_at: Sequence[int] = metrics.RECALL_AT,
    groups: NDArray[np.int64] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Rank the collection for each query and measure the rankings.

    Every query must have something relevant (see ``with_something_relevant``). With the (n,) ``groups`` of the
    images, everything is also measured without each group. Raises UnknownNameError for an unknown metric.
    """
    names = metrics.names(recall_at)
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
    for of_query in Ranker(collection, metric).rank(queries.features, queries.left_out, take):
        curve += of_query
        advance(1)
    return Measured(names, values, ceilings, curve / max(count, 1), first, distances, relevant, replicates)


def with_something_relevant(
    relevance: Relevance, labels: Sequence[Sequence[str]], left_out: Sequence[Positions]
) -> NDArray[np.bool_]:
    """(q,) bool: whether anything in the collection, but for what is left out, shares a label with the query."""
    able = np.zeros(len(labels), dtype=np.bool_)
    for number, (of_query, away) in enumerate(zip(labels, left_out, strict=True)):
        if of_query:
            able[number] = any(relevance.size(label) > len(away) for label in of_query) or bool(
                relevance.gains(of_query, away).any()
            )
    return able


def evaluate_features(
    features: NDArray[np.float32],
    labels: Sequence[str | tuple[str, ...]],
    *,
    metric: str = "euclidean",
    recall_at: Sequence[int] = metrics.RECALL_AT,
) -> dict[str, float]:
    """Leave-one-out on plain arrays, e.g. a validation set while training: each measure by its name.

    Args:
        features: (n, d) float32.
        labels: of each row one label, or several; "" and () for none.
        metric: what a distance is measured in.
        recall_at: the k of recall@k.

    Returns:
        name -> mean over the queries that have something relevant; NaN where there is none.
    """
    of_rows = [(label,) if isinstance(label, str) else label for label in labels]
    relevance, collection = Relevance(of_rows), Collection.of_features(features)
    alone = [np.array([i], dtype=np.int64) for i in range(len(of_rows))]
    asking = np.flatnonzero(with_something_relevant(relevance, of_rows, alone))
    if not len(asking):
        return dict.fromkeys(metrics.names(recall_at), float("nan"))
    queries = Queries(
        [of_rows[i] for i in asking],
        [alone[i] for i in asking],
        lambda part: collection.features(asking[part]),
    )
    measured = measure(collection, relevance, queries, metric, recall_at=recall_at)
    return dict(zip(measured.names, measured.values.mean(axis=0).tolist(), strict=True))
