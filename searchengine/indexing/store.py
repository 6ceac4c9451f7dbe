"""Where the readings of a run go: each becomes a new image, a changed, moved or touched one, or a skipped file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.index.catalog import now
from searchengine.index.types import Batch, FileState, ImageRow, Known, Seen, Skipped, Twin
from searchengine.index.writer import IndexWriter
from searchengine.indexing.pipeline import Picture, Reading
from searchengine.indexing.rebuild import OldIds
from searchengine.indexing.scan import Key, Root


class Tally(Protocol):
    """What is counted."""

    added: int
    changed: int
    moved: int
    unchanged: int
    skipped: int
    vanished: int


class Store:
    """One index being written to; it comes into being with its first batch, so that an empty run leaves no index."""

    def __init__(self, folder: Path, writer: IndexWriter | None, old_ids: OldIds | None = None) -> None:
        self.folder = folder
        self.writer = writer
        self.old_ids = old_ids
        self.started = now()
        self.known_content: set[bytes] = set()
        self._held: list[Skipped] = []  # until there is an index to note them in
        self._roots: list[Root] = []
        self._total = 0
        self._manifest: Callable[[], dict[str, str]] | None = None
        self._waiting: dict[bytes, list[int]] = {}  # content hash -> places in the batch that its feature goes to
        self._pictures: dict[bytes, Picture] = {}  # of this batch

    def known(self) -> dict[Key, Known]:
        """What the index holds so far."""
        known = self.writer.known() if self.writer else {}
        self.known_content = {image.content_hash for image in known.values()}
        if self.old_ids is not None:
            self.old_ids.used |= {image.id for image in known.values()}
        return known

    def skipped(self) -> dict[Key, Skipped]:
        """What was skipped so far."""
        return self.writer.skipped() if self.writer else {}

    def manifest(self, key: str) -> str | None:
        """One entry of the manifest, if there is an index."""
        return self.writer.catalog.get(key) if self.writer else None

    def count(self) -> int:
        """Images in the index."""
        if self.writer is None:
            return 0
        return self.writer.count()

    def begin(self, roots: list[Root], manifest: Callable[[], dict[str, str]], total: int) -> None:
        """Note what the run is about; ``manifest`` is asked, when the first batch is there, what a new index says."""
        self._roots, self._manifest, self._total = roots, manifest, total
        if self.writer is not None:
            self._note_roots()

    def _note_roots(self) -> None:
        assert self.writer is not None
        recorded = self.writer.roots()
        wanted = [(root.id, bytes(root.folder), root.name) for root in self._roots]
        if recorded != wanted:
            self.writer.set_roots(wanted)

    # -- readings ---------------------------------------------------------------------------------------------------

    def has_lost(self, reading: Reading) -> bool:
        """Whether its content was known when it was read, and has been overwritten since by a batch."""
        digest = reading.content_hash
        if digest is None or reading.reason is not None or reading.picture is not None or digest in self._pictures:
            return False
        return self.writer is None or self.writer.twin(digest) is None

    def take(
        self,
        reading: Reading,
        batch: Batch,
        pixels: list[NDArray[np.uint8]],
        missing: dict[Key, Known],
        gone: dict[bytes, list[Key]],
        tally: Tally,
    ) -> None:
        """Sort one reading into the batch; new content adds to ``pixels`` what must be embedded."""
        candidate, known = reading.candidate, reading.candidate.known
        if reading.vanished:
            if known is not None:
                missing[candidate.key] = known
            else:
                tally.vanished += 1
            return
        if reading.reason is not None:
            state = None if reading.lost else reading.state  # what a passing fault kept from us is asked for again
            size, mtime = (state.size, state.mtime_ns) if state else (None, None)
            batch.skipped.append(Skipped(*candidate.key, reading.reason, size, mtime))
            tally.skipped += 1
            if known is not None and not reading.lost:
                missing[candidate.key] = known  # what it was indexed for is not there any more
            return
        assert reading.state is not None
        assert reading.content_hash is not None
        if known is not None and known.content_hash == reading.content_hash:
            batch.seen.append(Seen(known.id, *candidate.key, reading.state, candidate.labels))
            tally.unchanged += 1
            return
        if known is None and self._moved(reading, reading.state, batch, missing, gone):
            tally.moved += 1
            return
        self._store(reading, reading.content_hash, reading.state, batch, pixels)
        if known is None:
            tally.added += 1
        else:
            tally.changed += 1

    def _moved(
        self,
        reading: Reading,
        state: FileState,
        batch: Batch,
        missing: dict[Key, Known],
        gone: dict[bytes, list[Key]],
    ) -> bool:
        """Whether it is an image that is missing elsewhere: then it keeps its id."""
        places = gone.get(reading.content_hash or b"", [])
        while places:
            image = missing.pop(places.pop(), None)
            if image is not None:
                candidate = reading.candidate
                batch.seen.append(Seen(image.id, *candidate.key, state, candidate.labels))
                return True
        return False

    def _store(
        self,
        reading: Reading,
        content_hash: bytes,
        state: FileState,
        batch: Batch,
        pixels: list[NDArray[np.uint8]],
    ) -> None:
        """Put it into the batch; its feature is a twin's, or is still to come."""
        candidate, known = reading.candidate, reading.candidate.known
        picture: Picture | Twin | None = reading.picture
        place = len(batch.stored)
        twin = self.writer.twin(content_hash) if self.writer and content_hash in self.known_content else None
        if twin is not None:
            batch.features.append(twin.feature)
            picture = twin
        elif content_hash in self._pictures:
            picture = self._pictures[content_hash]
            if content_hash in self._waiting:
                self._waiting[content_hash].append(place)
                batch.features.append(np.empty(0, dtype=np.float32))  # filled by ``place``
            else:
                batch.features.append(self._feature_in(batch, content_hash))
        else:
            assert reading.picture is not None
            pixels.append(reading.picture.pixels)
            self._waiting[content_hash] = [place]
            self._pictures[content_hash] = reading.picture
            batch.features.append(np.empty(0, dtype=np.float32))
        assert picture is not None
        id_ = known.id if known is not None else self._old_id(candidate.file, content_hash)
        batch.stored.append(
            ImageRow(
                id=id_,
                root=candidate.root,
                path=candidate.path,
                content_hash=content_hash,
                state=state,
                width=picture.width,
                height=picture.height,
                colour=picture.colour,
                format=picture.format,
                labels=candidate.labels,
                replaces=known is not None,
            )
        )

    def _old_id(self, file: bytes, content_hash: bytes) -> int | None:
        return None if self.old_ids is None else self.old_ids.claim(file, content_hash)

    @staticmethod
    def _feature_in(batch: Batch, content_hash: bytes) -> NDArray[np.float32]:
        place = next(i for i, image in enumerate(batch.stored) if image.content_hash == content_hash)
        return batch.features[place]

    def place(self, batch: Batch, features: NDArray[np.float32]) -> None:
        """Put (n, d) features, one for each content that waited, in the order in which it came."""
        for places, feature in zip(self._waiting.values(), features, strict=True):
            for place in places:
                batch.features[place] = feature
        self._waiting.clear()

    # -- commits ----------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch, note: str) -> None:
        """Make a batch part of the index."""
        if self.writer is None:
            self._create(batch)
        if self.writer is None:
            return  # nothing but skipped files so far: no index yet
        self.writer.commit(batch, {"run": note})
        self.known_content.update(image.content_hash for image in batch.stored if image.content_hash is not None)
        self._pictures.clear()

    def _create(self, batch: Batch) -> None:
        if not batch.stored or self._manifest is None:
            self._held += batch.skipped
            return
        last_id = self.old_ids.last if self.old_ids else 0
        self.writer = IndexWriter.create(
            self.folder, self._manifest(), dimension=len(batch.features[0]), last_id=last_id
        )
        self._note_roots()
        batch.skipped[:0] = self._held
        self._held = []

    def remove(self, ids: list[int]) -> None:
        """Take images out."""
        if self.writer is not None:
            self.writer.commit(Batch(removed=ids))

    def finish(self, forgotten: Iterable[Key]) -> int:
        """End the run in the manifest, compact if it pays; returns how many images the index holds."""
        if self.writer is None:
            return 0
        forgotten = list(forgotten)
        if forgotten:
            self.writer.forget_skipped(forgotten)
        with contextlib.suppress(IndexingError):  # no room for it: the next run may have some
            self.writer.compact_if_sparse()
        if self.writer.catalog.get("run") is not None:
            self.writer.set({"run": None})
        return self.count()

    def back_up(self) -> None:
        """Keep a copy of the catalog: see ``IndexWriter.back_up``."""
        if self.writer is not None:
            self.writer.back_up()

    def close(self) -> None:
        """Close the writer."""
        if self.writer is not None:
            self.writer.close()
