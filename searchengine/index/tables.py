"""The tables of a catalog, as they are made and as they must be found."""

from __future__ import annotations

import re
import sqlite3

_SCHEMA = """
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
    size INTEGER, mtime_ns INTEGER,
    PRIMARY KEY (root, path)
) WITHOUT ROWID;
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make all of them, within the transaction that is open."""
    for statement in filter(str.strip, _SCHEMA.split(";\n")):
        connection.execute(statement)


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether just these tables are there, every column of them."""
    empty = sqlite3.connect(":memory:")
    try:
        create_tables(empty)
        return _tables(connection) == _tables(empty)
    finally:
        empty.close()


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """The tables and indexes of a catalog: each one's name, and how it was made, without comments and blanks."""
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {(name, "".join(re.sub(r"--[^\n]*", "", sql).split())) for name, sql in found}
