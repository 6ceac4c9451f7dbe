"""Intervals and tests on values whose answers are known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from searchengine.analyse.evaluation.statistics import holm, interval, resampled_means, sign_flip_p


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).standard_normal((400, 1)) + 3.0
    low, high = interval(resampled_means(values, np.random.default_rng(1)))
    error = values.std() / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_resampling_draws_whole_queries_and_repeats_with_its_seed() -> None:
    values = np.arange(10.0)[:, None] * [1.0, -2.0]
    means = resampled_means(values, np.random.default_rng(7))
    np.testing.assert_allclose(means[:, 1], -2.0 * means[:, 0])
    np.testing.assert_array_equal(means, resampled_means(values, np.random.default_rng(7)))
    np.testing.assert_array_equal(resampled_means(np.full((5, 1), 0.25), np.random.default_rng(0)), 0.25)


def test_the_permutation_test_equals_all_permutations() -> None:
    differences = np.random.default_rng(3).standard_normal((10, 2)) + np.array([0.4, 0.0])
    exact = np.mean(
        [
            np.abs(np.array(signs) @ differences) >= np.abs(differences.sum(axis=0)) - 1e-9
            for signs in product((1, -1), repeat=10)
        ],
        axis=0,
    )
    np.testing.assert_allclose(sign_flip_p(differences, np.random.default_rng(0)), exact, atol=0.02)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_p(np.zeros((20, 1)), np.random.default_rng(0)).tolist() == [1.0]
    assert sign_flip_p(np.ones((40, 1)), np.random.default_rng(0), flips=99).tolist() == [0.01]


def test_holm() -> None:
    of_two_measures = np.array([[0.01, 0.5], [0.04, 0.9], [0.03, 0.2]])
    np.testing.assert_allclose(holm(of_two_measures), [[0.03, 1.0], [0.06, 1.0], [0.06, 0.6]])
    assert holm(np.array([])).tolist() == []
