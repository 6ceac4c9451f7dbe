"""Clusters and near-duplicates of an index, kept with it, and optionally a contact sheet for each.

Clusters are made by scikit-learn's k-means (Lloyd 1982; Sculley 2010 for mini-batches). By default, the silhouette
(Rousseeuw 1987) of a sample decides how many there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.duplicates import THRESHOLD, duplicates_of, largest_first
from searchengine.analyse.rows import (
    Rows,
    check_seed,
    principal_components,
    remark,
    stamps_of,
)
from searchengine.analyse.sheets import Entry, Sheet, SheetFolder
from searchengine.derived import Derived, timestamp
from searchengine.errors import QueryError, import_extra
from searchengine.files import check_output_folder
from searchengine.index.protocol import Index
from searchengine.progress import QUIET, Progress

_ON_SHEET = 80  # pictures at most; the title gives the size of the group
_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class GroupSheet:
    """The sheet stored with the groups; ``version`` is the version of the file format."""

    version: Literal[1]
    made: str
    fingerprint: str
    clusters: int
    silhouette: float | None
    limit: float
    duplicates: int
    threshold: float
    unit: bool | None = None


GROUPS = Derived(
    "map-groups.npz",
    GroupSheet,
    command="searchengine cluster",
    columns=("ids", "stamps", "cluster", "distance", "duplicate"),
)


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """``k`` clusters (None to choose), the ``threshold`` of ``duplicates``, and ``out``, a folder for sheets."""

    k: int | None = None
    threshold: float = THRESHOLD
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """The numbers of images, clusters and groups of near-duplicates; ``in_duplicates`` images have a near-duplicate.

    ``limit`` is the threshold as a distance. For ``remark``, see ``rows.remark``.
    """

    file: str
    images: int
    clusters: int
    silhouette: float | None
    duplicates: int
    in_duplicates: int
    limit: float
    sheets: int
    remark: str | None = None


def make_groups(index: Index, options: GroupOptions | None = None, progress: Progress = QUIET) -> GroupSummary:
    """Cluster the images of an index, find near-duplicates, and store both in the index folder.

    Raises:
        QueryError: the index is empty, or an option is out of bounds.
        IndexingError: scikit-learn is missing, or a folder is not writable.
    """
    options = options or GroupOptions()
    if not 0 <= options.threshold <= 2:
        raise QueryError("The threshold must be from 0 (only equal features) to 2.")
    check_seed(options.seed)
    state = index.state()
    rows = Rows.of(state)
    if not len(rows):
        raise QueryError("The index holds no images, so there is nothing to group.")
    if options.out is not None:
        check_output_folder(options.out)
    stamps = stamps_of(index, rows)  # before the computation, so that a change meanwhile makes the groups stale
    reduction = principal_components(rows, progress=progress)
    reduced = reduction.project(rows)
    clusters = clusters_of(reduced, options.k, seed=options.seed, progress=progress)
    duplicates = duplicates_of(rows, reduced, options.threshold, progress=progress)
    sheet = GroupSheet(
        1,
        timestamp(),
        rows.fingerprint,
        clusters.count,
        clusters.silhouette,
        duplicates.limit,
        duplicates.count,
        options.threshold,
        rows.unit,
    )
    arrays: dict[str, NDArray[Any]] = {
        "ids": rows.ids,
        "stamps": stamps,
        "cluster": clusters.numbers,
        "distance": clusters.distances,
        "duplicate": duplicates.numbers,
    }
    file = GROUPS.save(index.folder, sheet, arrays)
    sheets = 0
    if options.out is not None:
        groups = [("cluster", members(clusters.numbers, rows.ids, clusters.distances))]
        groups += [("duplicates", members(duplicates.numbers, rows.ids))]
        sheets = _write_sheets(index, options.out, groups, progress)
    return GroupSummary(
        str(file),
        len(rows),
        clusters.count,
        clusters.silhouette,
        duplicates.count,
        int(np.count_nonzero(duplicates.numbers >= 0)),
        duplicates.limit,
        sheets,
        remark(state),
    )


def members(
    numbers: NDArray[np.int32], ids: NDArray[np.int64], distances: NDArray[np.float32] | None = None
) -> list[tuple[int, NDArray[np.int64]]]:
    """Return each group with the ids of its images, ordered by distance to the centre if given, else by id."""
    order = np.lexsort((ids, numbers) if distances is None else (ids, distances, numbers))
    order = order[numbers[order] >= 0]
    if not len(order):
        return []
    bounds = np.flatnonzero(np.diff(numbers[order])) + 1
    return [(int(numbers[part[0]]), ids[part]) for part in np.split(order, bounds)]


def _write_sheets(
    index: Index, out: Path, groups: list[tuple[str, list[tuple[int, NDArray[np.int64]]]]], progress: Progress
) -> int:
    """Write a sheet for each group, delete those of earlier runs, and return the number of sheets."""
    sheets = []
    for kind, numbered in groups:
        for number, ids in numbered:
            entries = [Entry(record) for record in index.known(ids[:_ON_SHEET].tolist())]
            title = f"{kind.capitalize()} {number + 1}: {len(ids)} images"
            if entries:  # otherwise all were removed a moment ago
                sheets.append(Sheet(f"{kind}-{number + 1:04}.jpg", entries, _COLUMNS, title))
    folder = SheetFolder(out)
    progress.start(len(sheets), what="Contact sheets", unit="sheets")
    folder.draw(sheets, progress)
    folder.remove_others({sheet.name for sheet in sheets})
    return len(sheets)


# -- clusters, by k-means ----------------------------------------------------------------------------------------------

_MINI_BATCHES_ABOVE = 20_000  # rows
_SAMPLE = 2000
_CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 36, 42, 50, 60)


@dataclass(frozen=True, slots=True)
class Clusters:
    """Clusters of rows.

    ``numbers`` is (n,) int32: the cluster of each row, 0 for the largest; ``distances`` (n,) float32 to its centre.
    ``silhouette``, from -1 to 1, is measured on a sample; None for a single cluster.
    """

    numbers: NDArray[np.int32]
    distances: NDArray[np.float32]
    silhouette: float | None

    @property
    def count(self) -> int:
        """The number of clusters."""
        return int(self.numbers.max(initial=-1)) + 1


def clusters_of(
    reduced: NDArray[np.float32], k: int | None = None, *, seed: int = 0, progress: Progress = QUIET
) -> Clusters:
    """Divide (n, c) float32 rows into k clusters. By default, k is from 2 to 60, with the best silhouette of a sample.

    Raises:
        QueryError: k is below 1 or exceeds the number of different rows.
        IndexingError: scikit-learn is missing.
    """
    import_extra("sklearn.cluster", "scikit-learn", "map")
    if k is not None and not 1 <= k <= (different := len(np.unique(reduced, axis=0))):
        raise QueryError(
            f"The number of clusters must be from 1 to {different}, the number of different images, not {k}."
        )
    sample = _sample(len(reduced), seed)
    if k is None:
        k = _best_k(reduced[sample], seed, progress)
    progress.start(1, what="Clusters", unit="steps")
    numbers, centres = _k_means(reduced, k, seed)
    distances = np.linalg.norm(reduced - centres[numbers], axis=1).astype(np.float32)
    progress.advance()
    return Clusters(largest_first(numbers), distances, _silhouette(reduced[sample], numbers[sample]))


def _best_k(sample: NDArray[np.float32], seed: int, progress: Progress) -> int:
    different = len(np.unique(sample, axis=0))
    # Nearly as many clusters as images would not be a grouping.
    candidates = [k for k in _CANDIDATES if k < different and k <= max(2, math.isqrt(2 * len(sample)))]
    best, best_value = 1, -1.0
    progress.start(len(candidates), what="How many clusters", unit="numbers")
    for k in candidates:
        value = _silhouette(sample, _k_means(sample, k, seed, starts=2)[0])
        if value is not None and value > best_value:
            best, best_value = k, value
        progress.advance()
    return best


def _k_means(
    reduced: NDArray[np.float32], k: int, seed: int, starts: int = 4
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the (n,) int32 cluster of each row and the (k, c) centres; the best of several starts."""
    library = import_extra("sklearn.cluster", "scikit-learn", "map")
    if k == 1:
        return np.zeros(len(reduced), dtype=np.int32), reduced.mean(axis=0, keepdims=True)
    model: Any
    if len(reduced) <= _MINI_BATCHES_ABOVE:
        model = library.KMeans(k, n_init=starts, random_state=seed)
    else:
        model = library.MiniBatchKMeans(k, n_init=starts, batch_size=4096, random_state=seed)
    # The rows are short, and on a busy machine several threads would mostly wait for each other.
    with import_extra("threadpoolctl", "scikit-learn", "map").threadpool_limits(1):
        numbers = model.fit_predict(reduced)
    return np.asarray(numbers, dtype=np.int32), np.asarray(model.cluster_centers_, dtype=np.float32)


def _silhouette(sample: NDArray[np.float32], numbers: NDArray[np.int32]) -> float | None:
    count = len(np.unique(numbers))
    if not 2 <= count < len(sample):
        return None
    return float(import_extra("sklearn.metrics", "scikit-learn", "map").silhouette_score(sample, numbers))


def _sample(count: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of a random sample of the rows, ascending."""
    if count <= _SAMPLE:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _SAMPLE, replace=False))
