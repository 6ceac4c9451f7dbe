"""Sampling: the images held out for validation, batches, and miners that choose triplets by distance.

Batches depend only on the seed and the number of the epoch, so a run can resume.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError

Triplets = NDArray[np.int64]  # (t, 3): rows of anchor, positive, negative
# The rows of a step's images, (b,), and its triplets as positions among them, or None if they are still to be mined.
Batch: TypeAlias = tuple[NDArray[np.int64], Triplets | None]
_MAX_VALIDATION = 2000  # images, when split by image: each epoch compares all of them with each other


# -- batches ----------------------------------------------------------------------------------------------------------


def draw_triplets(labels: NDArray[np.int64], anchors: NDArray[np.int64], random: np.random.Generator) -> Triplets:
    """Draw a random positive and a random negative for each anchor.

    Args:
        labels: (n,) int64, at least two different ones.
        anchors: (t,) int64 rows; each shares its label with another row.
        random: the source of randomness.

    Returns:
        (t, 3) int64 rows.
    """
    order = np.argsort(labels, kind="stable")  # groups the images of a class
    position = np.empty(len(labels), dtype=np.int64)
    position[order] = np.arange(len(labels))
    _, first, number, size = np.unique(labels[order], return_index=True, return_inverse=True, return_counts=True)
    begin, count = first[number][position[anchors]], size[number][position[anchors]]  # of the anchor's class
    within = position[anchors] - begin
    step = random.integers(1, np.maximum(count, 2))  # 1 ... count - 1: never the anchor itself
    positives = order[begin + (within + step) % count]
    other = random.integers(0, len(labels) - count)  # any image outside the class
    negatives = order[np.where(other < begin, other, other + count)]
    return np.stack([anchors, positives, negatives], axis=1)


def with_partner(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that share their label with another row."""
    _, number, size = np.unique(labels, return_inverse=True, return_counts=True)
    return np.flatnonzero(size[number] > 1)


def random_triplets(labels: NDArray[np.int64], size: int, random: np.random.Generator) -> list[Batch]:
    """Return batches of ``size`` triplets: each image is the anchor once, with a random positive and negative.

    A batch has up to three rows per triplet; a row that occurs in several triplets is in the batch once.
    """
    triplets = draw_triplets(labels, random.permutation(with_partner(labels)), random)
    batches: list[Batch] = []
    for start in range(0, len(triplets), size):
        rows, places = np.unique(triplets[start : start + size], return_inverse=True)
        batches.append((rows, places.reshape(-1, 3).astype(np.int64)))
    return batches


def class_batches(
    labels: NDArray[np.int64], size: int, images_a_class: int, random: np.random.Generator
) -> list[Batch]:
    """Return batches of P classes with K images each, to be mined (Hermans, Beyer and Leibe 2017, section 2).

    A batch has about ``size`` images, ``images_a_class`` of each class, or fewer if the class is smaller. Together the
    batches draw about as many images as there are.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    classes = min(max(2, size // images_a_class), len(members))
    drawn = np.mean([min(len(rows), images_a_class) for rows in members]) * classes
    batches: list[Batch] = []
    for _ in range(math.ceil(len(labels) / drawn)):
        chosen = random.choice(len(members), classes, replace=False)
        rows = [random.permutation(members[label])[:images_a_class] for label in chosen.tolist()]
        batches.append((np.concatenate(rows), None))
    return batches


# -- miners: choose the triplets of a batch by the distances of its embeddings, in NumPy -------------------------------


def squared_distances(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the squared Euclidean distances of (b, d) embeddings: (b, b), at least 0, and 0 on the diagonal."""
    rows = embeddings.astype(np.float64)
    products = rows @ rows.T
    norms = np.diagonal(products)
    distances = np.maximum(norms[:, None] + norms[None, :] - 2.0 * products, 0.0)
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances, dtype=np.float64)


