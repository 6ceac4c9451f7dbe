"""When the nearest picture is not near: told by how near the pictures of the collection are to one another.

What a distance means depends on the extractor and on the collection, so no fixed number would do.
"""

from __future__ import annotations

from threading import Lock

from searchengine.errors import UnknownImageError
from searchengine.web.seam import Engine

_ASKED = 24  # pictures of the collection; each costs one search
_LEAST = 40  # in smaller collections nothing is usual
_FARTHER_THAN = 0.95


class Nearness:
    """Knows the distance within which nearly all pictures of the collection have a neighbour.

    It is measured at the first question, and again when the collection has doubled or another extractor has made it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._measured: tuple[tuple[str, int], float] | None = None

    def is_far(self, distance: float) -> bool:
        """Whether a nearest neighbour at this distance is farther off than 19 in 20 are here."""
        status = self._engine.status()
        if status.images < _LEAST:
            return False
        state = (status.fingerprint, status.images.bit_length())
        with self._lock:
            if self._measured is None or self._measured[0] != state:
                self._measured = (state, self._measure())
            return distance > self._measured[1]

    def _measure(self) -> float:
        distances = []
        for record in self._engine.sample(_ASKED):
            try:
                hits = self._engine.search_id(record.id, 2)
            except UnknownImageError:  # removed meanwhile
                continue
            distances += [hit.distance for hit in hits if hit.id != record.id][:1]
        distances.sort()
        return distances[int(_FARTHER_THAN * (len(distances) - 1))] if distances else float("inf")
