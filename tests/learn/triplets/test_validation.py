"""No image, and when split by class no class, is in both parts."""

from __future__ import annotations

import numpy as np
import pytest

from searchengine.errors import LearningError
from searchengine.learn.triplets.sampling import validation_part


def test_by_image() -> None:
    labels = np.repeat([0, 1, 2, 3], [40, 10, 4, 3])
    training, validation = validation_part(labels, np.arange(57), split="image", share=0.25, seed=0)
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(57))
    held = np.bincount(labels[validation], minlength=4).tolist()
    assert held == [10, 2, 2, 0]  # a class of three images is not split
    again = validation_part(labels, np.arange(57), split="image", share=0.25, seed=0)
    other = validation_part(labels, np.arange(57), split="image", share=0.25, seed=1)
    np.testing.assert_array_equal(validation, again[1])
    assert validation.tolist() != other[1].tolist()


def test_copies_stay_on_one_side() -> None:
    labels = np.repeat([0, 1], 20)
    groups = np.concatenate([np.repeat(np.arange(5), 4), np.arange(5, 15), np.arange(5, 15)])
    for seed in range(5):
        training, validation = validation_part(labels, groups, split="image", share=0.3, seed=seed)
        assert not set(groups[training].tolist()) & set(groups[validation].tolist())
    labels = np.repeat([0, 1, 2, 3, 4], 4)
    groups = np.array([0, 1, 2, 3] * 5)  # the same four pictures in every class
    with pytest.raises(LearningError, match="too few images to validate with"):
        validation_part(labels, groups, split="class", share=0.4, seed=0)


def test_by_class() -> None:
    labels = np.arange(60) % 6
    training, validation = validation_part(labels, np.arange(60), split="class", share=0.5, seed=3)
    assert not set(labels[training].tolist()) & set(labels[validation].tolist())
    assert len(set(labels[validation].tolist())) == 3
    assert len(training) + len(validation) == 60


@pytest.mark.parametrize(
    ("labels", "split"),
    [
        ([0, 0, 0, 1, 1, 1], "image"),
        ([0, 0, 0, 0, 1], "image"),
        ([0, 1, 2, 3, 4], "image"),
        ([0, 0, 1, 1, 2, 2], "class"),
    ],
    ids=["three each", "one is alone", "all are alone", "three classes"],
)
def test_too_few(labels: list[int], split: str) -> None:
    with pytest.raises(LearningError, match=f"split by {split} needs at least"):
        validation_part(np.array(labels), np.arange(len(labels)), split=split, share=0.2, seed=0)
