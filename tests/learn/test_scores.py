"""Scores worked out by hand, and folds."""

from __future__ import annotations

import numpy as np
import pytest

from searchengine.learn.classifiers import ClassScore, Confusion
from searchengine.learn.fitting import (
    NEVER_HELD_OUT,
    brier,
    expected_calibration_error,
    held_out,
    stratified_folds,
    wilson,
)


def test_worked_by_hand() -> None:
    pytest.importorskip("sklearn")
    truth = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5]])  # in a tie the first class wins
    scores = held_out(truth, probabilities, ("cat", "dog"))
    assert (scores.images, scores.accuracy) == (4, 0.5)
    assert scores.by_class == (ClassScore("cat", 2, 1), ClassScore("dog", 2, 1))
    assert scores.confused == (Confusion("cat", "dog", 1), Confusion("dog", "cat", 1))
    assert scores.brier == pytest.approx((0.02 + 0.72 + 0.08 + 0.5) / 4)
    # each in a separate bin: |1 - 0.9|, |0 - 0.6|, |1 - 0.8|, |0 - 0.5|
    assert scores.calibration_error == pytest.approx((0.1 + 0.6 + 0.2 + 0.5) / 4)


def test_wilson_interval() -> None:
    low, high = wilson(8, 10)  # 0.4902 to 0.9433 by the formula of Brown, Cai and DasGupta
    assert (low, high) == (pytest.approx(0.49016, abs=1e-4), pytest.approx(0.94333, abs=1e-4))
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    assert wilson(5, 5)[0] > 0.5


def test_calibration_error_against_a_loop() -> None:
    random = np.random.default_rng(1)
    confidence = random.random(400)
    right = random.random(400) < confidence**2
    expected = 0.0
    for i in range(10):
        inside = (confidence > i / 10) & (confidence <= (i + 1) / 10)
        if inside.any():
            expected += inside.sum() / 400 * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, right, bins=10) == pytest.approx(expected)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0


def test_brier_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(2)
    positive = random.random(50)
    truth = (random.random(50) < positive).astype(np.int64)
    both = np.stack([1 - positive, positive], axis=1)
    assert brier(truth, both) == pytest.approx(2 * metrics.brier_score_loss(truth, positive))  # over both classes


def test_folds_are_stratified_and_keep_copies_together() -> None:
    pytest.importorskip("sklearn")
    truth = np.array([0] * 50 + [1] * 20 + [2])
    groups = np.arange(71)
    groups[[3, 17, 40]] = 3  # three files with one content
    groups[60] = 5  # and a copy that carries another label
    folds = stratified_folds(truth, groups, 5, seed=0)
    assert set(folds[:70].tolist()) == {0, 1, 2, 3, 4}
    assert folds[70] == NEVER_HELD_OUT
    assert len({*folds[[3, 17, 40]].tolist()}) == 1
    assert folds[60] == folds[5]
    counts = np.bincount(folds[50:70], minlength=5)
    assert counts.min() >= 3
    assert counts.max() <= 5
    np.testing.assert_array_equal(folds, stratified_folds(truth, groups, 5, seed=0))
    assert (stratified_folds(np.arange(4), np.arange(4), 5, seed=0) == NEVER_HELD_OUT).all()
    assert set(stratified_folds(np.array([0, 0, 1, 1]), np.arange(4), 5, seed=0).tolist()) == {0, 1}
