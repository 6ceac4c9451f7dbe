"""One run: clusters and near-duplicates of an index, stored with it, and a contact sheet for each if asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping import stored
from searchengine.analyse.mapping.clusters import clusters_of
from searchengine.analyse.mapping.duplicates import THRESHOLD, duplicates_of
from searchengine.analyse.mapping.reduction import Rows, principal_components, remark
from searchengine.analyse.mapping.seeds import check_seed
from searchengine.analyse.mapping.sheets import write_sheets
from searchengine.errors import QueryError
from searchengine.files import check_output_folder
from searchengine.index.local import LocalIndex
from searchengine.progress import QUIET, Progress


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """``k``: how many clusters, None to choose; ``threshold``: see ``duplicates``; ``out``: a folder for sheets."""

    k: int | None = None
    threshold: float = THRESHOLD
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """``limit`` is the threshold as a distance; ``in_duplicates``: images that have a near-duplicate.

    ``remark``: see ``reduction.remark``.
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


def make_groups(index: LocalIndex, options: GroupOptions | None = None, progress: Progress = QUIET) -> GroupSummary:
    """Cluster the images of an index and find near-duplicates; the result is stored in the index folder.

    Raises:
        QueryError: the index is empty, or an option is out of bounds.
        IndexingError: scikit-learn is missing, or a folder cannot be written to.
    """
    options = options or GroupOptions()
    if not 0 <= options.threshold <= 2:
        raise QueryError("The threshold must be from 0 (equal features only) to 2.")
    check_seed(options.seed)
    state = index.state()
    rows = Rows.of(state)
    if not len(rows):
        raise QueryError("The index holds no images, so there is nothing to group.")
    if options.out is not None:
        check_output_folder(options.out)
    stamps = stored.stamps_of(index, rows)  # first: what changes while this goes on is told as changed
    reduction = principal_components(rows, progress=progress)
    reduced = reduction.project_all(rows)
    clusters = clusters_of(reduced, options.k, seed=options.seed, progress=progress)
    duplicates = duplicates_of(rows, reduction, reduced, options.threshold, progress=progress)
    about = {
        **stored.basis(state.fingerprint, rows),
        "clusters": clusters.count,
        "silhouette": clusters.silhouette,
        "duplicates": duplicates.count,
        "threshold": options.threshold,
        "limit": duplicates.limit,
    }
    arrays: dict[str, NDArray[Any]] = {
        "ids": rows.ids,
        "stamps": stamps,
        "cluster": clusters.numbers,
        "distance": clusters.distances,
        "duplicate": duplicates.numbers,
    }
    file = stored.save(index.folder, stored.GROUPS, about, arrays)
    sheets = 0
    if options.out is not None:
        found = [
            *(("cluster", number, ids) for number, ids in members(clusters.numbers, rows.ids, clusters.distances)),
            *(("duplicates", number, ids) for number, ids in members(duplicates.numbers, rows.ids)),
        ]
        sheets = write_sheets(index, options.out, found, progress)
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
    """Each group with the ids of its images: those nearest to its middle first, or in the order of ids."""
    order = np.lexsort((ids, numbers) if distances is None else (ids, distances, numbers))
    order = order[numbers[order] >= 0]
    if not len(order):
        return []
    bounds = np.flatnonzero(np.diff(numbers[order])) + 1
    return [(int(numbers[part[0]]), ids[part]) for part in np.split(order, bounds)]
