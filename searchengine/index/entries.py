"""A batch as rows of the catalog's tables: images, their labels, and files that were skipped. In a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from searchengine.index.catalog import Catalog
from searchengine.index.changes import FileState, ImageRow, Known, ReadyRow, Seen, Skipped

Place = tuple[int, bytes]  # root, path

_COLUMNS = (
    "root", "path", "row", "norm2", "crc", "content_hash", "size", "mtime_ns", "settled", "width", "height", "colour",
    "format", "id",
)  # fmt: skip
_INSERT = f"INSERT INTO images ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_UPDATE = f"UPDATE images SET {', '.join(f'{name} = ?' for name in _COLUMNS[:-1])} WHERE id = ?"  # noqa: S608

# Of a whole row each column is what the writer puts there; NULL where there is no file.
_ODD = """
SELECT id FROM images WHERE NOT (
    typeof(row) = 'integer' AND typeof(norm2) = 'real' AND typeof(crc) = 'integer'
    AND (path IS NULL OR typeof(path) = 'blob')
    AND (content_hash IS NULL OR (typeof(content_hash) = 'blob' AND length(content_hash) = 16))
    AND (size IS NULL OR (typeof(size) = 'integer' AND size >= 0))
    AND (mtime_ns IS NULL OR typeof(mtime_ns) = 'integer')
    AND (settled IS NULL OR settled IN (0, 1))
    AND (width IS NULL OR (typeof(width) = 'integer' AND width > 0))
    AND (height IS NULL OR (typeof(height) = 'integer' AND height > 0))
    AND (colour IS NULL OR colour GLOB '#[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]')
    AND (format IS NULL OR typeof(format) = 'text')
)
"""


def odd(catalog: Catalog) -> list[int]:
    """The ids of images of which the catalog says what cannot be."""
    return [row[0] for row in catalog.execute(_ODD)]


def known(catalog: Catalog) -> dict[Place, Known]:
    """Every image that has a file, by root and path."""
    labels: dict[int, tuple[str, ...]] = {}
    for image, label in catalog.execute("SELECT image, label FROM labels ORDER BY image, position"):
        labels[image] = (*labels.get(image, ()), label)
    return {
        (root, path): Known(id_, row, digest, FileState(size, mtime, bool(settled)), labels.get(id_, ()))
        for id_, root, path, row, digest, size, mtime, settled in catalog.execute(
            "SELECT id, root, path, row, content_hash, size, mtime_ns, settled FROM images WHERE path IS NOT NULL"
        )
    }


def note_roots(catalog: Catalog, roots: Sequence[tuple[int, bytes, str]]) -> None:
    """The image folders: id, path, name; ids that are in use keep their meaning."""
    # two may have changed places, and no two may have the same, not even for a moment
    catalog.execute_many("UPDATE roots SET path = ? WHERE id = ?", ((b"%d" % id_, id_) for id_, _, _ in roots))
    catalog.execute_many(
        "INSERT INTO roots VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET path = excluded.path, name = excluded.name",
        roots,
    )


def store(catalog: Catalog, image: ImageRow, row: int, norm2: float, crc: int) -> None:
    """A new image, or the new content of one that is known, whose feature is that row of the matrix."""
    values = (
        image.root, image.path, row, norm2, crc, image.content_hash, image.state.size, image.state.mtime_ns,
        int(image.state.settled), image.width, image.height, image.colour, image.format, image.id,
    )  # fmt: skip
    inserted = catalog.execute(_UPDATE if image.replaces else _INSERT, values).lastrowid
    id_ = image.id if image.replaces else inserted
    assert id_ is not None
    label(catalog, id_, image.labels)


def store_ready(catalog: Catalog, image: ReadyRow, id_: int, row: int, norm2: float, crc: int) -> None:
    """What stands behind a ready-made feature."""
    state = image.state
    catalog.execute(
        _INSERT,
        (
            image.root, image.path, row, norm2, crc, image.content_hash, state and state.size, state and state.mtime_ns,
            state and int(state.settled), image.width, image.height, image.colour, image.format, id_,
        ),
    )  # fmt: skip
    label(catalog, id_, image.labels)


def next_id(catalog: Catalog) -> int:
    """The id that the next new image gets; none is ever given twice."""
    return int(catalog.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()[0]) + 1


def label(catalog: Catalog, id_: int, labels: Sequence[str]) -> None:
    """The labels of an image, in place of those that it had."""
    catalog.execute("DELETE FROM labels WHERE image = ?", (id_,))
    catalog.execute_many("INSERT INTO labels VALUES (?, ?, ?)", ((id_, i, text) for i, text in enumerate(labels)))


def note_seen(catalog: Catalog, seen: Sequence[Seen]) -> None:
    """Known images that were found again, maybe elsewhere or with other labels."""
    # First all out of the way: two files may have swapped names, and a path stands but once.
    catalog.execute_many("UPDATE images SET path = NULL WHERE id = ?", ((image.id,) for image in seen))
    for image in seen:
        state = image.state
        catalog.execute(
            "UPDATE images SET root = ?, path = ?, size = ?, mtime_ns = ?, settled = ? WHERE id = ?",
            (image.root, image.path, state.size, state.mtime_ns, int(state.settled), image.id),
        )
        label(catalog, image.id, image.labels)


def note_skipped(catalog: Catalog, skipped: Iterable[Skipped]) -> None:
    """Files that could not be used."""
    catalog.execute_many(
        "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?)",
        ((file.root, file.path, file.reason, file.size, file.mtime_ns) for file in skipped),
    )


def forget_skipped(catalog: Catalog, files: Iterable[Place]) -> None:
    """Strike files off the list of those skipped: they are images now, or gone."""
    catalog.execute_many("DELETE FROM skipped WHERE root = ? AND path = ?", files)


def remove(catalog: Catalog, ids: Iterable[int]) -> None:
    """Images go, and their labels with them; their rows of the matrix are dead from now on."""
    catalog.execute_many("DELETE FROM images WHERE id = ?", ((id_,) for id_ in ids))
