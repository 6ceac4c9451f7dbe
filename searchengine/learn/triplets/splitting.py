"""Which images validate: some of every class, or all of some classes, which training then never sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError

SPLITS = ("image", "class")
_MOST = 2000  # that validate, split by image: each epoch ranks all of them for all of them


def validation_part(
    labels: NDArray[np.int64], groups: NDArray[np.int64], *, split: str, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part the images into those to learn from and those to validate with.

    Args:
        labels: (n,) int64, the class of each image.
        groups: (n,) int64; images of the same group (files with the same content) are never on both sides.
        split: "image", some of each class that has four or more; or "class", all images of some classes.
        share: of the images of a class, or of the classes, that validate: more than 0, less than 1.
        seed: of the choice.

    Returns:
        rows to learn from and rows to validate with, ascending; there may be images that are in neither.

    Raises:
        LearningError: too few images or classes for both.
    """
    random = np.random.default_rng(seed)
    held = _some_classes(labels, share, random) if split == "class" else _some_images(labels, groups, share, random)
    training = np.flatnonzero(~held)
    validation = np.flatnonzero(held & ~np.isin(groups, groups[training]))
    _check(labels[training], "learn from", split)
    _check(labels[validation], "validate with", split)
    return training, validation


def _some_images(
    labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    share = min(share, _MOST / max(len(labels), 1))
    chosen: set[int] = set()
    for label in np.unique(labels):
        own = np.unique(groups[labels == label])
        if len(own) >= 4:  # two on each side: an anchor and a positive
            count = min(max(2, round(share * len(own))), len(own) - 2)
            chosen.update(random.permutation(own)[:count].tolist())
    return np.isin(groups, sorted(chosen))


def _some_classes(labels: NDArray[np.int64], share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    classes = np.unique(labels)
    count = min(max(2, round(share * len(classes))), max(len(classes) - 2, 0))
    return np.isin(labels, random.permutation(classes)[:count])


def _check(labels: NDArray[np.int64], purpose: str, split: str) -> None:
    _, sizes = np.unique(labels, return_counts=True)
    if len(sizes) < 2 or sizes.max() < 2:
        wanted = "four classes" if split == "class" else "two classes of four images each"
        raise LearningError(
            f"There are too few images to {purpose}: split by {split}, at least {wanted} are needed (files with the "
            "same content count once). Add images."
        )
