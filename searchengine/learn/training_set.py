"""The images of an index that have a label: what a classifier learns from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.local import LocalIndex
from searchengine.index.state import State
from searchengine.indexing.labels import how_to_label


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled images in the order of their ids; of several labels, an image's first one counts."""

    ids: NDArray[np.int64]  # (n,)
    labels: tuple[str, ...]  # n
    groups: NDArray[np.int64]  # (n,), equal where the content of the files is
    features: NDArray[np.float32]  # (n, d)
    squared_norms: NDArray[np.float64]  # (n,), the squared norm of each feature
    metric: str
    fingerprint: str  # of the extractor
    version: str  # of all the rest
    unlabelled: int
    several: int  # images with more than one label


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    ids: list[int]
    rows: NDArray[np.int64]
    labels: list[str]
    contents: list[str]
    unlabelled: int
    several: int
    version: str


def training_set(index: LocalIndex) -> TrainingSet:
    """All labelled images of an index; LearningError where there are none."""
    state = index.state()
    labelled = _labelled(index, state)
    if not labelled.ids:
        raise LearningError(
            f"No image of the index in {index.folder} has a label, so there is nothing to learn from. "
            f"{how_to_label(ExtractorSpec.from_json(state.spec))}"
        )
    return TrainingSet(
        ids=np.array(labelled.ids, dtype=np.int64),
        labels=tuple(labelled.labels),
        groups=np.unique(labelled.contents, return_inverse=True)[1].astype(np.int64),
        # (r, d) -> (n, d); the mapped file itself where every row counts, has a label and stands in order
        features=state.rows if np.array_equal(labelled.rows, np.arange(len(state.rows))) else state.rows[labelled.rows],
        squared_norms=state.squared_norms[labelled.rows],
        metric=state.metric,
        fingerprint=state.fingerprint,
        version=labelled.version,
        unlabelled=labelled.unlabelled,
        several=labelled.several,
    )


def labels_version(index: LocalIndex) -> str:
    """16 hexadecimal digits that differ whenever a labelled image comes, goes, or changes its label or content."""
    return _labelled(index, index.state()).version


def _labelled(index: LocalIndex, state: State) -> _Labelled:
    live = state.live_by_id
    known = {record.id: record for record in index.known(state.ids[live].tolist())}
    digest = hashlib.sha256()
    ids, rows, labels, contents = [], [], [], []
    several = 0
    for row in live.tolist():
        id_ = int(state.ids[row])
        record = known.get(id_)
        if record is None or not record.label:  # removed a moment ago, or without a label
            continue
        content = record.content_hash or f"#{id_}"
        digest.update(f"{id_}\0{record.label}\0{content}\0{float(state.squared_norms[row]).hex()}\n".encode())
        ids.append(id_)
        rows.append(row)
        labels.append(record.label)
        contents.append(content)
        several += len(record.labels) > 1
    version = digest.hexdigest()[:16]
    return _Labelled(ids, np.array(rows, dtype=np.int64), labels, contents, len(live) - len(ids), several, version)
