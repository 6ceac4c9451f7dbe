"""Principal components of a feature matrix, without holding it in memory.

Subspace iteration on the covariance (Halko, Martinsson and Tropp 2011, "Finding structure with randomness"): each pass
reads the mapped rows once, block by block, so memory is a block and a (d, k) matrix however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.index.metrics import COSINE, EUCLIDEAN, rank_alike
from searchengine.index.state import State
from searchengine.progress import QUIET, Progress

DIMENSIONS = 50
_OVERSAMPLED = 14  # more directions than wanted, so that the last of those wanted are good too
_PASSES = 5
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Rows:
    """The live rows of an index in the order of their ids, as they are compared: of length 1 where the cosine counts.

    ``ids`` is (n,) int64, ascending; ``positions`` the rows of the matrix behind them.
    """

    matrix: NDArray[np.float32]  # (r, d), mapped
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    unit: bool

    @classmethod
    def of(cls, state: State) -> Rows:
        """All rows of an index."""
        live = state.live
        live = live[np.argsort(state.ids[live], kind="stable")]
        return cls(state.rows, state.ids[live], live, state.metric == COSINE and not state.normalized)

    @property
    def dimension(self) -> int:
        """Numbers in a row."""
        return int(self.matrix.shape[1])

    def take(self, chosen: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Some of them, by their place in ``ids``: (m,) -> (m, d) float32."""
        block = np.asarray(self.matrix[self.positions[chosen]])
        if self.unit:
            block = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        return block

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """All of them, a block at a time."""
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        for start in range(0, len(self.ids), step):
            place = slice(start, min(start + step, len(self.ids)))
            yield place, self.take(place)

    def __len__(self) -> int:
        return len(self.ids)


def remark(state: State) -> str | None:
    """What a person should know where the index ranks by another distance than is used here, None where it does not.

    Principal components keep Euclidean distances, and hence the cosine of features of length 1; nothing else.
    """
    if state.metric == COSINE or rank_alike(state.metric, EUCLIDEAN, normalized=state.normalized):
        return None
    return (
        f"The index is searched by {state.metric}, but the map and the groups rest on Euclidean distances: what is "
        "next to each other there need not be so in a search."
    )


@dataclass(frozen=True, slots=True)
class Reduction:
    """Centre, then project: ``mean`` is (d,) float32, ``components`` (d, k) float32 with orthonormal columns.

    A projection never makes a distance longer, which the search for duplicates rests on.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def project(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(m, d) float32 -> (m, k) float32."""
        return np.asarray((features - self.mean) @ self.components, dtype=np.float32)

    def project_all(self, rows: Rows) -> NDArray[np.float32]:
        """(n, d) -> (n, k) float32."""
        reduced = np.empty((len(rows), self.components.shape[1]), dtype=np.float32)
        for place, block in rows.blocks():
            reduced[place] = self.project(block)
        return reduced


def principal_components(
    rows: Rows, *, dimensions: int = DIMENSIONS, seed: int = 0, progress: Progress = QUIET
) -> Reduction:
    """The ``dimensions`` directions of greatest variance, the greatest first; fewer where a row has fewer numbers.

    The sign of each is fixed (its largest number is positive), and the same seed gives the same result.
    """
    dimension = rows.dimension
    wanted = min(dimensions, dimension)
    width = min(wanted + _OVERSAMPLED, dimension)
    total = np.zeros(dimension)
    for _, block in rows.blocks():
        total += block.sum(axis=0, dtype=np.float64)
    mean = (total / max(len(rows), 1)).astype(np.float32)

    passes = 1 if width == dimension else _PASSES  # nothing to search for where all directions are kept
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, width)))[0]  # (d, w)
    small = np.eye(width)
    progress.start(passes, what="Principal components", unit="passes")
    for step in range(passes):
        image = np.zeros((dimension, width))
        narrow = basis.astype(np.float32)
        for _, block in rows.blocks():
            centred = block - mean
            image += centred.T @ (centred @ narrow)  # (d, b) @ (b, w)
        small = basis.T @ image  # (w, w): the covariance as seen within the basis
        if step + 1 < passes:
            basis = np.linalg.qr(image)[0]
        progress.advance()
    _, turns = np.linalg.eigh((small + small.T) / 2)
    components = basis @ turns[:, ::-1][:, :wanted]  # eigh sorts ascending
    largest = components[np.abs(components).argmax(axis=0), np.arange(wanted)]
    components *= np.where(largest < 0, -1.0, 1.0)
    return Reduction(mean, np.ascontiguousarray(components, dtype=np.float32))
