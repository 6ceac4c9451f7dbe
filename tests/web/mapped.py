"""An index whose map and groups can be worked out by hand."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from flask import Flask

from searchengine.analyse.groups import GROUPS, GroupSheet
from searchengine.analyse.map import MAP, MapSheet
from searchengine.analyse.rows import Rows, stamps_of
from searchengine.index import database
from searchengine.index.local import LocalIndex
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.analyse.filled import fill
from tests.web.fake import COLOURS, draw

COUNT = 240
KINDS = ("red", "green", "blue")


def fill_index(folder: Path, count: int = COUNT, *, mislabelled: int = 0) -> LocalIndex:
    """Write pictures in three colours by turns. The last few may be labelled with another colour."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{KINDS[at % 3]} {at:03}.png" for at in range(count)]
    for at, name in enumerate(names):
        draw(COLOURS[KINDS[at % 3]], (48, 36), at).save(images / name)
    features = (10 * np.eye(3, 6)[np.arange(count) % 3] + np.arange(count)[:, None] * 1e-3).astype(np.float32)
    labels = [KINDS[(at + (at >= count - mislabelled)) % 3] for at in range(count)]
    return fill(folder / "index", features, images=images, names=names, labels=labels)


def store_map(index: LocalIndex, count: int = COUNT) -> None:
    """Store a map of three discs: red on the left, green in the middle, blue on the right; image 1 is a centre."""
    turn = np.arange(count) // 3
    angle, radius = turn * 2.4, 0.35 * np.sqrt(turn)
    middle = (np.arange(count) % 3 - 1) * 10
    places = np.stack([middle + radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    rows = Rows.of(index.state())
    arrays = {
        "ids": rows.ids[:count],
        "stamps": stamps_of(index, rows)[:count],
        "places": places,
        "fitted": np.ones(count, dtype=np.bool_),
        "mean": np.zeros(6, dtype=np.float32),
        "components": np.eye(6, 2, dtype=np.float32),
    }
    MAP.save(index.folder, MapSheet(1, "2026-01-01T00:00:00+00:00", index.fingerprint, 6, 30.0, 750, 0), arrays)


def store_groups(index: LocalIndex, count: int = COUNT, pairs: int = 2) -> None:
    """Store a group for each colour; images 1 and 4, 2 and 5, 3 and 6, 7 and 10, ... are pairs of near-duplicates."""
    rows = Rows.of(index.state())
    duplicate = np.full(count, -1, dtype=np.int32)
    for pair in range(pairs):
        first = pair // 3 * 6 + pair % 3
        duplicate[[first, first + 3]] = pair
    arrays = {
        "ids": rows.ids[:count],
        "stamps": stamps_of(index, rows)[:count],
        "cluster": (np.arange(count) % 3).astype(np.int32),
        "distance": np.arange(count, dtype=np.float32),
        "duplicate": duplicate,
    }
    sheet = GroupSheet(1, "2026-01-01T00:00:00+00:00", index.fingerprint, 3, 0.9, 0.2, pairs, 0.2)
    GROUPS.save(index.folder, sheet, arrays)


def read_only_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open catalogs as if on a read-only mount from here on; writers use another mount of the same folder."""
    connect = database.connect

    def without_locks(uri: str) -> sqlite3.Connection:
        if uri.endswith("?mode=ro"):
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorname = "SQLITE_CANTOPEN"
            raise error
        return connect(uri)

    monkeypatch.setattr(database, "connect", without_locks)


def app_of(index: LocalIndex, cache: Path) -> Flask:
    return create_app({"TESTING": True, "CACHE_DIR": cache, "DEFAULT_K": 10}, ServedEngine(index))
