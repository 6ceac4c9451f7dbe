"""Everything measured without a group of photos equals what is measured when they were never there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchengine.evaluation import metrics
from searchengine.evaluation.jackknife import GROUPS, groups_of, margin, spread, t_p, without_each_group

EXPECTED = [0.6216287223139866, 0.327286881279785, 0.019654175116578784]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, GROUPS - 1)), min_size=1, max_size=60))
def test_equals_a_ranking_without_them(images: list[tuple[int, int]]) -> None:
    gains = np.array([gain for gain, _ in images], dtype=np.float64)
    groups = np.array([group for _, group in images])
    hits = np.flatnonzero(gains)
    if not len(hits):
        return
    found = without_each_group(groups, hits, gains[hits], (2, 10))
    for group in range(GROUPS):
        left = gains[groups != group]
        places = np.flatnonzero(left) + 1
        if len(places):
            expected = metrics.measured(places, left[places - 1], (2, 10))
            np.testing.assert_allclose(found[group], expected, rtol=1e-12, atol=1e-15)
        else:
            assert np.isnan(found[group]).all()


def test_the_spread_of_a_plain_mean_is_its_standard_error() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal(5000)
    replicates = np.repeat(values[:, None, None], GROUPS, axis=1)  # nothing but the queries changes
    of_query = np.arange(5000) % GROUPS
    expected = values.std() / np.sqrt(5000)
    assert spread(replicates, of_query)[0] == pytest.approx(expected, rel=0.35)  # 24 degrees of freedom
    assert spread(np.full((50, GROUPS, 2), 0.5), np.arange(50) % GROUPS).tolist() == [0.0, 0.0]


def test_groups_come_from_paths() -> None:
    groups = groups_of([f"{i}.jpg" for i in range(2000)])
    assert groups.tolist() == groups_of([f"{i}.jpg" for i in range(2000)]).tolist()
    counts = np.bincount(groups, minlength=GROUPS)
    assert counts.min() > 40
    assert groups_of(["\udcff"]).shape == (1,)


def test_students_t() -> None:
    assert t_p(margin(1.0), 1.0) == pytest.approx(0.05, abs=1e-5)
    assert t_p(-3.745398618, 1.0) == pytest.approx(0.001, rel=1e-3)
    assert (t_p(0.0, 1.0), t_p(0.0, 0.0), t_p(1.0, 0.0)) == (1.0, 1.0, 0.0)
    # what scipy.stats.t(24).sf says, doubled
    assert [t_p(t, 1.0) for t in (0.5, 1.0, 2.5)] == pytest.approx(EXPECTED, rel=1e-9)
