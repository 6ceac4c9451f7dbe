"""Clusters and near-duplicates of an index, kept with it, and a contact sheet for each if asked for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.clusters import clusters_of
from searchengine.analyse.mapping.duplicates import THRESHOLD, duplicates_of
from searchengine.analyse.mapping.reduction import principal_components
from searchengine.analyse.mapping.rows import Rows, check_seed, remark, source_of_stored, stamps_of
from searchengine.analyse.sheets import Entry, SheetFolder, draw_sheet
from searchengine.derived import Derived, timestamp
from searchengine.errors import QueryError
from searchengine.files import check_output_folder
from searchengine.index.local import LocalIndex
from searchengine.progress import QUIET, Progress

_ON_SHEET = 80  # pictures; the title says how many there are in all
_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class GroupSheet:
    """What stored groups say of themselves; ``version`` is that of the file's format."""

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
    arrays=("ids", "stamps", "cluster", "distance", "duplicate"),
    source=source_of_stored,
)


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

    ``remark``: see ``rows.remark``.
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
    stamps = stamps_of(index, rows)  # before the computation: a change meanwhile makes the groups stale
    reduction = principal_components(rows, progress=progress)
    reduced = reduction.project_all(rows)
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
        groups = {
            **_titled("cluster", members(clusters.numbers, rows.ids, clusters.distances)),
            **_titled("duplicates", members(duplicates.numbers, rows.ids)),
        }
        _write_sheets(index, options.out, groups, progress)
        sheets = len(groups)
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


def _titled(kind: str, groups: list[tuple[int, NDArray[np.int64]]]) -> dict[str, tuple[str, list[int]]]:
    """File name -> title and ids."""
    return {
        f"{kind}-{number + 1:04}.jpg": (f"{kind.capitalize()} {number + 1}: {len(ids)} images", ids.tolist())
        for number, ids in groups
    }


def _write_sheets(index: LocalIndex, out: Path, groups: dict[str, tuple[str, list[int]]], progress: Progress) -> None:
    """Write a sheet for each group, and delete those of an earlier run that are none of these."""
    folder = SheetFolder(out)

    def draw(name: str) -> None:
        title, ids = groups[name]
        entries = [Entry(record) for record in index.known(ids[:_ON_SHEET])]
        if entries:  # else all were removed a moment ago
            sheet, missing = draw_sheet(entries, columns=_COLUMNS, title=title)
            folder.write(name, sheet, title, missing)

    progress.start(len(groups), what="Contact sheets", unit="sheets")
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sheet") as pool:
        for _ in pool.map(draw, groups):
            progress.advance()
    folder.remove_others(groups)
    folder.save()
