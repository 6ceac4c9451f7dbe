"""Turns the files that are read into changes of the index, and commits them in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import timestamp
from searchengine.errors import IndexingError
from searchengine.index.database import on_error
from searchengine.index.protocol import Writer
from searchengine.index.storage import Storage
from searchengine.index.types import (
    Batch,
    ImageFolder,
    ImageRow,
    ImageUpdate,
    IndexedImage,
    Place,
    Skipped,
    Twin,
    run_note,
)
from searchengine.indexing.model import size_remark
from searchengine.indexing.reading import Picture, Reading
from searchengine.indexing.rebuild import OldIds
from searchengine.indexing.scan import Plan, Root
from searchengine.progress import Say


class RunIndex:
    """The index that a run writes. It is created with the first batch, so a run without images leaves no index."""

    def __init__(self, storage: Storage, writer: Writer | None, old_ids: OldIds | None, say: Say) -> None:
        self.writer = writer
        self.old_ids = old_ids
        self.known_content: set[bytes] = set()
        self._storage, self._say = storage, say
        self._started = timestamp()
        self._held: list[Skipped] = []  # recorded once there is an index
        self._roots: list[ImageFolder] = []
        self._manifest: Callable[[], dict[str, str]] | None = None

    def known(self) -> dict[Place, IndexedImage]:
        """Return the images of the index."""
        known = self.writer.known() if self.writer else {}
        self.known_content = {image.content_hash for image in known.values()}
        if self.old_ids is not None:
            self.old_ids.used |= {image.id for image in known.values()}
        return known

    def skipped(self) -> dict[Place, Skipped]:
        """Return the skipped files that the index records."""
        return self.writer.skipped() if self.writer else {}

    def roots(self) -> list[ImageFolder]:
        """Return the image folders of the index."""
        return self.writer.roots() if self.writer else []

    def manifest(self, key: str) -> str | None:
        """Return an entry of the manifest, if there is an index."""
        return self.writer.manifest(key) if self.writer else None

    def count(self) -> int:
        """Return the number of images in the index."""
        return self.writer.count() if self.writer else 0

    def twin(self, content_hash: bytes) -> Twin | None:
        """Return an image with the same content, if there is one."""
        return self.writer.twin(content_hash) if self.writer and content_hash in self.known_content else None

    def old_id(self, file: bytes, content_hash: bytes) -> int | None:
        """Return the id that a new image had in the index that is being replaced, if any."""
        return None if self.old_ids is None else self.old_ids.claim(file, content_hash)

    def begin(self, roots: list[Root], choices: dict[str, str], made_by: Callable[[], dict[str, str]]) -> None:
        """Record the image folders and the choices of the run.

        Args:
            roots: the image folders.
            choices: entries of the manifest that may change without changing features.
            made_by: returns the other entries; called only for a new index.
        """
        self._roots = [(root.id, bytes(root.folder), root.name) for root in roots]
        self._manifest = lambda: {**made_by(), **choices}
        if self.writer is not None:
            self._record_roots(self.writer)
            if any(self.manifest(key) != value for key, value in choices.items()):
                self.writer.set({**choices})

    def _record_roots(self, writer: Writer) -> None:
        if writer.roots() != self._roots:
            writer.set_roots(self._roots)

    def commit(self, batch: Batch, done: int, total: int) -> None:
        """Commit a batch to the index, after ``done`` of ``total`` files have been read."""
        if self.writer is None:
            if not batch.stored:
                self._held += batch.skipped
                return  # only skipped files so far, so there is no index yet
            dimension = len(batch.features[0])
            self.writer = self._created(dimension)
            if remark := size_remark(dimension, total, self._storage.folder):
                self._say(remark)
            batch.skipped[:0] = self._held
            self._held = []
        self.writer.commit(batch, {"run": run_note(done, total, self._started)})
        self.known_content.update(image.content_hash for image in batch.stored if image.content_hash is not None)

    def _created(self, dimension: int) -> Writer:
        assert self._manifest is not None
        last_id = self.old_ids.last if self.old_ids else 0
        writer = self._storage.create(self._manifest(), dimension=dimension, last_id=last_id, say=self._say)
        with on_error(writer.close):
            self._record_roots(writer)
        return writer

    def set(self, key: str, value: str | None) -> None:
        """Write one entry of the manifest, or remove it, if there is an index and the entry differs."""
        if self.writer is not None and self.manifest(key) != value:
            self.writer.set({key: value})

    def remove(self, ids: list[int]) -> None:
        """Remove images."""
        if self.writer is not None:
            self.writer.commit(Batch(removed=ids))

    def finish(self, forgotten: Iterable[Place]) -> None:
        """Mark the run as finished in the manifest, forget skipped files that are gone, and compact if it pays."""
        if self.writer is None:
            return
        forgotten = list(forgotten)
        if forgotten:
            self.writer.forget_skipped(forgotten)
        with contextlib.suppress(IndexingError):  # the disk is too full for it; the next run tries again
            self.writer.compact_if_sparse()
        self.set("run", None)

    def back_up(self) -> None:
        """Back up the catalog; see ``Writer.back_up``."""
        if self.writer is not None:
            self.writer.back_up()

    def close(self) -> None:
        """Close the writer."""
        if self.writer is not None:
            self.writer.close()


class Changes:
    """The changes that a run collects: the current batch, and the pictures waiting for the model."""

    def __init__(self, store: RunIndex, plan: Plan) -> None:
        self.missing = dict(plan.missing)
        self.batch = Batch(seen=list(plan.seen), skipped=list(plan.unreadable))
        self._store = store
        self._missing_content: dict[bytes, list[Place]] = {}  # content hash -> where it is missing
        for place, image in plan.missing.items():
            self._missing_content.setdefault(image.content_hash, []).append(place)
        self._begin_batch()

    def _begin_batch(self) -> None:
        # Keys are content hashes of this batch.
        self._pictures: dict[bytes, Picture] = {}
        self._features: dict[bytes, NDArray[np.float32]] = {}  # of pictures that were embedded
        self._waiting: dict[bytes, list[int]] = {}  # the positions in the batch that need the feature

    # -- one reading --------------------------------------------------------------------------------------------------

    def content_is_gone(self, reading: Reading) -> bool:
        """Return whether the index had the content when the file was read, but a later batch replaced the image."""
        digest = reading.content_hash
        if digest is None or reading.reason is not None or reading.picture is not None or digest in self._pictures:
            return False
        return self._store.twin(digest) is None

    def take(self, reading: Reading) -> str:
        """Add to the batch what a reading means for the index, and return the field of ``Summary`` that counts it.

        The field is "" for an indexed image whose file has vanished: it counts as missing at the end of the run.
        """
        candidate, known, digest = reading.candidate, reading.candidate.known, reading.content_hash
        # After a temporary fault the image stays in the index, and the next run reads the file again.
        if known is not None and (reading.vanished or (reading.reason is not None and not reading.lost)):
            self.missing[candidate.place] = known
        if reading.vanished:
            return "vanished" if known is None else ""
        if reading.reason is not None:
            state = None if reading.lost else reading.state
            times = (state.size, state.mtime_ns, state.ctime_ns) if state else (None, None, None)
            self.batch.skipped.append(Skipped(*candidate.place, reading.reason, *times))
            return "skipped"
        assert reading.state is not None
        assert digest is not None
        places = self._missing_content.get(digest)
        if known is not None and known.content_hash == digest:
            image, counted = known, "moved" if candidate.renamed else "unchanged"
        elif known is None and places:
            image, counted = self.missing.pop(places.pop()), "moved"
        else:
            self.batch.stored.append(self._image(reading, digest))
            self.batch.features.append(self._feature(digest, reading.picture))
            return "added" if known is None else "changed"
        self.batch.seen.append(ImageUpdate(image.id, *candidate.place, reading.state, candidate.labels, reading.shot))
        return counted

    def _image(self, reading: Reading, digest: bytes) -> ImageRow:
        candidate, known = reading.candidate, reading.candidate.known
        picture = reading.picture or self._store.twin(digest) or self._pictures[digest]
        return ImageRow(
            id=known.id if known is not None else self._store.old_id(candidate.file, digest),
            root=candidate.root,
            path=candidate.path,
            labels=candidate.labels,
            content_hash=digest,
            state=reading.state,
            width=picture.width,
            height=picture.height,
            colour=picture.colour,
            format=picture.format,
            shot=reading.shot,
            replaces=known is not None,
        )

    def _feature(self, digest: bytes, picture: Picture | None) -> NDArray[np.float32]:
        """Return the feature of known content, or an empty array that ``embed`` replaces."""
        twin = self._store.twin(digest)
        if twin is not None:
            return twin.feature
        if digest in self._features:
            return self._features[digest]
        if digest not in self._waiting:
            assert picture is not None
            self._pictures[digest] = picture
            self._waiting[digest] = []
        self._waiting[digest].append(len(self.batch.stored) - 1)
        return np.empty(0, dtype=np.float32)

    # -- a batch ------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """The number of pictures waiting for the model."""
        return len(self._waiting)

    def embed(self, model: Callable[[list[Picture]], NDArray[np.float32]]) -> int:
        """Embed the n waiting pictures, (n, d) float32, and return n."""
        features = model([self._pictures[digest] for digest in self._waiting])
        for (digest, positions), feature in zip(self._waiting.items(), features, strict=True):
            self._features[digest] = feature
            for position in positions:
                self.batch.features[position] = feature
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def commit(self, done: int, total: int) -> None:
        """Commit the batch and start a new one."""
        if len(self.batch):
            self._store.commit(self.batch, done, total)
        self.batch = Batch()
        self._begin_batch()
