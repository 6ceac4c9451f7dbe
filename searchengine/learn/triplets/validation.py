"""The images that are held back for validation, and the scores of embeddings on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import evaluate_features
from searchengine.errors import LearningError
from searchengine.learn.triplets.sampling import Triplets, draw_triplets, with_partner

_MAX_IMAGES = 2000  # split by image: each epoch compares all of them with each other
_TRIPLETS = 5000


def validation_part(
    labels: NDArray[np.int64], groups: NDArray[np.int64], *, split: str, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the images into a training and a validation part.

    Args:
        labels: (n,) int64, the class of each image.
        groups: (n,) int64; images of the same group (files with the same content) are never in both parts.
        split: "image", some of each class that has four or more; or "class", all images of some classes.
        share: of the images of a class, or of the classes, that validate: more than 0, less than 1.
        seed: of the choice.

    Returns:
        the rows of both parts, ascending; an image may be in neither.

    Raises:
        LearningError: too few images or classes for both.
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
    share = min(share, _MAX_IMAGES / max(len(labels), 1))
    chosen: set[int] = set()
    for label in np.unique(labels):
        own = np.unique(groups[labels == label])
        if len(own) >= 4:  # two in each part: an anchor and a positive
            count = min(max(2, round(share * len(own))), len(own) - 2)
            chosen.update(random.permutation(own)[:count].tolist())
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
            f"There are too few images to {purpose}: split by {split}, at least {minimum} are needed (files with the "
            "same content count once). Add images."
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """``triplet_accuracy`` is the share of random triplets with D(a, p) < D(a, n); ``precision`` is P@1."""

    triplet_accuracy: float
    precision: float
    mean_average_precision: float


def validation_triplets(labels: NDArray[np.int64], seed: int) -> Triplets:
    """(n,) int64 labels -> (5000, 3) int64 rows, the same for the same seed."""
    random = np.random.default_rng(seed)
    return draw_triplets(labels, random.choice(with_partner(labels), _TRIPLETS), random)


def triplet_accuracy(embeddings: NDArray[np.float32], triplets: Triplets) -> float:
    """The share of triplets whose positive is nearer than the negative; a tie does not count."""
    anchors, positives, negatives = (embeddings[triplets[:, i]].astype(np.float64) for i in range(3))  # (t, d) each
    near = np.square(anchors - positives).sum(axis=1)
    far = np.square(anchors - negatives).sum(axis=1)
    return float(np.mean(near < far))


def score(embeddings: NDArray[np.float32], labels: NDArray[np.int64], triplets: Triplets) -> Scores:
    """(n, d) float32 rows of length 1 and their (n,) labels -> leave-one-out scores, by distance."""
    scores = evaluate_features(embeddings, [str(label) for label in labels.tolist()])
    return Scores(triplet_accuracy(embeddings, triplets), scores["P@1"], scores["mAP"])
