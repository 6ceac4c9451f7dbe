"""When the nearest picture is not near: told by how near the pictures of the collection are to one another.

What a distance means depends on the extractor and on the collection, so no fixed number would do.
"""

from __future__ import annotations

import logging
from threading import Lock, Thread

from searchengine.errors import SearchEngineError, UnknownImageError
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
        """Whether a nearest neighbour at this distance is farther off than 19 in 20 are here."""
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
        try:
            found = self._engine.search_ids(ids, 2)
        except UnknownImageError:  # one was removed meanwhile: the next question tries again
            return None
        distances = sorted(
            next((hit.distance for hit in hits if hit.id != id_), float("inf"))
            for id_, hits in zip(ids, found, strict=True)
        )
        return distances[int(_FARTHER_THAN * (len(distances) - 1))] if distances else None
