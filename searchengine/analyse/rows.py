"""The rows that the map and the groups compare, their principal components, and later changes to them.

A stored map or grouping holds the id of every image and a stamp of its content. These tell which images have been
added, changed or removed since. Ids survive compaction and rebuilding, so maps do too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Arrays
from searchengine.errors import QueryError
from searchengine.index.metrics import COSINE, EUCLIDEAN, rank_alike
from searchengine.index.protocol import Index
from searchengine.index.state import State
from searchengine.progress import QUIET, Progress

_BLOCK_BYTES = 32 * 2**20
_RECORDS = 10_000  # in memory at once


@dataclass(frozen=True, slots=True)
class Rows:
    """The live rows of an index, ordered by id.

    Attributes:
        matrix: (r, d) float32, a memory map.
        ids: (n,) int64, ascending.
        positions: (n,) int64, the row of the matrix for each id.
        unit: whether rows are scaled to length 1, as they are if the index ranks by cosine.
        fingerprint: the fingerprint of the extractor.
    """

    matrix: NDArray[np.float32]
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    unit: bool
    fingerprint: str = ""

    @classmethod
    def of(cls, state: State) -> Rows:
        """Return the live rows of an index."""
        live = state.live_by_id
        unit = state.metric == COSINE and not state.normalized
        return cls(state.rows, state.ids[live], live, unit, state.fingerprint)

    @property
    def dimension(self) -> int:
        """The number of values in a row."""
        return int(self.matrix.shape[1])

    def take(self, chosen: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Read the rows at (m,) positions in ``ids`` -> (m, d) float32."""
        block = np.asarray(self.matrix[self.positions[chosen]])
        if self.unit:
            block = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        return block

    def subset(self, chosen: NDArray[np.int64]) -> Rows:
        """Select the rows at some positions in ``ids``, without reading them."""
        return replace(self, ids=self.ids[chosen], positions=self.positions[chosen])

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield all rows in blocks, each with its slice of ``ids``."""
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        for start in range(0, len(self.ids), step):
            place = slice(start, min(start + step, len(self.ids)))
            yield place, self.take(place)

    def __len__(self) -> int:
        return len(self.ids)


def stamps_of(index: Index, rows: Rows) -> NDArray[np.uint64]:
    """Return (n,) stamps, which change with the content of an image, or with its feature if it has no file."""
    stamps = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _RECORDS):
        ids = rows.ids[start : start + _RECORDS].tolist()
        hashes = {record.id: record.content_hash for record in index.known(ids)}
        for at, id_ in enumerate(ids, start):
            digest = hashes.get(id_)
            stamps[at] = (
                int(digest[:16], 16) if digest else zlib.crc32(np.asarray(rows.matrix[rows.positions[at]]).data)
            )
    return stamps


def changes_since(sheet: Any, arrays: Arrays, rows: Rows, stamps: NDArray[np.uint64]) -> str:
    """Say how many images were added, changed or removed since a map or grouping was stored; "" if none were.

    Another metric counts as a change only if it changes whether features are scaled to length 1.
    """
    if not same_features(sheet, rows):
        return "It was made with another extractor or metric."
    _, unchanged = unchanged_images(arrays, rows, stamps)
    common = len(np.intersect1d(arrays["ids"], rows.ids, assume_unique=True))
    parts = [
        (len(rows) - common, "added"),
        (common - len(unchanged), "changed"),
        (len(arrays["ids"]) - common, "removed"),
    ]
    words = [f"{count} {'picture was' if count == 1 else 'pictures were'} {word}" for count, word in parts if count]
    return f"Since it was made, {' and '.join(words)}." if words else ""


def same_features(sheet: Any, rows: Rows) -> bool:
    """Return whether a stored map or grouping is based on the same features and scaling. Old files lack ``unit``."""
    return sheet.fingerprint == rows.fingerprint and sheet.unit in (None, rows.unit)


def unchanged_images(
    arrays: Arrays, rows: Rows, stamps: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (m,) positions of unchanged images in the stored arrays, and their (m,) positions in the rows."""
    _, before, now = np.intersect1d(arrays["ids"], rows.ids, assume_unique=True, return_indices=True)
    same = arrays["stamps"][before] == stamps[now]
    return before[same], now[same]


def remark(state: State) -> str | None:
    """Return a remark if the index is searched by another distance than the map and the groups use.

    Principal components preserve only Euclidean distances, and so the cosine of features of length 1.
    """
    if state.metric == COSINE or rank_alike(state.metric, EUCLIDEAN, normalized=state.normalized):
        return None
    return (
        f"The index is searched by {state.metric}, but the map and the groups use Euclidean distances, so neighbours "
        "there need not be neighbours in a search."
    )


def check_seed(seed: int) -> None:
    """Raise QueryError for a seed that scikit-learn and openTSNE would refuse, though only after long work."""
    if not 0 <= seed < 2**32:
        raise QueryError("The seed must be a whole number from 0 to 4294967295.")


# -- principal components ----------------------------------------------------------------------------------------------

DIMENSIONS = 50
_OVERSAMPLED = 14  # extra directions, which make the last of the wanted ones accurate
_PASSES = 5


@dataclass(frozen=True, slots=True)
class Reduction:
    """A projection: subtract ``mean``, (d,) float32, and multiply by ``components``, (d, k) float32, orthonormal.

    Projecting never makes a distance longer; the search for duplicates relies on this.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def project(self, rows: Rows) -> NDArray[np.float32]:
        """Project (n, d) rows -> (n, k) float32."""
        reduced = np.empty((len(rows), self.components.shape[1]), dtype=np.float32)
        for place, block in rows.blocks():
            reduced[place] = (block - self.mean) @ self.components
        return reduced


def principal_components(
    rows: Rows, *, dimensions: int = DIMENSIONS, seed: int = 0, progress: Progress = QUIET
) -> Reduction:
    """Find the ``dimensions`` directions of greatest variance, greatest first; fewer if the rows are shorter.

    This is subspace iteration on the covariance (Halko, Martinsson and Tropp 2011, "Finding structure with
    randomness"). Each pass reads the mapped rows once, block by block, so memory does not grow with their number.

    The sign of each direction is fixed (its largest number is positive), and the same seed gives the same result.
    """
    dimension = rows.dimension
    wanted = min(dimensions, dimension)
    width = min(wanted + _OVERSAMPLED, dimension)
    total = np.zeros(dimension)
    for _, block in rows.blocks():
        total += block.sum(axis=0, dtype=np.float64)
    mean = (total / max(len(rows), 1)).astype(np.float32)

    passes = 1 if width == dimension else _PASSES  # if all directions are kept, there is nothing to search for
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, width)))[0]  # (d, w)
    small = np.eye(width)
    progress.start(passes, what="Principal components", unit="passes")
    for step in range(passes):
        image = np.zeros((dimension, width))
        narrow = basis.astype(np.float32)
        for _, block in rows.blocks():
            centred = block - mean
            image += centred.T @ (centred @ narrow)  # (d, b) @ (b, w)
        small = basis.T @ image  # (w, w): the covariance within the basis
        if step + 1 < passes:
            basis = np.linalg.qr(image)[0]
        progress.advance()
    _, turns = np.linalg.eigh((small + small.T) / 2)
    components = basis @ turns[:, ::-1][:, :wanted]  # eigh sorts ascending
    largest = components[np.abs(components).argmax(axis=0), np.arange(wanted)]
    components *= np.where(largest < 0, -1.0, 1.0)
    return Reduction(mean, np.ascontiguousarray(components, dtype=np.float32))
