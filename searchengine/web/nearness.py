"""When the nearest image is not near, judged by how near the images of the collection are to one another.

What a distance means depends on the extractor and on the collection, so no fixed number would do. A neighbour is far
when it is farther than 95 % of nearest neighbours here, and farther than half the median distance between two images;
the latter for collections of near copies, in which everything that is merely similar would be far.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Cached
from searchengine.errors import UnknownImageError
from searchengine.index.exact import Searcher
from searchengine.index.protocol import Index

_SAMPLE = 24  # images of the collection, searched in one pass over its features
_MIN_IMAGES = 40  # a smaller collection has no usual distance
_QUANTILE = 0.95


class Nearness:
    """The distance within which nearly all images of the collection have a neighbour.

    It is measured when the server warms up, or at the first question; again when another extractor has made the
    collection; and again in the background, while the old figure is used, when the collection has doubled.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._limit = Cached(self._key, self._measure, in_background=lambda old, new: old[0] == new[0])

    def warm(self) -> None:
        """Measure now."""
        with suppress(UnknownImageError):
            self._limit.get()

    def is_far(self, distance: float) -> bool:
        """Whether a nearest neighbour at this distance is far, see the module."""
        try:
            return distance > self._limit.get()
        except UnknownImageError:  # an image was removed meanwhile: the next question measures again
            return False

    def _key(self) -> tuple[str, int]:
        """What the limit holds for: an extractor, and the size of the collection by powers of two; 0 if too small."""
        images = len(self._index)
        return self._index.fingerprint, images.bit_length() if images >= _MIN_IMAGES else 0

    def _measure(self) -> float:
        if len(self._index) < _MIN_IMAGES:
            return float("inf")  # nothing is far
        ids = [record.id for record in self._index.sample(_SAMPLE)]
        features = np.stack([self._index.feature(id_) for id_ in ids])  # (n, d) float32
        neighbours = self._index.search(features, 2)
        between = self._between(features)
        distances = sorted(
            next((hit.distance for hit in hits if hit.id != id_), float("inf"))
            for id_, hits in zip(ids, neighbours, strict=True)
        )
        usual = distances[int(_QUANTILE * (len(distances) - 1))]
        return max(usual, between / 2) if between > 0 else usual  # half a negative inner product means nothing

    def _between(self, features: NDArray[np.float32]) -> float:
        """The median distance between two different rows of these; 0 where there are fewer than two."""
        neighbours = Searcher.of_rows(features, self._index.metric).nearest(features, max(len(features), 1))
        pairs = [
            distance
            for row, ranked in enumerate(neighbours)
            for other, distance in zip(ranked.positions, ranked.distances, strict=True)
            if other > row
        ]
        return float(np.median(pairs)) if pairs else 0.0
