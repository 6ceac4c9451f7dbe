"""The map, the groups and the evaluation of an index, read from its folder for the pages."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import load_evaluation
from searchengine.analyse.evaluation.results import EVALUATION, KeptEvaluation
from searchengine.analyse.groups import GROUPS, GroupSheet, members
from searchengine.analyse.map import MAP, MapSheet
from searchengine.analyse.rows import Rows, changes_since, remark, stamps_of
from searchengine.derived import Cached, Derived, StoredData
from searchengine.errors import IndexDamagedError
from searchengine.index.protocol import Index
from searchengine.index.types import ImageRecord

S = TypeVar("S")
_NONE = 0xFFFF  # the number of "no label" and "no group"
_MAX_LABELS = 400  # with their own colour on the map
_GREY = "#8a8a8a"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of similar images.

    Attributes:
        number: counted from 1.
        ids: of a cluster, the most typical image first; of near-duplicates, in order.
        labels: the label of most images, or the two most frequent ones.
    """

    number: int
    ids: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name that the pages show."""
        return ", ".join(self.labels) or f"Group {self.number}"

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Overview:
    """The map and the groups.

    Attributes:
        map_note, groups_note: what is out of date or damaged.
        remark: which distance both use, if the index ranks by another one.
        points: the map as returned by ``pack``; None if there is no map.
        has_groups: whether clusters and near-duplicates have been computed.
        clusters, duplicates: the groups, the largest first.
        silhouette: how well the clusters are separated, from -1 to 1.
        limit: the largest distance of near-duplicates.
    """

    map_note: str = ""
    groups_note: str = ""
    remark: str = ""
    points: bytes | None = None
    has_groups: bool = False
    clusters: tuple[Group, ...] = ()
    duplicates: tuple[Group, ...] = ()
    silhouette: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class LatestEvaluation:
    """The evaluation, if there is one; ``problem`` says why one cannot be read."""

    kept: KeptEvaluation | None
    problem: str = ""


def cached_overview(index: Index) -> Cached[Any, Overview]:
    """Return the overview of an index, cached until the index or one of the files changes."""
    return Cached(
        lambda: (index.generation, MAP.identity(index.folder), GROUPS.identity(index.folder)),
        lambda: _overview(index),
    )


def cached_evaluation(index: Index) -> Cached[Any, LatestEvaluation]:
    """Return the evaluation of an index, cached until the index or the evaluation changes."""
    return Cached(lambda: (index.generation, EVALUATION.identity(index.folder)), lambda: _evaluation(index))


def _evaluation(index: Index) -> LatestEvaluation:
    try:
        return LatestEvaluation(load_evaluation(index))
    except IndexDamagedError as error:
        # The log names the file. The page shows no path.
        _log.warning("%s", error)
        problem = f"{EVALUATION.file} in the index folder cannot be read. Delete it and evaluate again."
        return LatestEvaluation(None, problem)


def _overview(index: Index) -> Overview:
    state = index.state()
    rows = Rows.of(state)
    map_, map_note = _loaded(index.folder, MAP)
    groups, groups_note = _loaded(index.folder, GROUPS)
    if map_ is None and groups is None:
        return Overview(map_note, groups_note)
    stamps = stamps_of(index, rows)
    records = {record.id: record for record in index.known(rows.ids.tolist())}
    if map_ is not None:
        map_note = changes_since(map_.sheet, map_.arrays, rows, stamps)
    if groups is not None:
        groups_note = changes_since(groups.sheet, groups.arrays, rows, stamps)
    return Overview(
        map_note=map_note,
        groups_note=groups_note,
        remark=remark(state) or "",
        points=None if map_ is None else pack(map_, groups, records),
        has_groups=groups is not None,
        clusters=() if groups is None else _groups(groups, "cluster", records),
        duplicates=() if groups is None else _groups(groups, "duplicate", records),
        silhouette=None if groups is None else groups.sheet.silhouette,
        limit=None if groups is None else groups.sheet.limit,
    )


def _loaded(folder: Path, kind: Derived[S]) -> tuple[StoredData[S] | None, str]:
    try:
        return kind.load(folder), ""
    except IndexDamagedError:
        # The page shows no path, so the error, which names the file, is left out.
        return None, f"{kind.file} in the index folder cannot be read. Delete it and make it again."


def _groups(groups: StoredData[GroupSheet], kind: str, records: dict[int, ImageRecord]) -> tuple[Group, ...]:
    distances = groups.arrays["distance"] if kind == "cluster" else None
    result = []
    for number, ids in members(groups.arrays[kind], groups.arrays["ids"], distances):
        existing = [id_ for id_ in ids.tolist() if id_ in records]
        if len(existing) < (1 if kind == "cluster" else 2):
            continue
        counts = Counter(label for id_ in existing if (label := records[id_].label)).most_common(2)
        is_mostly_one = counts and counts[0][1] * 2 > len(existing)
        result.append(
            Group(number + 1, tuple(existing), tuple(label for label, _ in counts[: 1 if is_mostly_one else 2]))
        )
    return tuple(result)


def pack(map_: StoredData[MapSheet], groups: StoredData[GroupSheet] | None, records: dict[int, ImageRecord]) -> bytes:
    """Return the map as one block of bytes: a JSON header followed by columns of little-endian numbers.

    The layout is the length of the header as ``uint32``, the header padded to 8 bytes, then for all n images:
    ``float64`` ids, ``float32`` x and y, ``uint32`` version of the thumbnail, ``uint16`` label, ``uint16`` cluster,
    ``uint16`` width / height * 1000, ``uint8`` red, green, blue. The header has the type, offset and length of each
    column, the names of the labels and the number of clusters.
    """
    existing = np.array([id_ in records for id_ in map_.arrays["ids"].tolist()], dtype=np.bool_)
    ids, places = map_.arrays["ids"][existing], map_.arrays["places"][existing]
    shown = [records[id_] for id_ in ids.tolist()]
    names, labels = _numbered([record.label for record in shown])
    clusters, cluster_count = _clusters_of(ids, groups)
    ratios = [min(60.0, (record.width or 1) / (record.height or 1)) for record in shown]
    columns: dict[str, NDArray[Any]] = {
        "id": ids.astype("<f8"),
        "x": places[:, 0].astype("<f4"),
        "y": places[:, 1].astype("<f4"),
        "version": np.array([int((r.content_hash or "0")[:8], 16) for r in shown], dtype="<u4"),
        "label": labels,
        "cluster": clusters,
        "ratio": np.array([round(ratio * 1000) for ratio in ratios], dtype="<u2"),
        "colour": np.array([_rgb(record.colour) for record in shown], dtype="u1").reshape(-1),
    }
    layout, offset = {}, 0
    for name, values in columns.items():
        layout[name] = [values.dtype.str.strip("<|"), offset, len(values)]
        offset += -(-values.nbytes // 8) * 8
    head = json.dumps({"count": len(ids), "labels": names, "clusters": cluster_count, "columns": layout}).encode()
    head += b" " * (-(len(head) + 4) % 8)
    body = b"".join(values.tobytes() + b"\0" * (-values.nbytes % 8) for values in columns.values())
    return len(head).to_bytes(4, "little") + head + body


def _numbered(labels: list[str | None]) -> tuple[list[str], NDArray[np.uint16]]:
    """Return the most frequent labels, and for each image the number of its label among them."""
    counts = Counter(label for label in labels if label is not None)
    names = sorted(counts, key=lambda name: (-counts[name], name))[:_MAX_LABELS]
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([_NONE if label is None else numbers.get(label, _NONE) for label in labels], dtype="<u2")


def _clusters_of(ids: NDArray[np.int64], groups: StoredData[GroupSheet] | None) -> tuple[NDArray[np.uint16], int]:
    clusters = np.full(len(ids), _NONE, dtype="<u2")
    if groups is None:
        return clusters, 0
    _, rows, group_rows = np.intersect1d(ids, groups.arrays["ids"], assume_unique=True, return_indices=True)
    clusters[rows] = groups.arrays["cluster"][group_rows]
    return clusters, int(groups.sheet.clusters)


def _rgb(colour: str | None) -> tuple[int, ...]:
    return tuple(bytes.fromhex((colour or _GREY)[1:]))
