"""The images of a run are indexed once, with their views, and a frozen backbone draws from these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import LearningError
from searchengine.indexing import IndexingOptions
from searchengine.learn.triplets.inputs import Features, Pictures, TrainingExtractor, TrainingImages, gather
from searchengine.learn.triplets.learner import Recipe
from searchengine.progress import QUIET
from tests.fakes import FakeExtractor, FakeRecipe, write_pictures


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", dark__a=20, dark__b=60, bright__a=200, bright__b=220)
    return tmp_path / "photos"


def gathered(photos: Path, to: Path, fake: FakeExtractor, *, views: int = 0, pixels: bool = False) -> TrainingImages:
    recipe = Recipe(views=views, thaw="a layer" if pixels else None)
    extractor = TrainingExtractor(FakeRecipe(loads=lambda: fake), recipe, QUIET.say)
    return gather([photos], extractor, to, IndexingOptions(labels="folder"), QUIET)


def test_each_image_is_embedded_once_and_its_views_stand_behind_it(photos: Path, tmp_path: Path) -> None:
    fake = FakeExtractor()
    data = gathered(photos, tmp_path / "run", fake, views=2)
    assert data.classes == ("bright", "dark")
    assert data.features.shape == (4, 3, 12)
    plain = dict(zip(data.features[:, 0, 0].tolist(), data.labels.tolist(), strict=True))
    assert plain == {20: 1, 60: 1, 200: 0, 220: 0}
    assert not np.array_equal(data.features[:, 1], data.features[:, 2])
    assert fake.embedded == 12
    (photos / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    write_pictures(photos, dark__c=90)
    fake.embedded = 0
    grown = gathered(photos, tmp_path / "run", fake, views=2)
    assert len(grown.features) == 5
    assert [path for path, _ in grown.skipped] == ["dark/broken.png"]
    assert grown.version != data.version
    assert fake.embedded == 3  # the new image and its views


def test_draws(photos: Path, tmp_path: Path) -> None:
    data = gathered(photos, tmp_path / "run", FakeExtractor(), views=1, pixels=False)
    rows, random = np.arange(4), np.random.default_rng(0)
    inputs = Features(data.features, dropout=0.0)
    np.testing.assert_array_equal(inputs.plain(rows), data.features[:, 0])
    drawn = np.stack([inputs.draw(rows, random) for _ in range(20)])
    for row in rows:
        assert {tuple(feature) for feature in drawn[:, row]} == {tuple(view) for view in data.features[row]}


def test_pixels_are_kept_for_a_backbone_that_learns(photos: Path, tmp_path: Path) -> None:
    fake = FakeExtractor()
    data = gathered(photos, tmp_path / "run", fake, pixels=True)
    assert data.pixels is not None
    np.testing.assert_array_equal(data.pixels[:, 0, 0, 0], data.features[:, 0, 0])
    np.testing.assert_array_equal(Pictures(data.pixels, augmented=False).plain(np.array([2])), data.pixels[2:3])
    (photos / "dark" / "a.png").touch()
    again = gathered(photos, tmp_path / "run", fake, pixels=True)
    np.testing.assert_array_equal(data.pixels, again.pixels)
    assert len(list((tmp_path / "run").rglob("pixels-*.npy"))) == 1


def test_one_class_that_can_be_read(photos: Path, tmp_path: Path) -> None:
    for name in "ab":
        (photos / "dark" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    with pytest.raises(LearningError, match="All usable images are of the class 'bright'"):
        gathered(photos, tmp_path / "run", FakeExtractor())
