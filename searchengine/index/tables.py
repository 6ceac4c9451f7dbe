"""The images, image folders and skipped files of a catalog, with one method for each query and each change."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from searchengine.images.metadata import Shot
from searchengine.index.database import Database
from searchengine.index.types import FileState, ImageFolder, ImageRow, ImageUpdate, IndexedImage, Place, Skipped

_COLUMNS = (
    "root", "path", "row", "norm2", "crc", "content_hash", "size", "mtime_ns", "settled", "width", "height", "colour",
    "format", "ctime_ns", "taken", "camera", "id",
)  # fmt: skip
_INSERT = f"INSERT INTO images ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_UPDATE = f"UPDATE images SET {', '.join(f'{name} = ?' for name in _COLUMNS[:-1])} WHERE id = ?"  # noqa: S608

# Selects rows with a value that the writer cannot have written. Without a file, NULL is valid.
_IMPOSSIBLE = """
SELECT id FROM images WHERE NOT (
    typeof(row) = 'integer' AND typeof(norm2) = 'real' AND typeof(crc) = 'integer'
    AND (path IS NULL OR typeof(path) = 'blob')
    AND (content_hash IS NULL OR (typeof(content_hash) = 'blob' AND length(content_hash) = 16))
    AND (size IS NULL OR (typeof(size) = 'integer' AND size >= 0))
    AND (mtime_ns IS NULL OR typeof(mtime_ns) = 'integer')
    AND (ctime_ns IS NULL OR typeof(ctime_ns) = 'integer')
    AND (settled IS NULL OR settled IN (0, 1))
    AND (width IS NULL OR (typeof(width) = 'integer' AND width > 0))
    AND (height IS NULL OR (typeof(height) = 'integer' AND height > 0))
    AND (colour IS NULL OR colour GLOB '#[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]')
    AND (format IS NULL OR typeof(format) = 'text')
    AND (taken IS NULL OR (typeof(taken) = 'text' AND taken IS strftime('%Y-%m-%dT%H:%M:%S', taken)))
    AND (camera IS NULL OR typeof(camera) = 'text')
)
"""


class Tables(Database):
    """The tables of a catalog, whose columns ``catalog.py`` defines; raises what ``Database`` raises."""

    # -- images -----------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of images in the index."""
        return int(self.value("SELECT count(*) FROM images"))

    def ids(self) -> set[int]:
        """Return the ids of all images."""
        return {row[0] for row in self.rows("SELECT id FROM images")}

    def last_id(self) -> int:
        """Return the largest id ever given; none is given twice."""
        return int(self.value("SELECT seq FROM sqlite_sequence WHERE name = 'images'") or 0)

    def reserve_ids(self, last_id: int) -> None:
        """Mark ids up to ``last_id`` as used."""
        self.change("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'", (last_id,))

    def rows_from(self, first: int | None) -> Iterator[tuple[int, int, float]]:
        """Yield (row, id, squared norm) of each image whose row is at least ``first``, or of all images for None."""
        if first is None:  # includes the negative rows of a damaged catalog
            return self.each_row("SELECT row, id, norm2 FROM images")
        return self.each_row("SELECT row, id, norm2 FROM images WHERE row >= ?", (first,))

    def rows_before(self, end: int) -> Iterator[int]:
        """Yield those of the rows before ``end`` that have an image."""
        return (row for (row,) in self.each_row("SELECT row FROM images WHERE row >= 0 AND row < ?", (end,)))

    def filter_columns(self, first: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Yield (row, root, path, width, height, format, taken, camera, mtime_ns) of the images in those rows."""
        return self.each_row(
            "SELECT row, root, path, width, height, format, taken, camera, mtime_ns FROM images "
            "WHERE row >= ? AND row < ?",
            (first, end),
        )

    def labelled_rows(self, first: int, end: int) -> Iterator[tuple[int, str]]:
        """Yield (row, label) for each label of the images in those rows."""
        return self.each_row(
            "SELECT row, label FROM images JOIN labels ON labels.image = images.id WHERE row >= ? AND row < ?",
            (first, end),
        )

    def checksums(self) -> list[tuple[int, int, float, int]]:
        """Return (row, CRC-32, squared norm, id) of each image, by row."""
        return self.rows("SELECT row, crc, norm2, id FROM images ORDER BY row")

    def known(self) -> dict[Place, IndexedImage]:
        """Return every image that has a file, by root and path."""
        labels = self._labels("")
        return {
            (root, path): IndexedImage(
                id_, row, digest, FileState(size, mtime, bool(settled), ctime), labels.get(id_, ()), bool(has_shot)
            )
            for id_, root, path, row, digest, size, mtime, settled, ctime, has_shot in self.rows(
                "SELECT id, root, path, row, content_hash, size, mtime_ns, settled, ctime_ns, camera IS NOT NULL "
                "FROM images WHERE path IS NOT NULL"
            )
        }

    def places(self) -> set[Place]:
        """Return (root, path) of every image that has a file."""
        return set(self.rows("SELECT root, path FROM images WHERE root IS NOT NULL"))

    def files(self) -> Iterator[tuple[int, bytes, bytes, bytes | None]]:
        """Yield (id, folder, path in it, content hash) of every image that has a file, by id."""
        return self.each_row(
            "SELECT images.id, roots.path, images.path, content_hash FROM images JOIN roots ON roots.id = images.root "
            "ORDER BY images.id"
        )

    def of_content(self, content_hash: bytes) -> tuple[Any, ...] | None:
        """Return (id, row, width, height, colour, format) of the first image with that content, or None."""
        rows = self.rows(
            "SELECT id, row, width, height, colour, format FROM images WHERE content_hash = ? ORDER BY id LIMIT 1",
            (content_hash,),
        )
        return rows[0] if rows else None

    def ids_of_paths(self, *paths: bytes) -> list[int]:
        """Return the ids of images with one of those paths."""
        marks = ", ".join("?" * len(paths))
        return [row[0] for row in self.rows(f"SELECT id FROM images WHERE path IN ({marks}) ORDER BY id", paths)]  # noqa: S608

    def named(self, text: str) -> list[int]:
        """Return the ids, ascending, of images with a text as a label, or as the name of their file or a folder.

        Case and the characters between words do not matter.
        """
        wanted = _normalized_name(text)
        if not wanted:
            return []
        # A first, wide choice by SQLite. Only ASCII letters and digits have a single spelling; the rest, and ss (to
        # which ß is folded), is compared below.
        pattern = re.sub("[^a-z0-9]+|ss", "%", wanted)
        names: list[tuple[int, str]] = self.rows("SELECT image, label FROM labels WHERE label LIKE ?", (pattern,))
        for id_, path in self.rows("SELECT id, path FROM images WHERE CAST(path AS TEXT) LIKE ?", (f"%{pattern}%",)):
            name = path.decode("utf-8", "replace")
            names += [(id_, part) for part in (name, *name.split("/"), name.rpartition("/")[2].rpartition(".")[0])]
        return sorted({id_ for id_, name in names if _normalized_name(name) == wanted})

    def records(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return (id, root, path, width, height, colour, size, format, content hash, labels) of existing images."""
        wanted = (json.dumps(list(ids)),)
        labels = self._labels("WHERE image IN (SELECT value FROM json_each(?))", wanted)
        rows = self.rows(
            "SELECT id, root, path, width, height, colour, size, format, content_hash FROM images "
            "WHERE id IN (SELECT value FROM json_each(?))",
            wanted,
        )
        return [(*row, labels.get(row[0], ())) for row in rows]

    def _labels(self, which: str, values: Sequence[object] = ()) -> dict[int, tuple[str, ...]]:
        """Return the labels of images, in order, by id."""
        labels: dict[int, tuple[str, ...]] = {}
        for image, label in self.rows(f"SELECT image, label FROM labels {which} ORDER BY image, position", values):  # noqa: S608
            labels[image] = (*labels.get(image, ()), label)
        return labels

    def store(self, image: ImageRow, row: int, norm2: float, crc: int) -> None:
        """Store a new image, or the new content of a known one, with its row in the matrix."""
        state = image.state
        values = (
            image.root, image.path, row, norm2, crc, image.content_hash, state and state.size, state and state.mtime_ns,
            state and int(state.settled), image.width, image.height, image.colour, image.format,
            state and state.ctime_ns, image.shot and image.shot.taken, image.shot and image.shot.camera, image.id,
        )  # fmt: skip
        if image.replaces:
            assert image.id is not None
            self.change(_UPDATE, values)
            self.set_labels(image.id, image.labels)
        else:
            self._add_labels(self.change(_INSERT, values), image.labels)

    def set_labels(self, image: int, labels: Sequence[str]) -> None:
        """Replace the labels of an image."""
        self.change("DELETE FROM labels WHERE image = ?", (image,))
        self._add_labels(image, labels)

    def _add_labels(self, image: int, labels: Sequence[str]) -> None:
        self.change_many("INSERT INTO labels VALUES (?, ?, ?)", ((image, i, label) for i, label in enumerate(labels)))

    def move(self, seen: Sequence[ImageUpdate]) -> None:
        """Update known images whose path, times or labels have changed."""
        # All paths are cleared first, because two files may have swapped names and paths are unique.
        self.change_many("UPDATE images SET path = NULL WHERE id = ?", ((image.id,) for image in seen))
        for image in seen:
            state = image.state
            self.change(
                "UPDATE images SET root = ?, path = ?, size = ?, mtime_ns = ?, settled = ?, ctime_ns = ? WHERE id = ?",
                (image.root, image.path, state.size, state.mtime_ns, int(state.settled), state.ctime_ns, image.id),
            )
            self.set_labels(image.id, image.labels)
        self.set_shots((image.id, image.shot) for image in seen if image.shot is not None)

    def set_shots(self, shots: Iterable[tuple[int, Shot]]) -> None:
        """Set the dates and cameras of known images, by id."""
        self.change_many(
            "UPDATE images SET taken = ?, camera = ? WHERE id = ?",
            ((shot.taken, shot.camera, id_) for id_, shot in shots),
        )

    def remove(self, ids: Iterable[int]) -> None:
        """Delete images and their labels; their rows in the matrix become dead."""
        self.change_many("DELETE FROM images WHERE id = ?", ((id_,) for id_ in ids))

    def renumber(self, ids: Sequence[int]) -> None:
        """Give images, in the order of their old rows, the rows 0, 1, ..."""
        # ascending, so that no two images ever have the same row
        self.change_many("UPDATE images SET row = ? WHERE id = ?", enumerate(ids))

    def impossible_images(self) -> list[int]:
        """Return the ids of images with impossible values."""
        return [row[0] for row in self.rows(_IMPOSSIBLE)]

    # -- image folders ----------------------------------------------------------------------------------------------

    def roots(self) -> list[ImageFolder]:
        """Return (id, path, name) of each image folder."""
        return self.rows("SELECT id, path, name FROM roots ORDER BY id")

    def set_roots(self, roots: Sequence[ImageFolder]) -> None:
        """Set (id, path, name) of image folders; an id that is in use must keep its meaning."""
        # Paths are made different first: two may have been swapped, and they must be unique at every step.
        self.change_many("UPDATE roots SET path = ? WHERE id = ?", ((b"%d" % id_, id_) for id_, _, _ in roots))
        self.change_many(
            "INSERT INTO roots VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET path = excluded.path, "
            "name = excluded.name",
            roots,
        )

    # -- skipped files ----------------------------------------------------------------------------------------------

    def skipped(self) -> list[Skipped]:
        """Return every file that could not be used."""
        return [Skipped(*row) for row in self.rows("SELECT * FROM skipped ORDER BY root, path")]

    def count_skipped(self) -> int:
        """Return the number of skipped files."""
        return int(self.value("SELECT count(*) FROM skipped"))

    def add_skipped(self, files: Iterable[Skipped]) -> None:
        """Add skipped files, or update those that are listed already."""
        self.change_many(
            "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?, ?)",
            ((file.root, file.path, file.reason, file.size, file.mtime_ns, file.ctime_ns) for file in files),
        )

    def forget_skipped(self, files: Iterable[tuple[int | None, bytes | None]]) -> None:
        """Remove files that are images now, or are gone."""
        self.change_many("DELETE FROM skipped WHERE root = ? AND path = ?", files)


@lru_cache(maxsize=4096)
def _normalized_name(name: str) -> str:
    """Return a name in lower case, with single spaces between words."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name).casefold()))
