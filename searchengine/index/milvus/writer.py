"""A Milvus collection, open for writing. A batch writes rows that no reader sees, then makes them valid at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from searchengine.address import MilvusAddress, milvus_parameters
from searchengine.derived import timestamp
from searchengine.errors import (
    IndexDamagedError,
    IndexError_,
    IndexingError,
    IndexNotFoundError,
    IndexUnavailableError,
)
from searchengine.index.metrics import EUCLIDEAN
from searchengine.index.milvus import schema
from searchengine.index.milvus.connection import STRONG, Connection, Row
from searchengine.index.milvus.lease import Lease
from searchengine.index.milvus.schema import ABOUT, EVERYTHING_BUT_FEATURE, FEATURE, About
from searchengine.index.protocol import Writer
from searchengine.index.types import Batch, ImageFolder, IndexedImage, Place, Skipped, Twin
from searchengine.progress import Say

_PATIENCE = 600.0  # seconds that a run waits for a server that is away
_TIMEOUT = 30.0  # seconds that a write may take
_FLUSH = 120.0  # seconds that Milvus may take to close its segments
_TRIES = 5  # attempts to write the row for the whole
_SETTLES = 0.25  # seconds; longer than readers use a snapshot
_ROWS_AT_ONCE = 1000  # rows that are read to be changed


@dataclass(frozen=True, slots=True)
class _Stored:
    """The part of an image's row that the writer keeps in memory."""

    place: int
    norm2: float
    content: bytes

    @property
    def free(self) -> int:
        """The other place of the image."""
        return self.place ^ 1


