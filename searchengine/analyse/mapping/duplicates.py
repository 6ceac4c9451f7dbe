"""Near-duplicates: images that are connected by pairs closer than a threshold.

The threshold is a share of how long a feature typically is (the root mean square of the lengths). Features of length 1
have just that: there it is the Euclidean distance itself, and t means a cosine of at least 1 - t²/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.reduction import Reduction, Rows
from searchengine.progress import QUIET, Progress

THRESHOLD = 0.2
_PRODUCTS = 2**22  # distances, or numbers of rows, that are held at a time


@dataclass(frozen=True, slots=True)
class Duplicates:
    """``numbers`` is (n,) int32: from 0, the largest group first, and -1 for an image without a near-duplicate.

    ``distances`` is (n,) float32: to the nearest found member of its group, infinite where there is none. ``limit`` is
    the threshold as a Euclidean distance.
    """

    numbers: NDArray[np.int32]
    distances: NDArray[np.float32]
    limit: float

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.numbers.max(initial=-1)) + 1


def duplicates_of(
    rows: Rows,
    reduction: Reduction,
    reduced: NDArray[np.float32],
    threshold: float = THRESHOLD,
    *,
    progress: Progress = QUIET,
) -> Duplicates:
    """Groups of rows that are connected by distances of at most the threshold, exactly.

    A projection makes no distance longer. So products of blocks of the (n, c) ``reduced`` rows give all candidates, and
    only their distances are computed in full, in float64; pairs that are connected already are passed over.
    """
    count = len(rows)
    scale, longest = _lengths(rows)
    limit = threshold * scale
    # What rounding may add in the products of float32, so that no pair is missed.
    slack = 64 * np.finfo(np.float32).eps * (longest + 1e-30) ** 2
    norms = np.einsum("ij,ij->i", reduced, reduced, dtype=np.float64)
    groups = _Groups(count)
    nearest = np.full(count, np.inf, dtype=np.float32)
    step = max(16, min(512, _PRODUCTS // max(count, 1)))
    progress.start(count, what="Near-duplicates")
    for start in range(0, count, step):
        stop = min(start + step, count)
        products = reduced[start:stop] @ reduced[start:].T  # (b, n - start)
        squares = norms[start:stop, None] + norms[None, start:] - 2.0 * products
        first, second = np.nonzero(squares <= limit**2 + slack)
        first, second = first + start, second + start
        upper = second > first
        first, second = first[upper], second[upper]
        ends = np.searchsorted(first, np.arange(start, stop + 1))
        for row in range(start, stop):
            others = second[ends[row - start] : ends[row - start + 1]]
            if len(others):
                _connect(rows, row, others, limit, groups, nearest)
        progress.advance(stop - start)
    return Duplicates(_numbered(groups.of), nearest, float(limit))


class _Groups:
    """Which rows are connected: ``of`` is (n,) int64, for each row the name of its group, which is one of its rows."""

    def __init__(self, count: int) -> None:
        self.of = np.arange(count)
        self._members: dict[int, list[int]] = {}  # of groups of two and more

    def join(self, one: int, other: int) -> None:
        """Two rows are connected; the smaller group takes the name of the larger one."""
        few, many = sorted((int(self.of[one]), int(self.of[other])), key=lambda name: len(self._members.get(name, ())))
        moved = self._members.pop(few, [few])
        self.of[moved] = many
        self._members.setdefault(many, [many]).extend(moved)


def _connect(
    rows: Rows,
    row: int,
    others: NDArray[np.int64],
    limit: float,
    groups: _Groups,
    nearest: NDArray[np.float32],
) -> None:
    here = rows.take(np.array([row]))
    step = max(1, _PRODUCTS // rows.dimension)
    while len(others := others[groups.of[others] != groups.of[row]]):
        gaps = rows.take(others[:step]).astype(np.float64) - here  # (m, d)
        distances = np.sqrt(np.einsum("ij,ij->i", gaps, gaps))
        for other, distance in zip(others[:step].tolist(), distances.tolist(), strict=True):
            if distance <= limit:
                if groups.of[other] != groups.of[row]:
                    groups.join(row, other)
                nearest[other] = min(nearest[other], distance)
                nearest[row] = min(nearest[row], distance)
        others = others[step:]


def _numbered(names: NDArray[np.int64]) -> NDArray[np.int32]:
    """Groups of two and more, the largest first, equal ones by their first member; all others -1."""
    _, first, group, sizes = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(sizes > 1)
    order = several[np.lexsort((first[several], -sizes[several]))]
    rank = np.full(len(sizes), -1, dtype=np.int32)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[group], dtype=np.int32)


def _lengths(rows: Rows) -> tuple[float, float]:
    """The root mean square of the lengths of all rows, and the greatest."""
    squares = np.concatenate([np.einsum("ij,ij->i", block, block, dtype=np.float64) for _, block in rows.blocks()])
    return float(np.sqrt(squares.mean())), float(np.sqrt(squares.max()))