def semihard(distances: NDArray[np.float64], labels: NDArray[np.int64], margin: float) -> Triplets:
    """For each anchor and positive, choose the nearest negative that is farther by less than the margin.

    These are the semi-hard negatives of FaceNet (Schroff, Kalenichenko and Philbin 2015,
    https://arxiv.org/abs/1503.03832, section 3.2).

    Args:
        distances: (b, b) float64, squared as in the loss.
        labels: (b,) int64.
        margin: the margin of the loss.

    Returns:
        (t, 3) int64 in the order of anchor and positive. A pair without a semi-hard negative has no triplet; of equally
        near negatives the first is chosen.
    """
    same = labels[:, None] == labels[None, :]
    anchors, positives = np.nonzero(same & ~np.eye(len(labels), dtype=np.bool_))
    near = distances[anchors, positives][:, None]  # (t, 1)
    candidates = distances[anchors]  # (t, b)
    fitting = ~same[anchors] & (candidates > near) & (candidates < near + margin)
    return _nearest(anchors, positives, np.where(fitting, candidates, np.inf))


def hard(distances: NDArray[np.float64], labels: NDArray[np.int64]) -> Triplets:
    """For each anchor, choose the farthest positive and the nearest negative of the batch.

    This is "batch hard" (Hermans, Beyer and Leibe 2017, https://arxiv.org/abs/1703.07737).

    Args:
        distances: (b, b) float64.
        labels: (b,) int64.

    Returns:
        (t, 3) int64 in the order of anchors. An anchor without a positive or a negative has no triplet; of equally
        distant candidates the first is chosen.
    """
    same = labels[:, None] == labels[None, :]
    positive = same & ~np.eye(len(labels), dtype=np.bool_)
    anchors = np.flatnonzero(positive.any(axis=1))
    positives = np.where(positive, distances, -np.inf)[anchors].argmax(axis=1) if len(anchors) else anchors
    return _nearest(anchors, positives, np.where(same, np.inf, distances)[anchors])


def _nearest(anchors: NDArray[np.int64], positives: NDArray[np.int64], candidates: NDArray[np.float64]) -> Triplets:
    """Add the nearest candidate to each pair, and drop pairs without any.

    ``candidates`` are (t, b) distances, infinite where a row must not be the negative.
    """
    if not candidates.size:
        return np.empty((0, 3), dtype=np.int64)
    negatives = candidates.argmin(axis=1)
    exists = np.isfinite(candidates[np.arange(len(candidates)), negatives])
    triplets: Triplets = np.stack([anchors, positives, negatives], axis=1)[exists].astype(np.int64)
    return triplets


# -- training and validation part --------------------------------------------------------------------------------------


def validation_part(
    labels: NDArray[np.int64], groups: NDArray[np.int64], *, split: str, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the images into a training and a validation part.

    Args:
        labels: (n,) int64, the class of each image.
        groups: (n,) int64; images of the same group (files with the same content) are never in both parts.
        split: "image" holds out some images of each class with at least four; "class" holds out all images of some
            classes.
        share: share of the images of a class, or of the classes, to hold out: more than 0, less than 1.
        seed: seed of the choice.

    Returns:
        The rows of both parts, ascending; an image may be in neither.

    Raises:
        LearningError: there are too few images or classes for both parts.
    """
    random = np.random.default_rng(seed)
    held = _hold_classes(labels, share, random) if split == "class" else _hold_images(labels, groups, share, random)
    training = np.flatnonzero(~held)
    validation = np.flatnonzero(held & ~np.isin(groups, groups[training]))
    _check(labels[training], "learn from", split)
    _check(labels[validation], "validate with", split)
    return training, validation


def _hold_images(
    labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    share = min(share, _MAX_VALIDATION / max(len(labels), 1))
    chosen: set[int] = set()
    for label in np.unique(labels):
        members = np.unique(groups[labels == label])
        if len(members) >= 4:  # two in each part: an anchor and a positive
            count = min(max(2, round(share * len(members))), len(members) - 2)
            chosen.update(random.permutation(members)[:count].tolist())
    return np.isin(groups, sorted(chosen))


def _hold_classes(labels: NDArray[np.int64], share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    classes = np.unique(labels)
    count = min(max(2, round(share * len(classes))), max(len(classes) - 2, 0))
    return np.isin(labels, random.permutation(classes)[:count])


def _check(labels: NDArray[np.int64], purpose: str, split: str) -> None:
    _, sizes = np.unique(labels, return_counts=True)
    if len(sizes) < 2 or sizes.max() < 2:
        minimum = "four classes" if split == "class" else "two classes of four images each"
        raise LearningError(
            f"There are too few images to {purpose}: a split by {split} needs at least {minimum} (files with the same "
            "content count once). Add images."
        )
