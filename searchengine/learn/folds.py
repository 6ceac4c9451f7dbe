"""Which images are held out together: stratified folds, in which equal pictures stay together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALWAYS = -1  # always in the training part


def stratified(truth: NDArray[np.int64], groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Deal the images of each class evenly to folds.

    Args:
        truth: (n,) int64, the class of each image.
        groups: (n,) int64; images of the same group (files with the same content) come into the same fold, because a
            copy in the training part would make the held-out one too easy.
        most: folds; fewer where no class has that many groups.
        seed: of the order in which they are dealt.

    Returns:
        (n,) int64: 0 ... folds - 1, or ``ALWAYS`` for the images of a class with a single group: of such a class
        nothing would be left to learn from.
    """
    random = np.random.default_rng(seed)
    folds = np.full(len(truth), ALWAYS, dtype=np.int64)
    dealt: dict[int, int] = {}
    following = 0  # goes on from class to class, so that folds are of equal size
    counts = [len(np.unique(groups[truth == c])) for c in np.unique(truth)]
    number = min(most, max(counts, default=0))
    if number < 2:
        return folds
    for class_, count in zip(np.unique(truth).tolist(), counts, strict=True):
        members = np.flatnonzero(truth == class_)
        if count < 2:
            continue
        for group in random.permutation(np.unique(groups[members])).tolist():
            if group not in dealt:  # the same picture may stand under another label too
                dealt[group] = following % number
                following += 1
        folds[members] = [dealt[group] for group in groups[members].tolist()]
    return folds
