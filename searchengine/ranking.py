"""Pages of a ranking: each continues where the previous one ended, and one picture stands for its copies.

Hits are ordered by (distance, id), as in the index, except that the image searched by comes before all images that are
equally near. A ``Place`` is a position in that order. An image added to the index later has a place before or after the
last hit of a page, so the next page repeats nothing and skips nothing.
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
_EXTRA = 8  # hits read beyond those wanted, usually enough to show that no copies follow
_NEIGHBOURS = 16  # of each hit, searched at first for near-duplicates
_HEAD_START = 8.0  # subtracted from the distances of images that come first


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """All images that pass a filter, nearest to a vector first.

    Attributes:
        index: the index to rank.
        vector: (d,) or (1, d) float32; may be None if there is an ``order``.
        metric: one of ``metrics.METRICS``.
        filter: which images to rank.
        order: ranks the images in place of the distance from the vector.
        itself: the id of the image searched by, which comes before its copies.
        first: ids of images that come before all others, in the same order; distances must be at most 2.
        ids: ids of images to leave out.
        contents: content hashes of images to leave out.
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
        """Return the first k hits after a place, and the place of the last one if more follow.

        Args:
            k: at least 1.
            after: the place of the last hit shown.
            distinct: leave out near-duplicates of images that rank before them.
            copies: list files with the same content separately; by default, the first of them stands for all.
        """
        if distinct:
            return _page(self._distinct(self._hits(after, k + _EXTRA), k + _EXTRA), k, after, fold=False)
        if copies:
            return _page(self._hits(after, k + 1), k, after, fold=False)
        # Hits as near as the last one may be copies of it, so read them again.
        begin = None if after is None else (_below(_below(after[0])), _LAST_ID)
        return _page(self._hits(begin, k + _EXTRA), k, after, fold=True)

    def total(self) -> int:
        """Return the number of ranked images; those left out because of their content still count."""
        if not self.filter:
            return len(self.index) - len(self.ids)
        return self.index.count(self.filter) - len(self._places(sorted(self.ids)))

    def _hits(self, after: Place | None, portion: int) -> Iterator[Ranked]:
        """Search lazily for all hits after a place, those left out excepted."""
        hits = self._first_and_others(after, portion + len(self.ids))
        if self.itself is not None and (not self.filter or self._places([self.itself])):
            hits = self._with_itself(hits, after)
        return (
            (place, hit)
            for place, hit in hits
            if hit.id not in self.ids and (not self.contents or hit.record.content_hash not in self.contents)
        )

    def _first_and_others(self, after: Place | None, portion: int) -> Iterator[Ranked]:
        """Search for the images that come first, with a head start, and then for all others."""
        if self.first and (after is None or after[0] < -_HEAD_START / 2):
            allowed = self.first if self.filter.ids is None else self.first & set(self.filter.ids)
            only = replace(self.filter, ids=tuple(sorted(allowed)))
            begin = None if after is None else (_below(after[0] + _HEAD_START), _LAST_ID)
            for (distance, id_), hit in self._search(only, begin, portion):
                place = (distance - _HEAD_START, id_)
                if after is None or place > after:
                    yield place, hit
            after = None
        for place, hit in self._search(self.filter, after, portion):
            if hit.id not in self.first:
                yield place, hit

    def _search(self, filter: Filter, after: Place | None, portion: int) -> Iterator[Ranked]:
        """Search for images that pass a filter, in portions that double in size."""
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
        """The image searched by, placed before all others that are equally near up to rounding."""
        assert self.itself is not None
        feature, record = self.index.feature(self.itself)[None], self.index.records([self.itself])[0]
        distance = float(Searcher.of_rows(feature, self.metric).nearest(feature, 1)[0].distances[0])
        worth = score(self.metric, distance, normalized=self.index.normalized)
        return (_below(distance), _LAST_ID), Hit(1, record.id, record.path, distance, worth, record.label, record)

    # -- near-duplicates ----------------------------------------------------------------------------------------------

    def _distinct(self, hits: Iterator[Ranked], portion: int) -> Iterator[Ranked]:
        """Drop near-duplicates of earlier hits; each remaining hit knows how many images it stands for."""
        metric, limit = near_duplicate(self.index)
        near_earlier: set[int] = set()  # ids of near-duplicates of earlier hits
        while chunk := list(itertools.islice(hits, portion)):
            chunk, rows = self._with_features(ranked for ranked in chunk if ranked[1].id not in near_earlier)
            if not chunk:
                continue
            features = np.stack(rows)  # (n, d) float32
            searcher = Searcher.of_rows(features, metric)
            within = searcher.nearest(features, len(features))
            # This drops most of a burst of photos without searching for the neighbours of each.
            left = [at for at, near in enumerate(within) if not np.any(near.positions[near.distances <= limit] < at)]
            for at, near_ids in zip(left, self._near(features[left], metric, limit), strict=True):
                near_earlier.update(near_ids)
                place, hit = chunk[at]
                others = [] if near_ids == [hit.id] else [id_ for id_ in near_ids if id_ not in self.ids]
                places = self._places(others)
                if place <= min(places.values(), default=place):
                    yield place, replace(hit, stands_for=max(1, len(places)))

    def _with_features(self, hits: Iterable[Ranked]) -> tuple[list[Ranked], list[NDArray[np.float32]]]:
        """Return the hits that still exist, and the (d,) feature of each."""
        existing, features = [], []
        for ranked in hits:
            with contextlib.suppress(UnknownImageError):
                features.append(self.index.feature(ranked[1].id))
                existing.append(ranked)
        return existing, features

    def _near(self, features: NDArray[np.float32], metric: str, limit: float) -> list[list[int]]:
        """Return, for each of (n, d) features, the ids of all images within a distance."""
        near: list[list[int]] = [[] for _ in features]
        unfinished, k = list(range(len(features))), _NEIGHBOURS
        while unfinished:
            hits_of = self.index.search(features[unfinished], k, metric, filter=self.filter)
            for at, hits in zip(unfinished, hits_of, strict=True):
                near[at] = [hit.id for hit in hits if hit.distance <= limit]
            unfinished = [at for at in unfinished if len(near[at]) == k]  # all k are near, so more may be
            k *= 4
        return near

    def _places(self, ids: Sequence[int]) -> dict[int, Place]:
        """Return the places of those images that pass the filter."""
        wanted = [id_ for id_ in ids if self.filter.ids is None or id_ in self.filter.ids]
        if not wanted:
            return {}
        only = replace(self.filter, ids=tuple(wanted))
        hits = self._nearest(len(wanted), only)
        places = {hit.id: (hit.distance - _HEAD_START * (hit.id in self.first), hit.id) for hit in hits}
        if self.itself in places:
            places[self.itself] = self._itself()[0]
        return places


