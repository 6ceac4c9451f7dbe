"""Checks an index from outside: its contents, and whether it answers and verifies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from searchengine.engine import open_index
from searchengine.errors import IndexNotFoundError
from searchengine.indexing.verify import verify


@dataclass(frozen=True, slots=True)
class Row:
    """Everything that an index records of an image except its id."""

    feature: tuple[float, ...]
    labels: tuple[str, ...]
    width: int | None
    height: int | None
    colour: str | None
    size: int | None
    format: str | None
    content_hash: str | None


@dataclass(frozen=True, slots=True)
class Contents:
    """Rows by path, ids by path, and skipped paths."""

    rows: dict[str, Row]
    ids: dict[str, int]
    skipped: frozenset[str]


def contents(folder: Path) -> Contents | None:
    """Return the contents of the index; None if there is no index yet."""
    try:
        index = open_index(folder)
    except IndexNotFoundError:
        return None
    try:
        ids = index.ids.tolist()
        rows = {
            record.path: Row(
                tuple(feature.tolist()), record.labels, record.width, record.height, record.colour, record.size,
                record.format, record.content_hash,
            )
            for record, feature in zip(index.records(ids), index.features, strict=True)
        }  # fmt: skip
        assert len(rows) == len(set(ids)) == len(ids)
        return Contents(rows, {r.path: r.id for r in index.records(ids)}, frozenset(p for p, _ in index.skipped()))
    finally:
        index.close()


def answers(folder: Path) -> int:
    """Open, search and verify the index; return its number of images, 0 if there is no index yet."""
    try:
        index = open_index(folder)
    except IndexNotFoundError:
        return 0
    try:
        count = len(index)
        assert count == len(index.ids) == len(index.paths) == len(index.features) == index.status().images
        for id_ in index.ids[:5].tolist():
            feature = index.feature(id_)
            assert np.isfinite(feature).all()
            hits = index.search(feature, 3)[0]
            assert hits[0].distance == 0.0
            assert len(hits) == min(3, count)
        result = verify(folder)
        assert result.sound, result.problems
        assert result.images == count
        return count
    finally:
        index.close()
