"""The contents of a batch, which depend only on the seed and the epoch."""

from __future__ import annotations

import numpy as np

from searchengine.learn.triplets.inputs import augmented
from searchengine.learn.triplets.sampling import ClassBatches, RandomTriplets, draw_triplets, with_partner

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
    batches = RandomTriplets(LABELS, size=4, seed=5)
    epoch = list(batches.epoch(0))
    assert len(epoch) == len(batches) == 3
    rows = [batch.rows[batch.triplets] for batch in epoch if batch.triplets is not None]
    assert [len(one) for one in rows] == [4, 4, 1]
    assert sorted(np.concatenate(rows)[:, 0].tolist()) == with_partner(LABELS).tolist()  # each is the anchor once
    for batch in epoch:
        assert len(np.unique(batch.rows)) == len(batch.rows)


def test_classes_of_a_batch() -> None:
    batches = ClassBatches(LABELS, size=6, images_a_class=2, seed=5)
    seen: set[int] = set()
    for number in range(5):
        epoch = list(batches.epoch(number))
        assert len(epoch) == len(batches)
        for batch in epoch:
            labels, counts = np.unique(LABELS[batch.rows], return_counts=True)
            assert len(labels) == 3
            assert all(count == (1 if label == 3 else 2) for label, count in zip(labels, counts, strict=True))
            assert len(np.unique(batch.rows)) == len(batch.rows)
            assert batch.triplets is None
            seen.update(batch.rows.tolist())
    assert seen == set(range(len(LABELS)))


def test_more_classes_than_exist() -> None:
    (batch, *_) = ClassBatches(LABELS, size=100, images_a_class=50, seed=0).epoch(0)
    assert sorted(LABELS[batch.rows].tolist()) != []
    assert len(np.unique(LABELS[batch.rows])) == 2
    (batch, *_) = ClassBatches(LABELS, size=1000, images_a_class=50, seed=0).epoch(0)
    assert sorted(batch.rows.tolist()) == list(range(len(LABELS)))


def test_same_seed_and_epoch_same_batches() -> None:
    for make in (
        lambda seed: RandomTriplets(LABELS, size=4, seed=seed),
        lambda seed: ClassBatches(LABELS, size=6, images_a_class=2, seed=seed),
    ):

        def drawn(seed: int, number: int, make: object = make) -> list[list[int]]:
            return [batch.rows.tolist() for batch in make(seed).epoch(number)]  # type: ignore[operator]

        assert drawn(1, 3) == drawn(1, 3)
        assert drawn(1, 3) != drawn(1, 4)
        assert drawn(1, 3) != drawn(2, 3)


def test_augmentation_keeps_the_shape_and_repeats_by_seed() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    first, again, other = (augmented(pictures, 48, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == (4, 48, 48, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
