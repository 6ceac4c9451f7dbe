"""The triplet loss against a naive loop, and its gradient against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.extractors.frameworks import import_keras
from searchengine.learn.triplets.learner import triplet_loss

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to load


@pytest.fixture(autouse=True, scope="module")
def keras() -> Any:
    return import_keras()


def naive(embeddings: NDArray[np.float64], triplets: NDArray[np.int64], margin: float) -> float:
    total = 0.0
    for a, p, n in triplets.tolist():
        near = sum((embeddings[a, i] - embeddings[p, i]) ** 2 for i in range(embeddings.shape[1]))
        far = sum((embeddings[a, i] - embeddings[n, i]) ** 2 for i in range(embeddings.shape[1]))
        total += max(0.0, near - far + margin)
    return total / len(triplets) if len(triplets) else 0.0


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_against_a_naive_loop(margin: float) -> None:
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((12, 5))
    triplets = random.integers(0, 12, (40, 3))
    assert float(triplet_loss(embeddings, triplets, margin)) == pytest.approx(naive(embeddings, triplets, margin))


def test_nothing_to_learn_from() -> None:
    none = np.empty((0, 3), np.int64)
    assert float(triplet_loss(np.ones((4, 2), np.float32), none, 0.2)) == 0.0
    assert float(triplet_loss(np.empty((0, 2), np.float32), none, 0.2)) == 0.0


def test_tied_distances_cost_the_margin() -> None:
    """Positive and negative are equally far, or all three are the same point, where the gradient must be finite."""
    embeddings = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert float(triplet_loss(embeddings, np.array([[0, 1, 2]]), 0.2)) == pytest.approx(0.2)
    assert float(triplet_loss(embeddings, np.array([[0, 3, 4]]), 0.2)) == pytest.approx(0.2)
    assert np.isfinite(gradient(embeddings, np.array([[0, 3, 4]]), 0.2)).all()


def test_satisfied_triplets_cost_nothing() -> None:
    embeddings = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0]])
    triplets = np.array([[0, 1, 2]])
    assert float(triplet_loss(embeddings, triplets, 0.2)) == 0.0
    assert not gradient(embeddings, triplets, 0.2).any()


def gradient(embeddings: NDArray[np.float64], triplets: NDArray[np.int64], margin: float) -> NDArray[np.float64]:
    import tensorflow as tf

    rows = tf.Variable(embeddings)
    with tf.GradientTape() as tape:
        loss = triplet_loss(rows, triplets, margin)
    return np.asarray(tf.convert_to_tensor(tape.gradient(loss, rows)))


def test_gradient_against_finite_differences() -> None:
    random = np.random.default_rng(1)
    embeddings = random.standard_normal((7, 4))
    triplets = random.permuted(np.tile(np.arange(7), (30, 1)), axis=1)[:, :3]
    gradients = gradient(embeddings, triplets, 0.2)
    step = 1e-6
    for at in np.ndindex(embeddings.shape):
        moved = np.zeros_like(embeddings)
        moved[at] = step
        slope = (naive(embeddings + moved, triplets, 0.2) - naive(embeddings - moved, triplets, 0.2)) / (2 * step)
        assert gradients[at] == pytest.approx(slope, abs=1e-7)
    assert gradients.any()
