"""Miners against naive loops: random batches with many ties, and empty, tied and one-class batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchengine.learn.triplets.sampling import hard, semihard, squared_distances

MARGIN = 2.0


def naive_semihard(distances: NDArray[np.float64], labels: NDArray[np.int64], margin: float) -> list[list[int]]:
    triplets = []
    for a in range(len(labels)):
        for p in range(len(labels)):
            if p == a or labels[p] != labels[a]:
                continue
            best = None
            for n in range(len(labels)):
                if labels[n] == labels[a] or not distances[a, p] < distances[a, n] < distances[a, p] + margin:
                    continue
                if best is None or distances[a, n] < distances[a, best]:
                    best = n
            if best is not None:
                triplets.append([a, p, best])
    return triplets


def naive_hard(distances: NDArray[np.float64], labels: NDArray[np.int64]) -> list[list[int]]:
    triplets = []
    for a in range(len(labels)):
        positives = [p for p in range(len(labels)) if p != a and labels[p] == labels[a]]
        negatives = [n for n in range(len(labels)) if labels[n] != labels[a]]
        if positives and negatives:
            triplets.append(
                [a, max(positives, key=lambda p: distances[a, p]), min(negatives, key=lambda n: distances[a, n])]
            )
    return triplets


# Small integers, so that distances are exact and many are equal.
BATCHES = st.integers(0, 12).flatmap(
    lambda size: st.tuples(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=size, max_size=size),
        st.lists(st.integers(0, 3), min_size=size, max_size=size),
    )
)


@given(BATCHES)
@settings(max_examples=300)
def test_against_naive_loops(batch: tuple[list[tuple[int, int]], list[int]]) -> None:
    points = np.array(batch[0], dtype=np.float32).reshape(-1, 2)
    labels = np.array(batch[1], dtype=np.int64)
    distances = squared_distances(points)
    for i in range(len(points)):
        for j in range(len(points)):
            assert distances[i, j] == float(np.square(points[i] - points[j]).sum())
    assert semihard(distances, labels, MARGIN).tolist() == naive_semihard(distances, labels, MARGIN)
    assert hard(distances, labels).tolist() == naive_hard(distances, labels)


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([], []),
        ([(0, 0)], [0]),
        ([(0, 0), (1, 0), (0, 1)], [7, 7, 7]),
        ([(0, 0), (1, 0), (0, 1)], [0, 1, 2]),
    ],
    ids=["empty", "one", "one class", "no positives"],
)
def test_no_triplets(points: list[tuple[int, int]], labels: list[int]) -> None:
    distances = squared_distances(np.array(points, dtype=np.float32).reshape(-1, 2))
    for triplets in (semihard(distances, np.array(labels, int), MARGIN), hard(distances, np.array(labels, int))):
        assert triplets.shape == (0, 3)
        assert triplets.dtype == np.int64


def test_all_the_same_point() -> None:
    """Nothing is farther than the positive, so nothing is semi-hard, and the hardest are the first."""
    distances = squared_distances(np.full((4, 3), 0.3, np.float32))
    labels = np.array([0, 0, 1, 1])
    assert not len(semihard(distances, labels, MARGIN))
    assert hard(distances, labels).tolist() == [[0, 1, 2], [1, 0, 2], [2, 3, 0], [3, 2, 0]]


def test_the_bounds_are_not_semihard() -> None:
    distances = squared_distances(np.array([[0.0], [1.0], [-1.0], [2.0]], np.float32))
    labels = np.array([0, 0, 1, 1])
    # D(a, p) = 1: a negative at 1 ties with the positive, and one at 4 = 1 + 3 is exactly at the margin.
    assert [0, 1] not in semihard(distances, labels, 3.0)[:, :2].tolist()
    assert [0, 1, 3] in semihard(distances, labels, 3.5).tolist()
