"""Each measure against scikit-learn and against a naive loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchengine.analyse.evaluation import metrics

GAINS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def places_of(gains: list[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    hits = np.flatnonzero(gains)
    return hits + 1, np.array(gains, dtype=np.float64)[hits]


def naive(gains: list[int], k: int) -> tuple[float, float, float, float]:
    """P@k, recall@k, AP, NDCG@k of a ranking, rank by rank."""
    hits, precisions, gained = 0, [], 0.0
    for rank, gain in enumerate(gains, 1):
        if gain:
            hits += 1
            precisions.append(hits / rank)
        if rank <= k:
            gained += gain / math.log2(rank + 1)
    best = sum(g / math.log2(r + 1) for r, g in enumerate(sorted(gains, reverse=True)[:k], 1))
    first = sum(1 for gain in gains[:k] if gain)
    return first / k, first / hits, sum(precisions) / hits, gained / best


@given(GAINS.filter(any), st.integers(1, 50))
def test_equal_the_naive_loop(gains: list[int], k: int) -> None:
    places, worth = places_of(gains)
    computed = (
        metrics.precision_at(places, k),
        metrics.recall_at(places, k),
        metrics.average_precision(places),
        metrics.ndcg_at(places, worth, k),
    )
    assert computed == pytest.approx(naive(gains, k), rel=1e-12)


@settings(max_examples=50)  # the first call imports scikit-learn
@given(GAINS.filter(any), st.integers(1, 12))
def test_equal_scikit_learn(gains: list[int], k: int) -> None:
    scores = pytest.importorskip("sklearn.metrics")
    places, worth = places_of(gains)
    falling = -np.arange(len(gains), dtype=np.float64)
    assert metrics.average_precision(places) == pytest.approx(
        scores.average_precision_score(np.array(gains) > 0, falling), rel=1e-9
    )
    if len(gains) > 1:  # scikit-learn refuses a single document
        expected = scores.ndcg_score([gains], [falling], k=k)
        assert metrics.ndcg_at(places, worth, k) == pytest.approx(expected, rel=1e-9)


def test_by_hand() -> None:
    places = np.array([1, 3, 6])
    assert metrics.precision_at(places, 5) == pytest.approx(2 / 5)
    assert metrics.recall_at(places, 5) == pytest.approx(2 / 3)
    assert metrics.average_precision(places) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg_at(places, np.ones(3), 10) == pytest.approx((1 + 1 / 2 + 1 / math.log2(7)) / best)
    assert metrics.precision_at(np.array([1]), 10) == pytest.approx(0.1)  # of a short ranking too


def test_where_nothing_is_relevant() -> None:
    none = np.empty(0, dtype=np.int64)
    assert metrics.precision_at(none, 5) == 0.0
    assert math.isnan(metrics.recall_at(none, 5))
    assert math.isnan(metrics.average_precision(none))
    assert math.isnan(metrics.ndcg_at(none, np.empty(0), 5))


@given(st.integers(1, 200))
def test_a_perfect_ranking_reaches_the_ceiling(relevant: int) -> None:
    places = np.arange(1, relevant + 1)
    assert metrics.measured(places, np.ones(relevant)) == pytest.approx(metrics.ceilings(relevant))
    assert len(metrics.names()) == len(metrics.ceilings(relevant))


@given(GAINS.filter(any))
def test_precision_by_recall(gains: list[int]) -> None:
    places, _ = places_of(gains)
    curve = metrics.precision_by_recall(places)
    for level, precision in zip(np.linspace(0, 1, metrics.LEVELS), curve, strict=True):
        beyond = [n / place for n, place in enumerate(places.tolist(), 1) if n / len(places) >= level - 1e-9]
        assert precision == pytest.approx(max(beyond))
