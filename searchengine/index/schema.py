"""The tables of a catalog, and the steps that bring an older format up to date.

A change of the format adds a step to ``_STEPS``, and changes ``_TABLES`` to its result. Steps are never removed, so
indexes of every format can be opened.
"""

from __future__ import annotations

import re
import sqlite3
from uuid import uuid4

from searchengine.files import parse_json

_TABLES = """
CREATE TABLE manifest (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,         -- never used again
    root INTEGER REFERENCES roots(id),            -- NULL, like all that follows from a file, where there is no file
    path BLOB,                                    -- relative to the root, as the bytes that the file system gave
    row INTEGER NOT NULL UNIQUE,                  -- of the feature matrix
    norm2 REAL NOT NULL,                          -- the squared Euclidean norm of that row
    crc INTEGER NOT NULL,                         -- CRC-32 of that row's bytes
    content_hash BLOB, size INTEGER, mtime_ns INTEGER,
    settled INTEGER,                              -- 0: changed so shortly before it was read that mtime may not tell
    width INTEGER, height INTEGER, colour TEXT, format TEXT,
    ctime_ns INTEGER,                             -- NULL until the next run, where an older format had none
    taken TEXT,                                   -- by its EXIF data: the local time of the camera, as ISO 8601
    camera TEXT,                                  -- '' where EXIF data name none; NULL until they have been read
    UNIQUE (root, path)
);
CREATE INDEX images_by_content ON images (content_hash);
CREATE TABLE labels (
    image INTEGER NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE INDEX images_by_label ON labels (label, image);
CREATE TABLE skipped (
    root INTEGER NOT NULL REFERENCES roots(id),
    path BLOB NOT NULL,
    reason TEXT NOT NULL,
    size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    PRIMARY KEY (root, path)
) WITHOUT ROWID;
"""
TABLES = ("manifest", "roots", "images", "labels", "skipped")  # each after those that it refers to


def create_tables(connection: sqlite3.Connection) -> None:
    """Make all of them, within the transaction that is open."""
    for statement in filter(str.strip, _TABLES.split(";\n")):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether the catalog has exactly these tables and columns."""
    empty = sqlite3.connect(":memory:")
    try:
        create_tables(empty)
        return _definitions(connection) == _definitions(empty)
    finally:
        empty.close()


def _definitions(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """The tables and indexes of a catalog: each one's name, and how it was made, without comments and blanks."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {(name, "".join(re.sub(r"--[^\n]*", "", sql).split())) for name, sql in rows}


# -- formats ----------------------------------------------------------------------------------------------------------


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring a catalog of an older format up to date, within the transaction that is open.

    Raises:
        ValueError: it lacks something that its format requires; the message says what.
    """
    for step in _STEPS[version - 1 :]:
        step(connection)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _to_2(connection: sqlite3.Connection) -> None:
    """The manifest says whether features have length 1, and which revision it is, instead of how often it changed."""
    row = connection.execute("SELECT value FROM manifest WHERE key = 'spec'").fetchone()
    try:
        normalized = parse_json(row[0])["normalize"] == "l2"
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError("it does not say what made the features") from error
    connection.execute("DELETE FROM manifest WHERE key IN ('lineage', 'commits')")
    connection.executemany(
        "INSERT OR REPLACE INTO manifest VALUES (?, ?)",
        (("normalized", str(int(normalized))), ("revision", uuid4().hex)),
    )


def _to_3(connection: sqlite3.Connection) -> None:
    """The ctime of a file shows that its content has changed even if size and mtime have not."""
    connection.execute("ALTER TABLE images ADD COLUMN ctime_ns INTEGER")
    connection.execute("ALTER TABLE skipped ADD COLUMN ctime_ns INTEGER")


def _to_4(connection: sqlite3.Connection) -> None:
    """When and with what photos were taken; the next run reads it of those that are indexed already."""
    connection.execute("ALTER TABLE images ADD COLUMN taken TEXT")
    connection.execute("ALTER TABLE images ADD COLUMN camera TEXT")


_STEPS = (_to_2, _to_3, _to_4)
FORMAT = 1 + len(_STEPS)
