"""The labelled images of an index, from which a classifier learns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.protocol import Index, images_by_row
from searchengine.index.state import State
from searchengine.index.types import ImageRecord
from searchengine.indexing.labels import how_to_label


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled images in the order of their ids. Of an image's labels, only the first counts."""

    ids: NDArray[np.int64]  # (n,)
    labels: tuple[str, ...]  # n
    groups: NDArray[np.int64]  # (n,), equal for files with equal content
    features: NDArray[np.float32]  # (n, d)
    squared_norms: NDArray[np.float64]  # (n,), the squared norm of each feature
    metric: str
    fingerprint: str  # of the extractor
    version: str  # changes with the images and labels
    unlabelled: int
    several: int  # images with more than one label

    def take(self, rows: NDArray[np.int64]) -> TrainingSet:
        """Return the images in some rows."""
        return replace(
            self,
            ids=self.ids[rows],
            labels=tuple(self.labels[row] for row in rows.tolist()),
            groups=self.groups[rows],
            features=self.features[rows],
            squared_norms=self.squared_norms[rows],
        )


def training_set(index: Index) -> TrainingSet:
    """Return all labelled images of an index. Raises LearningError if there are none."""
    state = index.state()
    labelled = _labelled(index, state)
    if not labelled:
        raise LearningError(
            f"No image of the index in {index.address} has a label, so there is nothing to learn from. "
            f"{how_to_label(ExtractorSpec.from_json(state.spec))}"
        )
    rows = np.array(list(labelled), dtype=np.int64)
    records = list(labelled.values())
    return TrainingSet(
        ids=state.ids[rows],
        labels=tuple(record.labels[0] for record in records),
        groups=np.unique([_content(record) for record in records], return_inverse=True)[1].astype(np.int64),
        # (r, d) -> (n, d); the mapped file itself if all rows are live, labelled and in order
        features=state.rows if np.array_equal(rows, np.arange(len(state.rows))) else state.rows[rows],
        squared_norms=state.squared_norms[rows],
        metric=state.metric,
        fingerprint=state.fingerprint,
        version=_version(state, labelled),
        unlabelled=state.count - len(rows),
        several=sum(len(record.labels) > 1 for record in records),
    )


def labels_version(index: Index) -> str:
    """Return 16 hexadecimal digits that change whenever a labelled image is added, removed, relabelled or modified."""
    state = index.state()
    return _version(state, _labelled(index, state))


def _version(state: State, labelled: dict[int, ImageRecord]) -> str:
    digest = hashlib.sha256()
    for row, record in labelled.items():
        norm = float(state.squared_norms[row]).hex()
        digest.update(f"{record.id}\0{record.label}\0{_content(record)}\0{norm}\n".encode())
    return digest.hexdigest()[:16]


def _labelled(index: Index, state: State) -> dict[int, ImageRecord]:
    """Return the labelled images by their rows, in the order of their ids."""
    return {row: record for row, record in images_by_row(index, state).items() if record.label}


def _content(record: ImageRecord) -> str:
    return record.content_hash or f"#{record.id}"