class MilvusWriter(Writer):
    """Writes to one collection. The caller holds the lock of this machine.

    All methods wait for a server that is away. After ten minutes they raise IndexUnavailableError, and the index is as
    of the last commit. ``Writer`` documents the methods that have no docstring here.
    """

    def __init__(self, address: MilvusAddress, about: About, connection: Connection) -> None:
        self.address = address
        self._about = about
        self._connection = connection
        self._lease = Lease(connection)
        try:
            self._stored: dict[int, _Stored] = {}
            self._by_content: dict[bytes, int] = {}
            self._skipped: set[Place] = set()
            self._recover()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        address: MilvusAddress,
        manifest: Mapping[str, str],
        *,
        dimension: int,
        last_id: int = 0,
        say: Say | None = None,
    ) -> MilvusWriter:
        """Create an empty index; IndexError_ if another program owns a collection of that name."""
        connection, options = _connection(address, say), address.options
        about = About(
            generation=0,
            dimension=dimension,
            images=0,
            last_id=last_id,
            squared=0.0,
            updated=timestamp(),
            measured=schema.measured_by(manifest.get("metric") or EUCLIDEAN),
            index_type=options.index_type,
            index_params=schema.INDEX_PARAMETERS.get(options.index_type, {}) | milvus_parameters(options.index_params),
            entries={**manifest, "created": timestamp()},
        )
        _drop_unfinished(connection)
        connection.ask(
            lambda client: schema.create_collections(
                client, address.collection, about, partitions=options.partitions, timeout=_TIMEOUT
            )
        )
        connection.put_about({ABOUT: about.to_text()})
        return cls(address, about, connection)

    @classmethod
    def open(cls, address: MilvusAddress, say: Say | None = None) -> MilvusWriter:
        """Open an existing index; IndexNotFoundError, IndexDamagedError."""
        connection = _connection(address, say)
        text = connection.about()
        if text is None:
            raise connection.missing()
        return cls(address, About.from_text(text, address), connection)

    def _recover(self) -> None:
        """Read the rows of all images, and remove what a killed run has left."""
        text = self._connection.about()  # read again, now that no other run writes
        if text is not None:
            self._about = About.from_text(text, self.address)
        self._drop_uncommitted()
        self._skipped = set(self.skipped())
        superseded = []
        fields = ("id", "born", "content", "norm2")
        rows = self._connection.each_row("place >= 0", fields)
        for _, of_image in itertools.groupby(rows, key=lambda row: int(row["id"])):
            *older, row = sorted(of_image, key=lambda row: int(row["born"]))
            superseded += [int(other["place"]) for other in older]
            self._remember(row)
        self._delete(superseded)
        if len(self._stored) != self._about.images:
            # a removal was committed but not carried out; the run will find the file missing again
            squared = sum(stored.norm2 for stored in self._stored.values())
            self._write_about(replace(self._about, images=len(self._stored), squared=squared))

    def _remember(self, row: Mapping[str, Any]) -> None:
        id_, content = int(row["id"]), bytes.fromhex(row["content"])
        self._forget(id_)
        self._stored[id_] = _Stored(int(row["place"]), float(row["norm2"]), content)
        if content:
            self._by_content.setdefault(content, id_)

    def _forget(self, id_: int) -> None:
        stored = self._stored.pop(id_, None)
        if stored is not None and self._by_content.get(stored.content) == id_:
            del self._by_content[stored.content]

    # -- reading ------------------------------------------------------------------------------------------------------

    def known(self) -> dict[Place, IndexedImage]:
        images = {}
        for row in self._connection.each_row("root >= 0", EVERYTHING_BUT_FEATURE):
            image, path = schema.indexed_image(row), schema.path_of(row)
            if image is not None and path is not None:
                images[int(row["root"]), path] = image
        return images

    def skipped(self) -> dict[Place, Skipped]:
        files = map(schema.skipped_of, self._connection.skipped())
        return {(file.root, file.path): file for file in files}

    def roots(self) -> list[ImageFolder]:
        return self._about.image_folders

    def manifest(self, key: str) -> str | None:
        return self._about.entries.get(key)

    def count(self) -> int:
        return len(self._stored)

    def twin(self, content_hash: bytes) -> Twin | None:
        id_ = self._by_content.get(content_hash)
        if id_ is None:
            return None
        rows = self._rows([self._stored[id_].place])
        if not rows:
            raise IndexDamagedError(f"{self.address} lacks image {id_}. Index the images into another collection.")
        row = rows[0]
        feature = np.array(row[FEATURE], dtype=np.float32)
        return Twin(feature, row["width"], row["height"], row["facts"]["colour"], row["format"])

    # -- writing ------------------------------------------------------------------------------------------------------

    def set_roots(self, roots: Iterable[ImageFolder]) -> None:
        by_id = {root[0]: root for root in self._about.roots} | {
            id_: (id_, path.hex(), name) for id_, path, name in roots
        }
        self._write_about(self._next(roots=tuple(by_id[id_] for id_ in sorted(by_id))))

    def set(self, values: Mapping[str, str | None]) -> None:
        self._write_about(self._next(entries=self._entries(values)))

    def commit(self, batch: Batch, manifest: Mapping[str, str | None] | None = None) -> None:
        generation = self._about.generation + 1
        try:
            rows = self._changed_rows(batch, generation) | self._new_rows(batch, generation)
            self._connection.put(list(rows.values()), self._about.dimension)
            if self._connection.count(f"born == {generation}") != len(rows):
                raise self._not_held()
        except IndexUnavailableError:
            raise  # the next run deletes what was written
        except Exception:
            self._drop_uncommitted()
            raise
        self._skipped |= {(file.root, file.path) for file in batch.skipped}
        self._connection.put_about(
            {schema.skipped_key(file.root, file.path): schema.skipped_text(file) for file in batch.skipped}
        )
        superseded = [self._stored[id_] for id_ in {*rows, *batch.removed} if id_ in self._stored]
        norms2 = sum(row["norm2"] for row in rows.values()) - sum(stored.norm2 for stored in superseded)
        self._write_about(
            self._next(
                entries=self._entries(manifest or {}),
                last_id=max([self._about.last_id, *rows]),
                images=len((self._stored.keys() | rows.keys()) - {*batch.removed}),
                squared=self._about.squared + norms2,
            )
        )
        for id_ in (*batch.removed, *rows):  # all first, because two images may have swapped contents
            self._forget(id_)
        for row in rows.values():
            self._remember(row)
        self._delete([stored.place for stored in superseded])
        self._delete_skipped([(image.root, image.path) for image in batch.stored])
        self._delete_skipped([(image.root, image.path) for image in batch.seen])

    def _new_rows(self, batch: Batch, generation: int) -> dict[int, Row]:
        """Return, by id, the rows of new images and of known ones with new content; IndexingError."""
        rows: dict[int, Row] = {}
        last_id = self._about.last_id
        for image, feature in zip(batch.stored, batch.features, strict=True):
            id_ = image.id if image.id is not None else last_id + 1
            last_id = max(last_id, id_)
            known = self._stored.get(id_)
            if (known is not None) != image.replaces:
                raise IndexingError(f"Image {id_} is {'already' if known else 'not'} in the index.")
            place = 2 * id_ if known is None else known.free
            rows[id_] = {**schema.image_row(image, id_, feature), "place": place, "born": generation}
        return rows

    def _changed_rows(self, batch: Batch, generation: int) -> dict[int, Row]:
        """Return, by id, the rows of known images that have changed, in their free places."""
        changed = {update.id for update in batch.seen} | {id_ for id_, _ in batch.shots}
        places = [self._stored[id_].place for id_ in sorted(changed) if id_ in self._stored]
        rows = {int(row["id"]): row for row in self._rows(places)}
        for update in batch.seen:
            rows[update.id] = schema.moved_row(rows[update.id], update)
        for id_, shot in batch.shots:
            if id_ in rows:
                rows[id_] = schema.dated_row(rows[id_], shot)
        return {id_: {**row, "place": self._stored[id_].free, "born": generation} for id_, row in rows.items()}

    def forget_skipped(self, files: Iterable[Place]) -> None:
        self._delete_skipped(files)

    def compact_if_sparse(self) -> None:
        """Do nothing, because Milvus compacts by itself."""

    def back_up(self) -> None:
        """Let Milvus build its index over the new rows; backups are made with Milvus's own tools."""
        self._connection.ask(lambda client: client.flush(self.address.collection, timeout=_FLUSH))

    def close(self) -> None:
        self._lease.release()
        self._connection.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _next(self, **values: Any) -> About:
        return replace(self._about, generation=self._about.generation + 1, updated=timestamp(), **values)

    def _entries(self, values: Mapping[str, str | None]) -> dict[str, str]:
        merged = {**self._about.entries, **values}
        return {key: value for key, value in merged.items() if value is not None}

    def _write_about(self, about: About) -> None:
        """Publish a commit with a single write, and wait until reads see it."""
        text = about.to_text()
        for _ in range(_TRIES):
            self._lease.check()
            self._connection.put_about({ABOUT: text})
            if self._connection.about() == text:
                self._about = about
                return
        raise self._not_held()

    def _not_held(self) -> IndexingError:
        return IndexingError(f"{self.address} does not return what was written to it. Try again.")

    def _drop_uncommitted(self) -> None:
        """Delete rows that were written but not committed."""
        where = f"born > {self._about.generation}"
        self._delete([int(row["place"]) for row in self._connection.each_row(where, ("born",))])

    def _delete(self, places: Sequence[int]) -> None:
        if places:
            time.sleep(_SETTLES)  # lets all but slow readers finish with the previous commit
            self._connection.delete(places)
            self._connection.count("place < 0")  # waits until the query nodes have seen the deletion

    def _delete_skipped(self, files: Iterable[object]) -> None:
        gone = self._skipped.intersection(files)
        if gone:
            self._connection.delete_about([schema.skipped_key(*file) for file in gone])
            self._skipped -= gone
            self._connection.about()  # waits in the same way

    def _rows(self, places: Sequence[int]) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(places), _ROWS_AT_ONCE):
            where = f"place in {[*places[start : start + _ROWS_AT_ONCE]]}"
            rows += self._connection.each_row(where, (*EVERYTHING_BUT_FEATURE[1:], FEATURE))
        return rows


