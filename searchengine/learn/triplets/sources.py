"""What the network is fed with: features that were computed once, or pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchengine.images import resize
from searchengine.learn.triplets.augmentation import Augmentation
from searchengine.learn.triplets.records import Records


class Features:
    """(b,) rows -> (b, d) float32 features of a frozen backbone, each of a view drawn at random, with dropout."""

    def __init__(self, records: Records, places: NDArray[np.int64], *, views: int, dropout: float) -> None:
        """``places`` (n,) int64 are the records of the rows; ``dropout`` is the share that is left out."""
        self._records, self._places = records, places
        self._views, self._dropout = views, dropout

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.float32]:
        """Varied: what is kept is enlarged, so that its mean stays (Srivastava et al. 2014)."""
        features = self._records.features(self._places[rows], random.integers(0, 1 + self._views, len(rows)))
        if self._dropout:
            kept = random.random(features.shape, dtype=np.float32) >= self._dropout
            features = features * kept / np.float32(1.0 - self._dropout)
        return features

    def plain(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As they are."""
        return self._records.features(self._places[rows])


class Pictures:
    """(b,) rows -> (b, h, w, 3) uint8 pictures for a backbone that learns, each augmented afresh if asked for."""

    def __init__(self, records: Records, places: NDArray[np.int64], *, augmented: bool) -> None:
        """``places`` (n,) int64 are the records of the rows."""
        self._records, self._places = records, places
        self._augmentation = Augmentation() if augmented else None

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.uint8]:
        """Varied, if asked for."""
        pictures = self.plain(rows)
        if self._augmentation is None:
            return pictures
        height, width = pictures.shape[1:3]
        side = max(height, width)
        square = [resize(picture, (side, side)) for picture in pictures]
        return np.stack([resize(one, (height, width)) for one in self._augmentation.batch(square, side, random)])

    def plain(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """As they are."""
        return self._records.pixels(self._places[rows])
