"""From a trained pupil to the form that is shipped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.extractors import compact
from searchengine.learning.photos import Photos
from tests.small_compact import SMALL, cosines, pictures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow and what it brings warn while they are imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]


@pytest.mark.slow
def test_packaging_writes_what_loading_reads(tmp_path: Path) -> None:
    from searchengine.learning.packaging import write_package

    weights = compact.named_weights(compact.build_compact(64, SMALL, folded=True, whitened=True))
    write_package(weights, SMALL, tmp_path, size=64, summary={"images": 0})
    assert compact.graph_file(tmp_path).exists()
    loaded = compact.named_weights(compact.load_compact(tmp_path))
    for name, value in weights.items():
        np.testing.assert_allclose(loaded[name], value, atol=1e-3)


def test_whitening_in_full_makes_classes_vary_evenly() -> None:
    from searchengine.learning.packaging import whitening

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 50)
    within = rng.normal(size=(1000, 6)) * [1, 2, 3, 1, 1, 1]
    features = (within + rng.normal(size=(20, 6))[labels] * 9 + 5).astype(np.float32)
    whitened = features @ whitening(features, labels, 1.0, shrinkage=0.0)
    covariances = [np.cov(whitened[labels == label], rowvar=False, bias=True) for label in range(20)]
    average = np.mean(covariances, axis=0)
    np.testing.assert_allclose(average, np.eye(6) * average[0, 0], atol=1e-3)
    np.testing.assert_allclose(whitening(features, labels, 0.0), np.eye(6), atol=1e-6)


def test_the_axes_that_are_kept_are_those_of_largest_variance() -> None:
    from searchengine.learning.packaging import principal_axes

    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    features = (rng.normal(size=(4000, 5)) * [1, 9, 2, 5, 3] @ turned.T + 7).astype(np.float32)
    axes = principal_axes(features, 2)
    np.testing.assert_allclose(np.abs(axes.T @ turned[:, [1, 3]]), np.eye(2), atol=0.05)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-6)


@pytest.mark.slow
def test_batch_normalisation_is_measured_on_pictures_as_they_are_drawn() -> None:
    from searchengine.learning.packaging import recalibrated

    student = compact.build_compact(None, SMALL)
    before, fresh = compact.named_weights(student), np.asarray(student(pictures(128, 64)))
    found = recalibrated(student, pictures(128, 64), size=64, images=128)
    compact.set_named_weights(student, found)
    by_statistics, by_batch = (np.asarray(student(pictures(128, 64), training=t)) for t in (False, True))
    assert cosines(by_statistics, by_batch).mean() > 0.99 > cosines(fresh, by_batch).mean()
    assert {name for name in before if (before[name] != found[name]).any()} == {n for n in before if "/moving_" in n}


def test_classes_of_one_photo_each_tell_nothing_about_whitening() -> None:
    from searchengine.learning.packaging import whitening

    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    with pytest.raises(SearchEngineError, match="no class has two photos"):
        whitening(features, np.arange(6), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_the_origin_is_the_mean_of_the_photos_given_for_it(given: bool) -> None:
    from searchengine.learning.packaging import with_whitening

    photos = Photos(pictures(40, 64), np.arange(40) % 4, tuple("abcd"))
    centre = pictures(9, 64, seed=5)
    weights = compact.named_weights(compact.build_compact(64, SMALL, folded=True))
    weights = with_whitening(weights, photos, SMALL, power=0.5, centre=centre if given else None)
    model = compact.build_compact(64, SMALL, folded=True, whitened=True)
    compact.set_named_weights(model, weights)
    here, there = (np.asarray(model(several)).mean(axis=0) for several in (centre, photos.pixels))
    scale = np.abs(np.asarray(model(photos.pixels))).max()
    np.testing.assert_allclose(here if given else there, 0, atol=1e-4 * scale)
    assert np.abs(there if given else here).max() > 1e-2 * scale
