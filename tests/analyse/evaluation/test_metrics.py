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


def measures(gains: list[int], k: int = 100) -> dict[str, float]:
    return dict(zip(metrics.names([k]), metrics.measured(*places_of(gains), [k]).tolist(), strict=True))


def naive(gains: list[int], k: int) -> dict[str, float]:
    """The measures of a ranking, rank by rank."""
    precisions = [sum(map(bool, gains[:rank])) / rank for rank, gain in enumerate(gains, 1) if gain]
    gained, best = (
        sum(gain / math.log2(rank + 1) for rank, gain in enumerate(order[:10], 1))
        for order in (gains, sorted(gains, reverse=True))
    )
    return {
        **{f"P@{first}": sum(map(bool, gains[:first])) / first for first in (1, 5, 10)},
        f"recall@{k}": sum(map(bool, gains[:k])) / len(precisions),
        "mAP": sum(precisions) / len(precisions),
        "NDCG@10": gained / best,
    }


@given(GAINS.filter(any), st.integers(1, 50))
def test_equal_the_naive_loop(gains: list[int], k: int) -> None:
    assert measures(gains, k) == pytest.approx(naive(gains, k), rel=1e-12)


@settings(max_examples=50)  # the first call imports scikit-learn
@given(GAINS.filter(any))
def test_equal_scikit_learn(gains: list[int]) -> None:
    scores = pytest.importorskip("sklearn.metrics")
    falling = -np.arange(len(gains), dtype=np.float64)
    expected = scores.average_precision_score(np.array(gains) > 0, falling)
    assert measures(gains)["mAP"] == pytest.approx(expected, rel=1e-9)
    if len(gains) > 1:  # scikit-learn refuses a single document
        assert measures(gains)["NDCG@10"] == pytest.approx(scores.ndcg_score([gains], [falling], k=10), rel=1e-9)


def test_where_nothing_is_relevant() -> None:
    assert np.isnan(metrics.measured(np.empty(0, dtype=np.int64), np.empty(0))).all()


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
