"""Which images of a collection are relevant to a query: those that share a label with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class Relevance:
    """The images of each label. The gain of an image is the number of labels that it shares with the query."""

    def __init__(self, labels: Sequence[Sequence[str]]) -> None:
        """``labels``: of each image of the collection, in its order; an empty label is none."""
        members: dict[str, list[int]] = {}
        for position, of_image in enumerate(labels):
            for label in distinct(of_image):
                members.setdefault(label, []).append(position)
        self.images = len(labels)
        self.labelled = sum(1 for of_image in labels if distinct(of_image))
        self._members = {label: np.array(members[label], dtype=np.int64) for label in sorted(members)}

    @property
    def labels(self) -> list[str]:
        """Every label there is, sorted."""
        return list(self._members)

    def size(self, label: str) -> int:
        """How many images carry it."""
        return len(self._members.get(label, ()))

    def gains(self, labels: Iterable[str], left_out: NDArray[np.int64]) -> NDArray[np.uint16]:
        """(n,) uint16: how many of these labels each image of the collection carries; 0 for those that are left out."""
        shared = np.zeros(self.images, dtype=np.uint16)
        for label in distinct(labels):
            positions = self._members.get(label)
            if positions is not None:
                shared[positions] += 1
        shared[left_out] = 0
        return shared


def distinct(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels without empty ones and repetitions, in their order."""
    return tuple(dict.fromkeys(label for label in labels if label.strip()))
