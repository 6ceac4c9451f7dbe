"""What the compact model is taught by: photos, what the teacher says of each, and the batches drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from searchengine.learning.teacher import directions

if TYPE_CHECKING:
    import numpy.typing as npt

    from searchengine.learning.photos import Augmentation, Photos


@dataclass(frozen=True)
class Lessons:
    """Photos and, for each, the teacher's unit row (n, d) float32 about the mean of these very photos.

    Photos of another size have another mean, so each kind is told apart from its own.
    """

    photos: Photos
    targets: npt.NDArray[np.float32]

    @classmethod
    def of(cls, photos: Photos, embeddings: npt.NDArray[np.uint8]) -> Lessons:
        """From the teacher's embeddings (n, d) uint8."""
        return cls(photos, directions(embeddings)[1])


class Order:
    """The rows 0..n-1 over and over, each time shuffled anew: a function of seed and position alone."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def rows(self, position: int, count: int) -> npt.NDArray[np.int64]:
        """The `count` row numbers that come after `position` have been drawn."""
        wanted = np.arange(position, position + count)
        rows = np.empty(count, np.int64)
        for epoch in sorted({int(epoch) for epoch in wanted // self.n}):
            here = wanted // self.n == epoch
            if epoch != self._epoch:
                self._order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
                self._epoch = epoch
            rows[here] = self._order[wanted[here] % self.n]
        return rows


class Batches:
    """Endless batches in an order that is a function of seed and position alone, so a resumed run goes on in step.

    Where there are `more` photos, they make up `share` of each batch, and their classes do not count.
    """

    def __init__(
        self,
        lessons: Lessons,
        augmentation: Augmentation,
        batch: int,
        seed: int,
        *,
        more: Lessons | None = None,
        share: float = 0.25,
    ) -> None:
        self.augmentation, self.batch, self.seed = augmentation, batch, seed
        self._lessons, self._more = lessons, more
        self._extra = 0 if more is None else round(batch * share)
        self._order = Order(len(lessons.targets), seed)
        self._more_order = Order(0 if more is None else len(more.targets), seed + 1)

    def rows(self, position: int) -> npt.NDArray[np.int64]:
        """Row numbers of the labelled photos in the batch that begins when `position` images have been drawn."""
        count = self.batch - self._extra
        return self._order.rows(position * count // self.batch, count)

    def at(self, position: int, size: int) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[Any]]]:
        """Augmented pictures (batch, size, size, 3) uint8 and their targets; the labels of `more` photos are -1."""
        rng = np.random.default_rng((self.seed, 1, position))
        rows = self.rows(position)
        pictures = [self._lessons.photos.pixels[row] for row in rows]
        targets, labels = self._lessons.targets[rows], self._lessons.photos.labels[rows]
        if self._more is not None:
            others = self._more_order.rows(position * self._extra // self.batch, self._extra)
            pictures += [self._more.photos.pixels[row] for row in others]
            targets = np.concatenate([targets, self._more.targets[others]])
            labels = np.concatenate([labels, np.full(self._extra, -1)])
        return self.augmentation.batch(pictures, size, rng), {"teacher": targets, "label": labels.astype(np.int32)}
