"""Every metric, compared with a simple loop; their scores and names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchengine.errors import UnknownNameError
from searchengine.index import exact, metrics
from searchengine.index.metrics import METRICS

Rows = NDArray[np.float32]


def naive_distance(metric: str, row: Rows, query: Rows) -> float:
    pairs = [(float(a), float(b)) for a, b in zip(row, query, strict=True)]
    if metric == "euclidean":
        return math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs))
    if metric == "manhattan":
        return math.fsum(abs(a - b) for a, b in pairs)
    product = math.fsum(a * b for a, b in pairs)
    if metric == "inner-product":
        return -product
    lengths = math.sqrt(math.fsum(a * a for a, _ in pairs)) * math.sqrt(math.fsum(b * b for _, b in pairs))
    return 1.0 - (product / lengths if lengths else 0.0)


def naive(metric: str, rows: Rows, ids: NDArray[np.int64], query: Rows) -> list[tuple[float, int]]:
    return sorted((naive_distance(metric, row, query), int(id_)) for row, id_ in zip(rows, ids, strict=True))


def norms_of(rows: Rows) -> NDArray[np.float64]:
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


@pytest.mark.parametrize("metric", METRICS)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    d=st.integers(1, 17),
    m=st.integers(0, 4),
    k=st.integers(1, 60),
    values=st.sampled_from([2, 3, 1000]),
)
@settings(max_examples=60)
def test_equals_the_naive_loop(metric: str, seed: int, n: int, d: int, m: int, k: int, values: int) -> None:
    random = np.random.default_rng(seed)
    # whole numbers, so that sums are exact; few of them, so that many are tied; zero vectors among them
    rows = random.integers(-values // 2, values, (n, d)).astype(np.float32)
    counts = random.random(n) < 0.8
    ids = random.permutation(1000)[:n].astype(np.int64) + 1
    queries = random.integers(-values // 2, values, (m, d)).astype(np.float32)
    norms = norms_of(rows)
    norms[~counts] = np.inf
    results = exact.Searcher(metric, rows, norms, ids).nearest(queries, k)
    for query, found in zip(queries, results, strict=True):
        expected = naive(metric, rows[counts], ids[counts], query)
        distances = {id_: distance for distance, id_ in expected}
        got = ids[found.positions].tolist()
        np.testing.assert_allclose(found.distances, [d for d, _ in expected[:k]], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found.distances, [distances[id_] for id_ in got], rtol=1e-12, atol=1e-14)
        if metric != "cosine":  # whose square roots can split ties in the last digit
            assert got == [id_ for _, id_ in expected[:k]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-3, 1.0, 1e15, 1e30, 3e37])
def test_numbers_of_any_size(metric: str, scale: float) -> None:
    random = np.random.default_rng(7)
    rows = (random.standard_normal((6000, 5)) * scale).astype(np.float32)
    rows[3] = 0
    query = (random.standard_normal(5) * scale).astype(np.float32)
    ids = np.arange(1, len(rows) + 1)
    (found,) = exact.Searcher(metric, rows, norms_of(rows), ids).nearest(query[None], 4)
    expected = naive(metric, rows, ids, query)[:4]
    assert found.positions.tolist() == [id_ - 1 for _, id_ in expected]
    np.testing.assert_allclose(found.distances, [d for d, _ in expected], rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_one_query_and_many_give_the_same_and_equal_rows_are_ordered_by_id(metric: str) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((9000, 33)).astype(np.float32)
    rows[5000:5040] = rows[17]
    ids = random.permutation(9000).astype(np.int64) + 1
    queries = np.concatenate([rows[17:18], random.standard_normal((40, 33)).astype(np.float32)])
    together = exact.Searcher(metric, rows, norms_of(rows), ids).nearest(queries, 10)
    if metric != "inner-product":
        twins = [17, *range(5000, 5040)]
        assert ids[together[0].positions].tolist() == sorted(ids[twins].tolist())[:10]
        assert together[0].distances.max() < 1e-15
    for query, result in zip(queries, together, strict=True):
        (alone,) = exact.Searcher(metric, rows, norms_of(rows), ids).nearest(query[None], 10)
        np.testing.assert_array_equal(alone.positions, result.positions)
        np.testing.assert_array_equal(alone.distances, result.distances)


def test_a_zero_vector_has_no_direction() -> None:
    rows = np.array([[0, 0], [2, 0], [-1, 0], [0, 5]], dtype=np.float32)
    ids = np.arange(1, 5)
    for query, expected in (([1, 0], [(2, 0.0), (1, 1.0), (4, 1.0), (3, 2.0)]), ([0, 0], [(i, 1.0) for i in ids])):
        block = np.array([query], dtype=np.float32)
        (found,) = exact.Searcher("cosine", rows, norms_of(rows), ids).nearest(block, 9)
        assert list(zip(ids[found.positions].tolist(), found.distances.tolist(), strict=True)) == expected


def test_normalised_features_rank_alike() -> None:
    random = np.random.default_rng(5)
    rows = random.standard_normal((500, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = np.arange(1, 501)
    orders = [
        exact.Searcher(metric, rows, norms_of(rows), ids).nearest(rows[:1], 50)[0].positions.tolist()
        for metric in ("euclidean", "cosine", "inner-product")
    ]
    assert orders[0] == orders[1] == orders[2]
    assert "Euclidean distance and inner product give" in metrics.alike_sentence("cosine", normalized=True)
    assert metrics.alike_sentence("manhattan", normalized=True) == ""
    assert metrics.alike_sentence("cosine", normalized=False) == ""


def test_scores() -> None:
    assert metrics.score("euclidean", 1.0, normalized=True) == 0.5
    assert metrics.score("euclidean", 1.0, normalized=False) == 0.5
    assert metrics.score("euclidean", 2**0.5, normalized=True) == pytest.approx(0.0)
    assert metrics.score("cosine", 0.25, normalized=False) == 0.75
    assert metrics.score("inner-product", -3.0, normalized=False) == 3.0
    assert metrics.score("manhattan", 3.0, normalized=False) == 0.25


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'cosin'\. Choose one of: cosine, "):
        exact.Searcher("cosin", np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(1, np.int64))
