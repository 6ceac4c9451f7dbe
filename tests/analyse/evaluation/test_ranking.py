"""The whole collection is ordered by (distance, id), for any size of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from searchengine.analyse.evaluation import evaluate_features, metrics, ranking
from searchengine.analyse.evaluation.metrics import Relevance
from searchengine.analyse.evaluation.ranking import Collection, Ranker, Ranking, stable_argsort
from searchengine.index.metrics import METRICS
from tests.index.test_metrics import naive_distance

Rows = NDArray[np.float32]


def ranked(rows: Rows, metric: str = "euclidean", collection: Collection | None = None) -> list[Ranking]:
    """Query with each row, which is left out of its own ranking."""
    alone = [np.array([i]) for i in range(len(rows))]
    return list(
        Ranker(collection or Collection.of_features(rows), metric).rank(lambda part: rows[part], alone, lambda _, r: r)
    )


def naive_order(rows: Rows, metric: str, query: int) -> list[int]:
    distances = [(naive_distance(metric, row, rows[query]), i) for i, row in enumerate(rows) if i != query]
    return [i for _, i in sorted(distances)]


@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_naive_loop(metric: str) -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((70, 6)).astype(np.float32)
    if metric in ("euclidean", "manhattan", "inner-product"):
        rows = random.integers(-2, 3, (70, 6)).astype(np.float32)  # many ties, exact sums
    rows[50:60] = rows[3]
    for query, result in enumerate(ranked(rows, metric)):
        assert result.order.tolist() == naive_order(rows, metric, query)
        expected = [naive_distance(metric, rows[i], rows[query]) for i in result.order[: ranking.HEAD]]
        np.testing.assert_allclose(result.distances, expected, rtol=1e-12, atol=1e-14)


def test_equal_features_are_tied_to_the_very_end() -> None:
    random = np.random.default_rng(2)
    few = random.standard_normal((3, 301)).astype(np.float32)
    which = random.integers(0, 3, 500)
    for query, result in enumerate(ranked(few[which])):
        order = result.order
        groups = which[order]
        for group in range(3):
            assert (np.diff(order[groups == group]) > 0).all()  # by id
        assert np.count_nonzero(np.diff(groups)) == 2  # one group after the other
        assert groups[0] == which[query]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).integers(-2, 3, (40, 5)).astype(np.float32)
    whole = [result.order.tolist() for result in ranked(rows)]
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 4 * 40 * 3)
    assert [result.order.tolist() for result in ranked(rows)] == whole


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_features_too_large_or_small_for_products(scale: float) -> None:
    rows = (np.random.default_rng(4).standard_normal((50, 4)) * scale).astype(np.float32)
    for metric in ("euclidean", "cosine"):
        for query, result in enumerate(ranked(rows, metric)):
            assert result.order[:20].tolist() == naive_order(rows, metric, query)[:20]


def test_rows_that_do_not_count() -> None:
    rows = np.random.default_rng(5).integers(-2, 3, (30, 4)).astype(np.float32)
    stored = rows[::-1].copy()
    stored[4] = 0.0  # dead
    norms = np.einsum("ij,ij->i", stored, stored).astype(np.float64)
    norms[4] = np.inf
    columns = np.array([row for row in range(29, -1, -1) if row != 4])
    alive = Collection(stored, norms, columns, Relevance([]))
    kept = stored[columns]
    for query, result in enumerate(ranked(kept, collection=alive)):
        assert result.order.tolist() == naive_order(kept, "euclidean", query)


@given(arrays(np.float32, st.integers(0, 30), elements=st.floats(-3, 3, width=32) | st.just(-0.0) | st.just(np.inf)))
def test_sorting_stable_argsort(values: Rows) -> None:
    expected = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert stable_argsort(values).tolist() == expected


def test_shared_labels() -> None:
    relevance = Relevance([("a", "b"), ("b",), (), ("", "c", "b"), ("a", "b", "a")])
    assert relevance.labels == ["a", "b", "c"]
    assert relevance.labelled == 4
    assert relevance.gains(("a", "b", "x"), np.array([4])).tolist() == [2, 1, 0, 1, 0]


def naive_evaluation(rows: Rows, labels: list[tuple[str, ...]]) -> dict[str, float]:
    lines = []
    for query, of_query in enumerate(labels):
        gains = [len(set(of_query) & set(labels[i])) for i in naive_order(rows, "euclidean", query)]
        hits = np.flatnonzero(gains)
        if len(hits):
            lines.append(metrics.measured(hits + 1, np.array(gains, dtype=np.float64)[hits]))
    if not lines:
        return dict.fromkeys(metrics.names(), float("nan"))
    return dict(zip(metrics.names(), np.mean(lines, axis=0).tolist(), strict=True))


@settings(max_examples=40)  # threads
@given(st.data())
def test_leave_one_out_equals_the_naive_loop(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 14))
    rows = data.draw(arrays(np.float32, (count, 2), elements=st.integers(-2, 2).map(float)))
    several = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)
    labels: list[tuple[str, ...]] = data.draw(st.lists(several, min_size=count, max_size=count))
    assert evaluate_features(rows, labels) == pytest.approx(naive_evaluation(rows, labels), nan_ok=True)
