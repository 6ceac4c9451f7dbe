"""The average of the learnt and the initial weights keeps what the backbone knows of other classes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.extractors.frameworks import import_keras
from searchengine.learn.triplets.epochs import Scores, further_epochs, score, start_training, validation_triplets
from searchengine.learn.triplets.inputs import Features
from searchengine.learn.triplets.learner import Learner, Recipe, new_head

# Keras 3.15 saves with an array protocol that NumPy 2 deprecates.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

Rows = NDArray[np.int64]


def features_and_labels() -> tuple[NDArray[np.float32], Rows]:
    """Return features: classes 0 to 5 differ in the first numbers, 6 to 11 in the next, noise to the others."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 40)
    features = random.normal(0, 1, (480, 16))
    centres = random.normal(0, 1.5, (12, 4))
    features[:240, :4] += centres[labels[:240]]
    features[240:, 4:8] += centres[labels[240:]]
    return features.astype(np.float32), labels.astype(np.int64)


def test_other_classes_lose_little_and_the_learnt_ones_gain() -> None:
    keras = import_keras()
    features, labels = features_and_labels()
    learnt, held, other = np.arange(0, 240, 2), np.arange(1, 240, 2), np.arange(240, 480)

    def trained(blend: float) -> tuple[Learner, float]:
        recipe = Recipe(dim=8, epochs=25, patience=25, learning_rate=0.01, weight_decay=0.0, blend=blend)
        head = new_head(features[learnt], recipe.dim, recipe.seed)
        inputs = keras.Input((16,))
        source = Features(features[:, None], dropout=0.0)
        learner = Learner(keras.Model(inputs, head.on(inputs)), head.weights, source, labels, recipe)
        start = average_precision(learner, other)
        triplets = validation_triplets(labels[held], 0)

        def judge() -> Scores:
            return score(learner.embed(held), labels[held], triplets)

        state = start_training(learner, judge, {})
        *_, final = further_epochs(learner, learnt, judge, state)
        assert final.epochs[-1].mean_average_precision > state.epochs[0].mean_average_precision + 0.05
        learner.restore_weights(learner.blended(final.last.weights))
        return learner, start

    def average_precision(learner: Learner, rows: Rows) -> float:
        triplets = validation_triplets(labels[rows], 0)
        return score(learner.embed(rows), labels[rows], triplets).mean_average_precision

    (whole, start), (half, _) = trained(1.0), trained(Recipe().blend)
    assert average_precision(whole, other) < start - 0.1
    assert average_precision(half, other) > start - 0.5 * (start - average_precision(whole, other))


def test_blended_weights_lie_between_start_and_present() -> None:
    keras = import_keras()
    features, labels = features_and_labels()
    head = new_head(features, 8, 0)
    inputs = keras.Input((16,))
    model = keras.Model(inputs, head.on(inputs))
    start = [np.array(variable.value) for variable in head.weights]
    learner = Learner(model, head.weights, Features(features[:, None], dropout=0.0), labels, Recipe(blend=0.25))
    present = [value + 4.0 for value in start]
    for blended, value in zip(learner.blended(present), start, strict=True):
        np.testing.assert_allclose(blended, value + 1.0, atol=1e-5)
