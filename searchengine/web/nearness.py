"""When the nearest picture is not near: told by how near the pictures of the collection are to one another.

What a distance means depends on the extractor and on the collection, so no fixed number would do. A neighbour is far
when it is farther off than neighbours usually are here, and farther than half of what lies between any two pictures;
the latter for collections of near copies, in which whatever merely looks alike would be far.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock, Thread

import numpy as np

from searchengine.errors import SearchEngineError, UnknownImageError
from searchengine.index.exact import nearest
from searchengine.web.seam import Engine

_ASKED = 24  # pictures of the collection, in one pass over its features
_LEAST = 40  # in smaller collections nothing is usual
_FARTHER_THAN = 0.95
_log = logging.getLogger(__name__)

_State = tuple[str, int]


class Nearness:
    """Knows the distance within which nearly all pictures of the collection have a neighbour.

    It is measured when the server warms up, or at the first question; and again, beside the answers, when the
    collection has doubled or another extractor has made it. Until that is done the old figure serves, if it is of the
    same extractor.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._measured: tuple[_State, float] | None = None
        self._measuring: Thread | None = None

    def warm(self) -> None:
        """Measures now."""
        state = self._state()
        limit = None if state is None else self._measure()
        if state is not None and limit is not None:
            self._measured = (state, limit)

    def is_far(self, distance: float) -> bool:
        """Whether a nearest neighbour at this distance is far: see the module."""
        state = self._state()
        if state is None:
            return False
        with self._lock:
            if self._measured is None:
                self.warm()
            if self._measured is None:
                return False
            measured, limit = self._measured
            if measured != state and (self._measuring is None or not self._measuring.is_alive()):
                self._measuring = Thread(target=self._measure_beside, daemon=True, name="nearness")
                self._measuring.start()
        return distance > limit and measured[0] == state[0]

    def _state(self) -> _State | None:
        """What the figure is good for; None for collections that are too small to have one."""
        status = self._engine.status()
        return None if status.images < _LEAST else (status.fingerprint, status.images.bit_length())

    def _measure_beside(self) -> None:
        try:
            self.warm()
        except SearchEngineError as error:
            _log.warning("%s", error)  # the next question tries again

    def _measure(self) -> float | None:
        ids = [record.id for record in self._engine.sample(_ASKED)]
        if not ids:
            return None
        try:
            found = self._engine.search_ids(ids, 2)
            between = self._between(ids)
        except UnknownImageError:  # one was removed meanwhile: the next question tries again
            return None
        distances = sorted(
            next((hit.distance for hit in hits if hit.id != id_), float("inf"))
            for id_, hits in zip(ids, found, strict=True)
        )
        usual = distances[int(_FARTHER_THAN * (len(distances) - 1))]
        return max(usual, between / 2) if between > 0 else usual  # inner products have no half

    def _between(self, ids: Sequence[int]) -> float:
        """The median distance between two different pictures of these; 0 where there are fewer than two."""
        features = np.stack([self._engine.feature(id_) for id_ in ids])  # (n, d) float32
        squared_norms = np.square(features, dtype=np.float64).sum(axis=1)
        numbers = np.arange(len(ids))
        found = nearest(self._engine.metric, features, squared_norms, numbers, features, len(ids))
        pairs = [
            distance
            for number, one in enumerate(found)
            for other, distance in zip(one.positions, one.distances, strict=True)
            if other > number
        ]
        return float(np.median(pairs)) if pairs else 0.0
