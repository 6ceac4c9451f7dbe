"""Pages of a ranking: each continues where the last one ended, and one picture stands for its copies.

The order is that of the index, by (distance, id), except that the image that is searched by comes before all that are
no nearer. A ``Place`` is the position of a hit in that order. An image that is added to the index later has a place
before or after the last hit of a page, so the next page repeats nothing and leaves nothing out.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import UnknownImageError
from searchengine.index.exact import Searcher
from searchengine.index.filters import EVERYTHING, Cursor, Filter
from searchengine.index.metrics import COSINE, EUCLIDEAN, NEAR_DUPLICATE, score
from searchengine.index.protocol import Index, Order
from searchengine.index.types import Hit

Place = tuple[float, int]
Ranked = tuple[Place, Hit]

_LAST_ID = 2**63 - 1
_AHEAD = 8  # hits read beyond those wanted: they usually show that no copies are left
_NEIGHBOURS = 16
_AHEAD_OF_ALL = 8.0  # subtracted from the distances of images that come first


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """All images that pass a filter, the nearest to a vector first.

    Attributes:
        index: what is ranked.
        vector: (d,) or (1, d) float32; may be None where something else ranks them.
        metric: one of ``metrics.METRICS``.
        filter: which images are ranked.
        order: the ranking, where it is not by the distance from the vector.
        itself: the id of the image that is searched by, which comes before its copies.
        first: ids of images that come before all others, ordered like them; only where distances are at most 2.
        ids: of images that are left out.
        contents: content hashes of images that are left out.
    """

    index: Index
    vector: NDArray[np.float32] | None
    metric: str
    filter: Filter = EVERYTHING
    order: Order | None = None
    itself: int | None = None
    first: frozenset[int] = frozenset()
    ids: frozenset[int] = frozenset()
    contents: frozenset[str] = frozenset()

    def page(
        self, k: int, after: Place | None = None, *, distinct: bool = False, copies: bool = False
    ) -> tuple[list[Hit], Place | None]:
        """The first k hits after a place, and the place of the last one where others follow.

        Args:
            k: at least 1.
            after: the place of a hit that was shown.
            distinct: leave out what is a near-duplicate of anything that ranks before it.
            copies: show all files of one content; else the first of them stands for all.
        """
        if distinct:
            return _page(self._distinct(self._hits(after, k + _AHEAD), k + _AHEAD), k, after, fold=False)
        if copies:
            return _page(self._hits(after, k + 1), k, after, fold=False)
        # Hits as near as the last one may be copies of it, so they are read again.
        begin = None if after is None else (_below(_below(after[0])), _LAST_ID)
        return _page(self._hits(begin, k + _AHEAD), k, after, fold=True)

    def total(self) -> int:
        """How many images are ranked; those left out because of their content still count."""
        if not self.filter:
            return len(self.index) - len(self.ids)
        return self.index.count(self.filter) - len(self._places(sorted(self.ids), of_left_out=True))

    def _hits(self, after: Place | None, portion: int) -> Iterator[Ranked]:
        """All hits after a place, searched for lazily."""
        hits = self._found(after, portion + len(self.ids))
        if self.itself is not None and (not self.filter or self._places([self.itself])):
            hits = self._with_itself(hits, after)
        return (
            (place, hit)
            for place, hit in hits
            if hit.id not in self.ids and (not self.contents or hit.record.content_hash not in self.contents)
        )

    def _found(self, after: Place | None, portion: int) -> Iterator[Ranked]:
        if self.first and (after is None or after[0] < -_AHEAD_OF_ALL / 2):
            allowed = self.first if self.filter.ids is None else self.first & set(self.filter.ids)
            only = replace(self.filter, ids=tuple(sorted(allowed)))
            begin = None if after is None else (_below(after[0] + _AHEAD_OF_ALL), _LAST_ID)
            for (distance, id_), hit in self._searched(only, begin, portion):
                place = (distance - _AHEAD_OF_ALL, id_)
                if after is None or place > after:
                    yield place, hit
            after = None
        for place, hit in self._searched(self.filter, after, portion):
            if hit.id not in self.first:
                yield place, hit

    def _searched(self, filter: Filter, after: Place | None, portion: int) -> Iterator[Ranked]:
        """Images that pass a filter, searched for in portions, each twice as large as the last."""
        while True:
            cursor = None if after is None else Cursor(*after)
            hits = self._nearest(portion, filter, cursor)
            yield from (((hit.distance, hit.id), hit) for hit in hits)
            if len(hits) < portion:
                return
            after = hits[-1].distance, hits[-1].id
            portion *= 2

    def _nearest(self, k: int, filter: Filter, after: Cursor | None = None) -> list[Hit]:
        if self.order is not None:
            return self.order(k, filter, after)
        assert self.vector is not None
        return self.index.search(self.vector, k, self.metric, filter=filter, after=after)[0]

    def _with_itself(self, hits: Iterable[Ranked], after: Place | None) -> Iterator[Ranked]:
        place, itself = self._itself()
        is_due = after is None or place > after
        for other, hit in hits:
            if is_due and other > place:
                yield place, itself
                is_due = False
            if hit.id != itself.id:
                yield other, hit
        if is_due:
            yield place, itself

    def _itself(self) -> Ranked:
        """The image that is searched by, placed before all others that are as near, up to rounding."""
        assert self.itself is not None
        feature, record = self.index.feature(self.itself)[None], self.index.records([self.itself])[0]
        distance = float(Searcher.of_rows(feature, self.metric).nearest(feature, 1)[0].distances[0])
        worth = score(self.metric, distance, normalized=self.index.normalized)
        return (_below(distance), _LAST_ID), Hit(1, record.id, record.path, distance, worth, record.label, record)

    # -- near-duplicates ----------------------------------------------------------------------------------------------

    def _distinct(self, hits: Iterator[Ranked], portion: int) -> Iterator[Ranked]:
        """The hits without near-duplicates of any that rank before them, each with how many images it stands for."""
        metric, limit = near_duplicate(self.index)
        near_earlier: set[int] = set()  # ids of near-duplicates of what was ranked so far
        while portion_ := list(itertools.islice(hits, portion)):
            portion_, rows = self._with_features(ranked for ranked in portion_ if ranked[1].id not in near_earlier)
            if not portion_:
                continue
            features = np.stack(rows)  # (n, d) float32
            searcher = Searcher.of_rows(features, metric)
            within = searcher.nearest(features, len(features))
            # Most of a burst of photos is dropped here, without a search for the neighbours of each.
            left = [at for at, near in enumerate(within) if not np.any(near.positions[near.distances <= limit] < at)]
            for at, near_ids in zip(left, self._near(features[left], metric, limit), strict=True):
                near_earlier.update(near_ids)
                place, hit = portion_[at]
                places = {} if near_ids == [hit.id] else self._places(near_ids)
                if place <= min(places.values(), default=place):
                    yield place, replace(hit, stands_for=max(1, len(places)))

    def _with_features(self, hits: Iterable[Ranked]) -> tuple[list[Ranked], list[NDArray[np.float32]]]:
        """Hits, and the (d,) feature of each; those that have been removed since are left out."""
        existing, features = [], []
        for ranked in hits:
            with contextlib.suppress(UnknownImageError):
                features.append(self.index.feature(ranked[1].id))
                existing.append(ranked)
        return existing, features

    def _near(self, features: NDArray[np.float32], metric: str, limit: float) -> list[list[int]]:
        """The ids of all images within a distance of each of (n, d) features."""
        near: list[list[int]] = [[] for _ in features]
        unfinished, k = list(range(len(features))), _NEIGHBOURS
        while unfinished:
            hits_of = self.index.search(features[unfinished], k, metric, filter=self.filter)
            for at, hits in zip(unfinished, hits_of, strict=True):
                near[at] = [hit.id for hit in hits if hit.distance <= limit]
            unfinished = [at for at in unfinished if len(near[at]) == k]  # all are near, so others may be
            k *= 4
        return near

    def _places(self, ids: Sequence[int], *, of_left_out: bool = False) -> dict[int, Place]:
        """The places of those images that are ranked."""
        wanted = [id_ for id_ in ids if of_left_out or id_ not in self.ids]
        if self.filter.ids is not None:
            wanted = [id_ for id_ in wanted if id_ in self.filter.ids]
        if not wanted:
            return {}
        only = replace(self.filter, ids=tuple(wanted))
        hits = self._nearest(len(wanted), only)
        places = {hit.id: (hit.distance - _AHEAD_OF_ALL * (hit.id in self.first), hit.id) for hit in hits}
        if self.itself in places:
            places[self.itself] = self._itself()[0]
        return places


def near_duplicate(index: Index) -> tuple[str, float]:
    """The metric and the distance within which two images of an index are near-duplicates of each other.

    That is the threshold of the page of groups: by directions where the index ranks by cosine, else by a share of how
    long a feature typically is.
    """
    if index.metric == COSINE and not index.normalized:
        return COSINE, NEAR_DUPLICATE**2 / 2
    return EUCLIDEAN, NEAR_DUPLICATE * index.typical_length


def _below(distance: float) -> float:
    """Less than any distance that is equal up to rounding."""
    return math.nextafter(distance - 1e-8 - 1e-5 * abs(distance), -math.inf)


def _page(hits: Iterable[Ranked], k: int, after: Place | None, *, fold: bool) -> tuple[list[Hit], Place | None]:
    """The first k hits after a place, and the place of the last one where others follow.

    With ``fold``, the first image of a content stands for all others, even one that comes before ``after``. They have
    the same feature, so ``hits`` must hold all that are as near as ``after``.
    """
    shown: list[Hit] = []
    position: dict[str, int] = {}  # of the hit that stands for a content; -1 for one before this page
    last: Place | None = None
    follows = False
    for place, hit in hits:
        content = hit.record.content_hash if fold else None
        if after is not None and place <= after:
            if content is not None:
                position[content] = -1
            continue
        if content is not None and content in position:
            at = position[content]
            if at >= 0:
                shown[at] = replace(shown[at], stands_for=shown[at].stands_for + 1)
            continue
        if len(shown) == k:
            follows = True
            assert last is not None
            if not fold or hit.distance > shown[-1].distance or place[0] > last[0] + _AHEAD_OF_ALL / 2:
                break  # no copies are left
            continue
        if content is not None:
            position[content] = len(shown)
        shown.append(hit)
        last = place
    return shown, last if follows else None
