"""Exact search: ties, near-duplicates, and threads. ``test_metrics.py`` compares it with a simple loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.index import distances, exact, metrics


@pytest.mark.parametrize("metric", metrics.METRICS)
@pytest.mark.parametrize("reads", ["several threads", "BLAS"])
def test_results_do_not_depend_on_which_threads_read_the_matrix(
    metric: str, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    rows = random.standard_normal((3000, 40), dtype=np.float32)
    norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    norms[::7] = np.inf
    ids = random.permutation(3000).astype(np.int64) + 1
    queries = rows[:3] + np.float32(0.1)
    alone = [exact.Searcher(metric, rows, norms, ids).nearest(query[None], 25)[0] for query in queries]
    if reads == "BLAS":
        monkeypatch.setattr(distances, "_SHARED_BYTES", 0)
    else:
        monkeypatch.setattr(distances, "_SLICE_BYTES", 4096)
        monkeypatch.setattr(distances, "_SLICE_ROWS", 1)
        monkeypatch.setattr(distances, "_threads", lambda: 4)
    for query, expected in zip(queries, alone, strict=True):
        found = exact.Searcher(metric, rows, norms, ids).nearest(query[None], 25)[0]
        assert found.positions.tolist() == expected.positions.tolist()
        assert found.distances.tolist() == expected.distances.tolist()


def test_near_duplicates_far_from_the_origin_are_ranked_correctly() -> None:
    # The error of |x|^2 - 2qx + |q|^2 in float32 is hundreds here; the distances are 0, 1, 2, ...
    base = np.full(64, 5000.0, dtype=np.float32)
    rows = np.stack([base] * 50)
    rows[:, 0] += np.random.default_rng(3).permutation(50).astype(np.float32)
    (found,) = exact.Searcher.of_rows(rows).nearest(base[None], 50)
    np.testing.assert_array_equal(found.distances, np.arange(50))


def counted(metric: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives how many rows are measured exactly, each time."""
    measure, measured = distances.MEASURES[metric], []
    exact_distances = measure.distances

    def distances_of(self: Any, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        measured.append(len(positions))
        return exact_distances(self, positions, query)

    monkeypatch.setattr(measure, "distances", distances_of)
    return measured


@pytest.mark.parametrize("metric", metrics.METRICS)
def test_equal_rows_are_not_all_measured_for_each_of_them(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.zeros((3000, 8), dtype=np.float32)
    rows[::2] = [1, -0.0, 2, 0, 0, 0, 0, 3]
    rows[::3, 1] = 0.0
    measured = counted(metric, monkeypatch)
    neighbours = exact.Searcher.of_rows(rows, metric).nearest(rows, 3)
    assert [neighbours[i].positions.tolist() for i in (0, 4, 2998)] == [[0, 2, 4]] * 3
    assert sum(measured) <= 20 * 3000  # two distinct queries in each block, instead of 3000 * 1500 and more


@pytest.mark.parametrize("metric", metrics.METRICS)
@pytest.mark.parametrize("noise", [1e-8, 1e-4, 1e-2])
def test_near_duplicates_are_not_all_measured_for_each_of_them(
    metric: str, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(4)
    scenes = random.standard_normal((2, 24)) * [[1], [100]]  # a still camera films one, then the other
    rows = np.repeat(scenes, 200, axis=0)
    rows = (rows * (1 + noise * random.standard_normal(rows.shape))).astype(np.float32)
    rows[7] = 0
    norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    norms[5::50] = np.inf
    ids = random.permutation(400).astype(np.int64)
    expected = [exact.Searcher(metric, rows, norms, ids).nearest(query[None], 6)[0] for query in rows]
    monkeypatch.setattr(exact, "_CROWD", 20)
    monkeypatch.setattr(exact, "_NARROW_VALUES", 1000)
    measured = counted(metric, monkeypatch)
    for neighbours, alone in zip(exact.Searcher(metric, rows, norms, ids).nearest(rows, 6), expected, strict=True):
        assert neighbours.positions.tolist() == alone.positions.tolist()
        assert neighbours.distances.tolist() == alone.distances.tolist()
    if metric != metrics.MANHATTAN and noise > 1e-8:
        assert sum(measured) < 400 * 40


@pytest.mark.parametrize("metric", metrics.METRICS)
@pytest.mark.parametrize("dimension", [1, 7, 1280])
def test_a_distance_does_not_depend_on_the_rows_measured_with_it(metric: str, dimension: int) -> None:
    """Cursors rely on this, to the last digit: otherwise pages would repeat or lose rows."""
    random = np.random.default_rng(5)
    rows = random.standard_normal((300, dimension)).astype(np.float32)
    query = random.standard_normal((1, dimension)).astype(np.float32)
    searcher = exact.Searcher.of_rows(rows, metric)
    (whole,) = searcher.nearest(query, 300)
    distance_of = dict(zip(whole.positions.tolist(), whole.distances.tolist(), strict=True))
    for count in (1, 2, 3, 17, 120, 299):
        passing = np.zeros(300, dtype=np.bool_)
        passing[random.permutation(300)[:count]] = True
        (part,) = searcher.among(passing).nearest(query, 300)
        assert set(part.positions.tolist()) == set(np.flatnonzero(passing).tolist())
        assert {position: distance_of[position] for position in part.positions.tolist()} == dict(
            zip(part.positions.tolist(), part.distances.tolist(), strict=True)
        )
