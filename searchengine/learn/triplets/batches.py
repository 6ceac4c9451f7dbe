"""The batches of an epoch. They depend on the seed and the number of the epoch alone, so a run can resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.learn.triplets.miners import Triplets


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """``rows`` (b,) int64 of images; ``triplets`` (t, 3) int64 positions in ``rows``, None if they are to be mined."""

    rows: NDArray[np.int64]
    triplets: Triplets | None


def draw_triplets(labels: NDArray[np.int64], anchors: NDArray[np.int64], random: np.random.Generator) -> Triplets:
    """Draw a random positive and a random negative for each anchor.

    Args:
        labels: (n,) int64, at least two different ones.
        anchors: (t,) int64 rows, each with another row of its label.
        random: the source of randomness.

    Returns:
        (t, 3) int64 rows.
    """
    order = np.argsort(labels, kind="stable")  # images of one class stand together
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    _, first, number, size = np.unique(labels[order], return_index=True, return_inverse=True, return_counts=True)
    begin, count = first[number][place[anchors]], size[number][place[anchors]]  # of the anchor's class
    within = place[anchors] - begin
    step = random.integers(1, np.maximum(count, 2))  # 1 ... count - 1: never the anchor itself
    positives = order[begin + (within + step) % count]
    other = random.integers(0, len(labels) - count)  # all but the class
    negatives = order[np.where(other < begin, other, other + count)]
    return np.stack([anchors, positives, negatives], axis=1)


def with_partner(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) labels -> the rows that share their label with another row."""
    _, number, size = np.unique(labels, return_inverse=True, return_counts=True)
    return np.flatnonzero(size[number] > 1)


class RandomTriplets:
    """Each image is the anchor once in an epoch, with a random positive and a random negative."""

    def __init__(self, labels: NDArray[np.int64], *, size: int, seed: int) -> None:
        """``labels`` (n,) int64; ``size`` triplets a batch."""
        self._labels, self._size, self._seed = labels, size, seed
        self._anchors = with_partner(labels)

    def __len__(self) -> int:
        return math.ceil(len(self._anchors) / self._size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of up to three rows for each triplet; a row of several triplets is in the batch once."""
        random = np.random.default_rng((self._seed, number))
        triplets = draw_triplets(self._labels, random.permutation(self._anchors), random)
        for start in range(0, len(triplets), self._size):
            rows, places = np.unique(triplets[start : start + self._size], return_inverse=True)
            yield Batch(rows, places.reshape(-1, 3).astype(np.int64))


class ClassBatches:
    """Batches of P classes with K images each, to be mined (Hermans, Beyer and Leibe 2017, section 2)."""

    def __init__(self, labels: NDArray[np.int64], *, size: int, images_a_class: int, seed: int) -> None:
        """``labels`` (n,) int64; ``size`` images a batch, ``images_a_class`` of each class, where it has as many."""
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._classes = min(max(2, size // images_a_class), len(self._members))
        self._each, self._seed = images_a_class, seed
        drawn = np.mean([min(len(members), images_a_class) for members in self._members]) * self._classes
        self._steps = math.ceil(len(labels) / drawn)

    def __len__(self) -> int:
        return self._steps

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches that together draw about as many images as there are."""
        random = np.random.default_rng((self._seed, number))
        for _ in range(self._steps):
            chosen = random.choice(len(self._members), self._classes, replace=False)
            rows = [random.permutation(self._members[label])[: self._each] for label in chosen.tolist()]
            yield Batch(np.concatenate(rows), None)