def near_duplicate(index: Index) -> tuple[str, float]:
    """Return the metric and the distance within which two images of an index are near-duplicates.

    This is the threshold of the groups page: an angle if the index ranks by cosine, and otherwise a fraction of the
    typical length of a feature.
    """
    if index.metric == COSINE and not index.normalized:
        return COSINE, NEAR_DUPLICATE**2 / 2
    return EUCLIDEAN, NEAR_DUPLICATE * index.typical_length


def _below(distance: float) -> float:
    """Return a bound below every distance that equals this one up to rounding."""
    return math.nextafter(distance - 1e-8 - 1e-5 * abs(distance), -math.inf)


def _page(hits: Iterable[Ranked], k: int, after: Place | None, *, fold: bool) -> tuple[list[Hit], Place | None]:
    """Return the first k hits after a place, and the place of the last one if more follow.

    With ``fold``, the first of several files with the same content stands for all, even if it comes before ``after``.
    Such files have equal features, so ``hits`` must include all that are as near as ``after``.
    """
    shown: list[Hit] = []
    position: dict[str, int] = {}  # content -> position of the hit that stands for it; -1: before this page
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
            if not fold or hit.distance > shown[-1].distance or place[0] > last[0] + _HEAD_START / 2:
                break  # no copies follow
            continue
        if content is not None:
            position[content] = len(shown)
        shown.append(hit)
        last = place
    return shown, last if follows else None
