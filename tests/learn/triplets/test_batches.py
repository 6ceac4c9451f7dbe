"""The contents of a batch, which depend only on the seed and the epoch."""

from __future__ import annotations

import numpy as np
import pytest

from searchengine.learn.triplets.inputs import augmented
from searchengine.learn.triplets.learner import Recipe, batches_of
from searchengine.learn.triplets.sampling import class_batches, draw_triplets, random_triplets, with_partner

LABELS = np.array([2, 0, 0, 1, 2, 0, 3, 2, 2, 1])  # label 3 has a single image


def test_drawn_triplets() -> None:
    """Positives and negatives are valid, and every possible one occurs."""
    anchors = np.repeat(with_partner(LABELS), 400)
    triplets = draw_triplets(LABELS, anchors, np.random.default_rng(0))
    a, p, n = triplets.T
    np.testing.assert_array_equal(a, anchors)
    assert (LABELS[p] == LABELS[a]).all()
    assert (p != a).all()
    assert (LABELS[n] != LABELS[a]).all()
    for anchor in with_partner(LABELS).tolist():
        partners = np.flatnonzero((LABELS[anchor] == LABELS) & (np.arange(len(LABELS)) != anchor))
        assert set(p[a == anchor].tolist()) == set(partners.tolist())
        assert set(n[a == anchor].tolist()) == set(np.flatnonzero(LABELS[anchor] != LABELS).tolist())


def test_partners() -> None:
    assert with_partner(LABELS).tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert not len(with_partner(np.array([3, 1, 2])))


def test_random_triplets_of_an_epoch() -> None:
    batches = random_triplets(LABELS, 4, np.random.default_rng(5))
    triplets = [rows[places] for rows, places in batches if places is not None]
    assert [len(rows) for rows in triplets] == [4, 4, 1]
    assert sorted(np.concatenate(triplets)[:, 0].tolist()) == with_partner(LABELS).tolist()  # each is the anchor once
    for rows, _ in batches:
        assert len(np.unique(rows)) == len(rows)


def test_classes_of_a_batch() -> None:
    random = np.random.default_rng(5)
    batches = [batch for _ in range(5) for batch in class_batches(LABELS, 6, 2, random)]
    for rows, triplets in batches:
        labels, counts = np.unique(LABELS[rows], return_counts=True)
        assert len(labels) == 3
        assert all(count == (1 if label == 3 else 2) for label, count in zip(labels, counts, strict=True))
        assert len(np.unique(rows)) == len(rows)
        assert triplets is None
    assert {row for rows, _ in batches for row in rows.tolist()} == set(range(len(LABELS)))


def test_more_classes_than_exist() -> None:
    ((rows, _), *_) = class_batches(LABELS, 100, 50, np.random.default_rng(0))
    assert len(np.unique(LABELS[rows])) == 2
    ((rows, _), *_) = class_batches(LABELS, 1000, 50, np.random.default_rng(0))
    assert sorted(rows.tolist()) == list(range(len(LABELS)))


@pytest.mark.parametrize("triplets", ["random", "semihard"])
def test_same_seed_and_epoch_same_batches(triplets: str) -> None:
    def drawn(seed: int, number: int) -> list[list[int]]:
        recipe = Recipe(triplets=triplets, batch=4, images_a_class=2, seed=seed)
        return [rows.tolist() for rows, _ in batches_of(number, LABELS, recipe)]

    assert drawn(1, 3) == drawn(1, 3)
    assert drawn(1, 3) != drawn(1, 4)
    assert drawn(1, 3) != drawn(2, 3)
    assert len(drawn(1, 3)) == len(drawn(1, 4))


def test_augmentation_keeps_the_shape_and_repeats_by_seed() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    first, again, other = (augmented(pictures, 48, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == (4, 48, 48, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