def _connection(address: MilvusAddress, say: Say | None) -> Connection:
    """Return a connection for a run: it sees everything written so far, and waits for a server that is away."""
    timeout = max(_TIMEOUT, address.options.timeout)
    return Connection(address, consistency=STRONG, timeout=timeout, patience=_PATIENCE, say=say)


def _drop_unfinished(connection: Connection) -> None:
    """Drop the collections of a run that was killed while it created the index.

    IndexError_ if they belong to another program, or if there is an index already.
    """
    for name in (connection.address.collection, schema.about_name(connection.address.collection)):
        if not connection.ask(lambda client: client.has_collection(name, timeout=_TIMEOUT)):  # noqa: B023
            continue
        described = connection.ask(lambda client: client.describe_collection(name, timeout=_TIMEOUT))  # noqa: B023
        if described["description"] != schema.MARK:
            raise IndexError_(
                f"{connection.address.server} has a collection {name} that this program did not make. Choose another "
                "name: --index-dir milvus://HOST:PORT/COLLECTION."
            )
        if name == connection.address.collection:
            try:
                text = connection.about()
            except IndexNotFoundError:
                text = None
            if text is not None:
                raise IndexError_(f"There is already an index at {connection.address}.")
        connection.ask(lambda client: client.drop_collection(name, timeout=_TIMEOUT))  # noqa: B023
