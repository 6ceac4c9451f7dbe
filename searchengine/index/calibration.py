"""How widely a structure is searched: as few lists and candidates as find almost all that exact search finds.

That is measured with queries whose neighbours are known: for searches when it is built, for whole-set work each time.
A row is found in fewer lists than a picture from outside, because it lies in one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from searchengine.index.approximate import ApproximateSearcher
from searchengine.index.exact import Neighbours, Searcher
from searchengine.index.metrics import EUCLIDEAN
from searchengine.index.state import State
from searchengine.index.structure import RECALL_AT, Structure, StructureSheet
from searchengine.progress import QUIET, Progress

RECALL = 0.99  # what is promised
DEPTHS = (4, 8, 16, 32)  # candidates for each neighbour
_AIM = 0.9965  # what is aimed at: of photos held out, up to 0.007 less was found than of the sample
_QUERIES = 256  # images, or half of them images and half pictures from outside
_AT_ONCE = 64  # of these
_WHOLE_SET_AIM, _WHOLE_SET_DEPTHS = 0.993, (2, *DEPTHS)
_CANDIDATE_COST = 4  # a byte of a candidate, read anywhere and measured in float64, costs as many of a list
_FINEST_SHARE, _MOST_SHARE = 256, 4  # the first number of lists that is tried, and the last: lists / that


@dataclass(frozen=True, slots=True)
class Sample:
    """Queries whose neighbours are known: images, then pictures from outside, which are found less easily.

    A picture from outside lies as far beyond an image, seen from the last of its neighbours, as that lies before it.

    ``rows`` are those of the images, (i,); ``queries`` (q, d); ``limits`` (q,) the distance of the last of the
    neighbours that are ``wanted``. An image is none of its own neighbours.
    """

    rows: NDArray[np.int64]
    queries: NDArray[np.float32]
    limits: NDArray[np.float64]
    wanted: int

    @classmethod
    def of(cls, state: State) -> Sample:
        """Images, and as many pictures from outside."""
        inside, last = cls._of_images(state, RECALL_AT, _QUERIES // 2, QUIET)
        if not inside.wanted:
            return inside
        outside = 2 * inside.queries - np.asarray(state.scattered[last])
        nearest = state.searcher(EUCLIDEAN).nearest(outside, inside.wanted)
        limits = np.concatenate([inside.limits, [each.distances[-1] for each in nearest]])
        return replace(inside, queries=np.concatenate([inside.queries, outside]), limits=limits)

    @classmethod
    def of_images(cls, state: State, wanted: int, progress: Progress = QUIET) -> Sample:
        """Images only."""
        return cls._of_images(state, wanted, _QUERIES, progress)[0]

    @classmethod
    def _of_images(cls, state: State, wanted: int, count: int, progress: Progress) -> tuple[Sample, NDArray[np.int64]]:
        """A sample, and the row of the last of the neighbours of each image."""
        rows, wanted = spread(state.live, count), min(wanted, state.count - 1)
        images = np.asarray(state.scattered[rows])
        if not wanted:
            return cls(rows, images, np.zeros(len(rows)), wanted), rows
        searcher, nearest = state.searcher(EUCLIDEAN), list[Neighbours]()
        progress.start(len(rows), what="Exact searches, to compare with")
        for start in range(0, len(rows), _AT_ONCE):
            nearest += searcher.nearest(images[start : start + _AT_ONCE], wanted + 1)
            progress.advance(len(nearest) - start)
        others = [np.flatnonzero(each.positions != row)[wanted - 1] for row, each in zip(rows, nearest, strict=True)]
        limits = np.array([each.distances[at] for at, each in zip(others, nearest, strict=True)])
        last = np.array([each.positions[at] for at, each in zip(others, nearest, strict=True)])
        return cls(rows, images, limits, wanted), last


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most that many of the rows, ascending, drawn at random but the same each time."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, count, replace=False))


def whole_set_searcher(
    structure: Structure, state: State, metric: str, k: int, progress: Progress = QUIET
) -> Searcher | ApproximateSearcher:
    """What finds about 99 % of the k nearest others of all rows of a state; exact where all lists are not enough."""
    structure = structure.covering(state)
    sheet = calibrated(
        structure, state, Sample.of_images(state, k, progress), aim=_WHOLE_SET_AIM, depths=_WHOLE_SET_DEPTHS
    )
    if sheet.recall < RECALL:
        return state.searcher(metric)
    progress.say(f"By quick search, which finds {sheet.found} of the nearest.")
    return ApproximateSearcher(structure.with_sheet(sheet), state, metric)


def calibrated(
    structure: Structure,
    state: State,
    sample: Sample,
    *,
    aim: float = _AIM,
    depths: tuple[int, ...] = DEPTHS,
    widest: bool = True,
) -> StructureSheet:
    """The sheet with lists and candidates that find almost all, the cheapest of them, else with those that find most.

    ``widest``: all lists may be searched for that.
    """
    best = structure.sheet
    for nprobe, depth in by_cost(structure.lists, structure.list_bytes, state.rows.shape[1], depths, widest=widest):
        tried = replace(structure.sheet, nprobe=nprobe, depth=depth, queries=len(sample.queries))
        tried = replace(tried, recall=_recall(structure.with_sheet(tried), state, sample))
        best = tried if tried.recall > best.recall or best is structure.sheet else best
        if best.recall >= aim:
            break
    return best


def by_cost(
    lists: int, list_bytes: float, dimension: int, depths: tuple[int, ...] = DEPTHS, *, widest: bool
) -> list[tuple[int, int]]:
    """How many lists, and how many candidates for each neighbour, are worth a try: the cheapest first.

    ``list_bytes``: the codes of a list take up so many; a row of the matrix has ``dimension`` float32.
    """
    most = lists if widest else max(1, lists // _MOST_SHARE)
    first = max(1.0, lists / _FINEST_SHARE)
    steps = math.ceil(2 * math.log2(max(1.0, most / first)))
    nprobes = {most, *(min(most, math.ceil(first * 2 ** (step / 2))) for step in range(steps))}
    candidate_bytes = _CANDIDATE_COST * 4 * dimension
    return sorted(
        ((nprobe, depth) for nprobe in nprobes for depth in depths),
        key=lambda each: each[0] * list_bytes + each[1] * RECALL_AT * candidate_bytes,
    )


def _recall(structure: Structure, state: State, sample: Sample) -> float:
    """The share of the nearest that searches find; the lower one, of images and of pictures from outside."""
    if not sample.wanted:
        return 1.0
    searcher, images = ApproximateSearcher(structure, state, EUCLIDEAN), len(sample.rows)
    # An image is not counted among its own neighbours.
    results = searcher.nearest(sample.queries[:images], sample.wanted + 1)
    near = [each.distances[each.positions != row] for row, each in zip(sample.rows, results, strict=True)]
    near += [each.distances for each in searcher.nearest(sample.queries[images:], sample.wanted)]
    counts = [np.count_nonzero(distances <= limit) for distances, limit in zip(near, sample.limits, strict=True)]
    shares = np.minimum(np.array(counts) / sample.wanted, 1.0)
    return float(min(part.mean() for part in (shares[:images], shares[images:]) if len(part)))
