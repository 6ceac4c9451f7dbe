"""Measures without a group of photos equal those of a collection that never had them."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchengine.analyse.evaluation import metrics
from searchengine.analyse.evaluation.statistics import (
    GROUPS,
    groups_of,
    margin,
    spread,
    t_p,
    without_each_group,
)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, GROUPS - 1)), min_size=1, max_size=60))
def test_equals_a_ranking_without_them(images: list[tuple[int, int]]) -> None:
    gains = np.array([gain for gain, _ in images], dtype=np.float64)
    groups = np.array([group for _, group in images])
    hits = np.flatnonzero(gains)
    if not len(hits):
        return
    measures = without_each_group(groups, hits, gains[hits], (2, 10))
    for group in range(GROUPS):
        left = gains[groups != group]
        places = np.flatnonzero(left) + 1
        if len(places):
            expected = metrics.measured(places, left[places - 1], (2, 10))
            np.testing.assert_allclose(measures[group], expected, rtol=1e-12, atol=1e-15)
        else:
            assert np.isnan(measures[group]).all()


def test_the_spread_of_a_plain_mean_is_its_standard_error() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal(5000)
    replicates = np.repeat(values[:, None, None], GROUPS, axis=1)  # only the queries change
    of_query = np.arange(5000) % GROUPS
    expected = values.std() / np.sqrt(5000)
    assert spread(replicates, of_query)[0][0] == pytest.approx(expected, rel=0.35)  # 24 degrees of freedom
    assert spread(np.full((50, GROUPS, 2), 0.5), np.arange(50) % GROUPS)[0].tolist() == [0.0, 0.0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=GROUPS), st.randoms(use_true_random=False))
def test_few_photos_are_as_many_groups(values: list[float], random: Random) -> None:
    groups = np.array(random.sample(range(GROUPS), len(values)))  # each photo in its own group
    replicates = np.repeat(np.array(values)[:, None, None], GROUPS, axis=1)
    # of a mean, the jackknife that leaves out one at a time is the usual standard error (Efron and Tibshirani, 11.5)
    expected = np.std(values, ddof=1) / np.sqrt(len(values))
    errors, used = spread(replicates, groups)
    assert used == len(values)
    assert errors[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_groups_without_remaining_queries_are_not_used() -> None:
    of_query = np.array([3, 8])
    replicates = np.full((2, GROUPS, 1), 0.5)
    replicates[1] = 1.0
    assert spread(replicates, of_query)[1] == 2
    replicates[0, 8] = replicates[1, 3] = np.nan  # each is the only relevant result of the other
    assert spread(replicates, of_query) == (np.array([0.0]), 0)
    assert spread(replicates[:1], of_query[:1])[1] == 0
    for groups in (0, 1):
        assert (margin(np.zeros(1), groups), t_p(np.full(1, 0.5), np.zeros(1), groups)) == ([math.inf], [1.0])


def test_groups_come_from_paths() -> None:
    groups = groups_of([f"{i}.jpg" for i in range(2000)])
    assert groups.tolist() == groups_of([f"{i}.jpg" for i in range(2000)]).tolist()
    counts = np.bincount(groups, minlength=GROUPS)
    assert counts.min() > 40
    assert groups_of(["\udcff"]).shape == (1,)


def test_students_t() -> None:
    one = np.ones(1)
    assert t_p(-3.745398618 * one, one, GROUPS) == pytest.approx(0.001, rel=1e-3)
    assert t_p(2.5 * one, one, 4) == pytest.approx(0.08770664700806556, rel=1e-9)  # three degrees of freedom
    assert t_p(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]), GROUPS).tolist() == [1.0, 1.0, 0.0]
    for groups in range(2, GROUPS + 1):
        assert t_p(margin(3 * one, groups), 3 * one, groups) == pytest.approx(0.05, abs=1e-5)
