"""Approximate search that measures like exact search.

FAISS names candidates; their distances are those that exact search computes, and so is the order among them. What it
does not know of is searched exactly: rows that were added since it was built, the few rows that pass a narrow filter,
and whatever lies so deep in the ranking that a pass over all rows costs no more.

``structure`` opens what FAISS has built and asks it for candidates; ``building`` builds it, decides when that pays, and
measures how much is found.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from searchengine.index.exact import Neighbours, Searcher
from searchengine.index.filters import Cursor
from searchengine.index.state import State
from searchengine.index.structure import MANY, RECALL_AT, Structure
from searchengine.processors import processors

_FEW_VALUES = 2**22  # of rows that pass a filter, which exact search reads as quickly as FAISS passes over the others


@dataclass(frozen=True, slots=True)
class ApproximateSearcher:
    """One metric over the rows of a state, of those that pass a filter: an (r,) mask, or None for all."""

    structure: Structure
    state: State
    metric: str
    passing: NDArray[np.bool_] | None = None

    def among(self, passing: NDArray[np.bool_]) -> ApproximateSearcher:
        """Over those of the same rows that pass, by an (r,) mask."""
        return replace(self, passing=passing if self.passing is None else self.passing & passing)

    def nearest(self, queries: NDArray[np.float32], k: int, after: Cursor | None = None) -> list[Neighbours]:
        """(m, d) float32 -> m results of at most k neighbours, ordered by (distance, id), as ``Searcher.nearest``."""
        sheet, allowed = self.structure.sheet, None
        if self.passing is not None:
            allowed = self.passing[: sheet.rows]
            few = min(sheet.deepest, _FEW_VALUES // queries.shape[1])
            if np.count_nonzero(self.passing) <= few:
                return self.state.scattered_searcher(self.metric).among(self.passing).nearest(queries, k, after)
            if np.count_nonzero(allowed) <= few:  # but many of the rows that were added since, which lie together
                return self._exact().nearest(queries, k, after)
        # The length of a query changes no order among features of length 1; lists are found better without.
        directions = _directions(queries) if self.state.normalized else queries
        candidates = self._candidates(directions, sheet.depth * max(k, RECALL_AT), allowed)
        answer = partial(self._nearest, k=k, after=after, allowed=allowed)
        if len(queries) < MANY:
            return [*map(answer, queries, directions, candidates)]
        with ThreadPoolExecutor(processors(), thread_name_prefix="nearest") as pool:
            return list(pool.map(answer, queries, directions, candidates))

    def _candidates(
        self, directions: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None
    ) -> list[NDArray[np.int64] | None]:
        """As ``Structure.nearest`` gives them; None also where exact search takes no longer."""
        if count > self.structure.sheet.deepest:
            return [None] * len(directions)
        return self.structure.nearest(directions, count, allowed)

    def _nearest(
        self,
        query: NDArray[np.float32],
        direction: NDArray[np.float32],
        candidates: NDArray[np.int64] | None,
        *,
        k: int,
        after: Cursor | None,
        allowed: NDArray[np.bool_] | None,
    ) -> Neighbours:
        """Of one query, measured among its candidates, or among more where these are too few to be sure."""
        sheet, searcher = self.structure.sheet, self.state.scattered_searcher(self.metric)
        count = sheet.depth * max(k, RECALL_AT)  # fewer than were measured would find less
        while candidates is not None:
            is_all = len(candidates) < count
            candidates = candidates[np.isfinite(self.state.squared_norms[candidates])]  # others were removed
            ranked = searcher.ranked(query, candidates)
            begin = 0 if after is None else self._begin(ranked, after)
            # Of what is as far away as the last candidate there may be more, perhaps with smaller ids.
            nearer = int(np.searchsorted(ranked.distances, ranked.distances[-1])) if len(candidates) else 0
            if is_all or (count >= sheet.depth * (begin + k) and begin + k <= nearer):
                hits = Neighbours(ranked.positions[begin : begin + k], ranked.distances[begin : begin + k])
                return self._with_new_rows(query, hits, k, after)
            count = max(2 * count, sheet.depth * (begin + k))
            (candidates,) = self._candidates(direction[None], count, allowed)
        return self._exact().nearest(query[None], k, after)[0]

    def _begin(self, ranked: Neighbours, after: Cursor) -> int:
        """How many of those that are ranked come up to the cursor."""
        ids = self.state.ids[ranked.positions]
        equal = (ranked.distances == after.distance) & (ids <= after.id)
        return int(np.count_nonzero((ranked.distances < after.distance) | equal))

    def _with_new_rows(self, query: NDArray[np.float32], hits: Neighbours, k: int, after: Cursor | None) -> Neighbours:
        """Merged with the nearest of the rows that were added since the structure was built."""
        covered = self.structure.sheet.rows
        if covered == len(self.state.ids):
            return hits
        searcher = self.state.searcher(self.metric, covered)
        if self.passing is not None:
            searcher = searcher.among(self.passing[covered:])
        new = searcher.nearest(query[None], k, after)[0]
        positions = np.concatenate([hits.positions, new.positions])
        distances = np.concatenate([hits.distances, new.distances])
        order = np.lexsort((self.state.ids[positions], distances))[:k]
        return Neighbours(positions[order], distances[order])

    def _exact(self) -> Searcher:
        searcher = self.state.searcher(self.metric)
        return searcher if self.passing is None else searcher.among(self.passing)


def _directions(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m, d), each with length 1, like the features; zeros have none."""
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    return (queries / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
