"""Indexes of features that a test makes up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.rows import Rows
from searchengine.engine import open_index
from searchengine.index.catalog import Catalog
from searchengine.index.local import LocalIndex
from searchengine.index.types import Batch, FileState, ImageRow
from searchengine.index.writer import IndexWriter
from tests.fakes import SPEC


def rows_of(features: NDArray[np.float32]) -> Rows:
    """Return features as the rows of an index, with ids from 1."""
    return Rows(features, np.arange(1, len(features) + 1), np.arange(len(features)), unit=False)


def fill(
    folder: Path,
    features: NDArray[np.float32],
    *,
    images: Path | None = None,
    names: Iterable[str] = (),
    labels: Iterable[str] = (),
    gone: Iterable[int] = (),
    compact: bool = False,
    metric: str = "euclidean",
) -> LocalIndex:
    """Make the index hold these features, with ids from 1. Rows that it has already are not changed.

    ``images`` is a folder that holds ``names``; ``gone`` are ids to remove.
    """
    manifest = {
        "spec": SPEC.to_json(),
        "fingerprint": SPEC.fingerprint,
        "extractor": SPEC.title,
        "metric": metric,
        "normalized": "0",
    }
    if (folder / "catalog.sqlite").exists():
        writer = IndexWriter.open(folder)
    else:
        writer = IndexWriter.create(folder, manifest, dimension=features.shape[1])
        writer.set_roots([(1, str(images or folder / "images").encode(), "images")])
    named, labelled = list(names), list(labels)
    known = {image.id: image.content_hash for image in writer.known().values()}
    batch = Batch(removed=list(gone))
    for at, feature in enumerate(features):
        digest = hashlib.blake2b(feature.tobytes() + str(at).encode(), digest_size=16).digest()
        if known.get(at + 1) == digest:
            continue
        path = named[at] if named else f"{at:05}.png"
        row = ImageRow(
            id=at + 1,
            root=1,
            path=path.encode(),
            content_hash=digest,
            state=FileState(1, 1, settled=True),
            width=40,
            height=30,
            colour=f"#{at % 256:02x}8040",
            format="PNG",
            labels=tuple(filter(None, labelled[at : at + 1])),
            replaces=at + 1 in known,
        )
        batch.stored.append(row)
        batch.features.append(feature)
    with writer:
        if len(batch):
            writer.commit(batch)
        if compact:
            writer.compact()
    Catalog.open(folder).close()
    return open_index(folder)
