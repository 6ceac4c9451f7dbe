"""Principal components of a feature matrix, without holding it in memory.

Subspace iteration on the covariance (Halko, Martinsson and Tropp 2011, "Finding structure with randomness"): each pass
reads the mapped rows once, block by block, so memory is a block and a (d, k) matrix however many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.rows import Rows
from searchengine.progress import QUIET, Progress

DIMENSIONS = 50
_OVERSAMPLED = 14  # more directions than wanted, so that the last of those wanted are good too
_PASSES = 5


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
