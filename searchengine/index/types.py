"""The records that an index returns, and those that a run gives it to store."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import FileGoneError
from searchengine.files import parse_json, read_regular
from searchengine.images.metadata import Shot
from searchengine.index.metrics import score

ImageFolder = tuple[int, bytes, str]  # id, path, name
Place = tuple[int, bytes]  # where a file is: the id of its image folder, and its path in that folder


def content_hash(data: bytes) -> bytes:
    """Return a hash that identifies the content of a file: BLAKE2b, 128 bits."""
    return hashlib.blake2b(data, digest_size=16).digest()


# -- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """One image in the results of a search.

    Attributes:
        rank: its place in the results, from 1.
        distance: in the metric of the search; smaller is nearer.
        score: see ``metrics.score``; larger is nearer.
        record: the record of the image at the time of the search.
        stands_for: how many images this hit represents: itself, and the copies or near-duplicates folded into it.
    """

    rank: int
    id: int
    path: str
    distance: float
    score: float
    label: str | None
    record: ImageRecord = field(repr=False, compare=False)
    stands_for: int = 1

    @classmethod
    def ranked(cls, images: Iterable[tuple[ImageRecord, float]], metric: str, *, normalized: bool) -> list[Hit]:
        """Return hits for images with their distances, which must be in order."""
        scored = ((image, distance, score(metric, distance, normalized=normalized)) for image, distance in images)
        return [
            cls(rank, image.id, image.path, distance, score_, image.label, image)
            for rank, (image, distance, score_) in enumerate(scored, 1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but the record, ready for JSON."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "record"}


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the catalog holds about one image.

    ``path`` is for display: relative to the image folder, ``/``-separated, undecodable bytes replaced. Open ``file``
    instead. ``width`` and ``height`` are the pixels of the upright image, ``colour`` is its average as ``#rrggbb``,
    ``size`` is in bytes, and ``content_hash`` is the BLAKE2b-128 of the file in lower-case hex. These are None for a
    row that was not made from an image file.
    """

    id: int
    path: str
    file: Path | None
    labels: tuple[str, ...]
    width: int | None
    height: int | None
    colour: str | None
    size: int | None
    format: str | None
    content_hash: str | None

    @property
    def label(self) -> str | None:
        """The first label, or None."""
        return self.labels[0] if self.labels else None

    @property
    def has_picture(self) -> bool:
        """Whether it was made from an image file; imported features have no file, or only a path."""
        return self.file is not None and self.content_hash is not None

    @property
    def has_file(self) -> bool:
        """Whether its file exists and can be read."""
        if self.file is None:
            return False
        try:
            return stat.S_ISREG(self.file.stat().st_mode) and os.access(self.file, os.R_OK)
        except (OSError, ValueError):
            return False

    def existing_file(self) -> Path:
        """Return its file if that can be read; FileGoneError."""
        if self.file is None or not self.has_file:
            raise self._gone()
        return self.file

    def read(self) -> bytes:
        """Return the bytes of its file; FileGoneError."""
        try:
            return read_regular(self.existing_file())
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> FileGoneError:
        if not self.has_picture:
            return FileGoneError(f"“{self.path}” is an imported feature, so there is no picture of it.")
        return FileGoneError(
            f"“{self.path}” is in the index, but its file is no longer there. If you moved the photos, give their new "
            "folder with --images-dir or SEARCHENGINE_IMAGES_DIR. If you deleted them, index the folder again."
        )

    @classmethod
    def removed(cls, id_: int) -> ImageRecord:
        """Return a placeholder for an image that was removed after the state being searched was read."""
        return cls(id_, f"#{id_}", None, (), None, None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A run that has read ``done`` of ``total`` files and has not finished."""

    done: int
    total: int
    active: bool  # False if it was killed; the same command resumes it


def run_note(done: int, total: int, started: str) -> str:
    """Return the manifest entry ``run`` of a run that has not finished."""
    return json.dumps({"done": done, "total": total, "started": started})


def parse_run_note(note: str | None) -> tuple[int, int] | None:
    """Return (done, total) of a manifest entry ``run``, or None without an entry; ValueError."""
    if note is None:
        return None
    try:
        values = parse_json(note)
        return int(values["done"]), int(values["total"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{note!r} does not describe a run") from error


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """An index in a few numbers; ``bytes`` is its size on disk, ``updated`` is ISO 8601 in UTC."""

    images: int
    skipped: int
    dimension: int
    extractor: str
    fingerprint: str
    bytes: int
    updated: str
    run: RunProgress | None


# -- changes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileState:
    """The size and times of a file when it was read.

    ``settled`` says whether the next run may trust the times; ``ctime_ns`` is None in an index of an older format.
    """

    size: int
    mtime_ns: int
    settled: bool
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """What a run needs to know about an image that is already in the index."""

    id: int
    row: int
    content_hash: bytes
    state: FileState
    labels: tuple[str, ...]
    has_shot: bool = True  # False in an index of an older format, until its date and camera have been read

    def without_ctime(self) -> IndexedImage:
        """Return a copy whose ctime is not known."""
        return replace(self, state=replace(self.state, ctime_ns=None))


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image to store: a new one, or the new content of a known one (``replaces``).

    ``id`` is None for the next free id. An imported feature need not have a file; then ``path`` is only a name, and the
    fields that are read from a file are None.
    """

    id: int | None
    root: int | None
    path: bytes | None
    labels: tuple[str, ...]
    content_hash: bytes | None = None
    state: FileState | None = None
    width: int | None = None
    height: int | None = None
    colour: str | None = None
    format: str | None = None
    shot: Shot | None = None
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Twin:
    """What all files of the same content have in common; ``feature`` is (d,) float32."""

    feature: NDArray[np.float32]
    width: int
    height: int
    colour: str
    format: str


@dataclass(frozen=True, slots=True)
class ImageUpdate:
    """A known image whose path, mtime or labels have changed; its feature is kept."""

    id: int
    root: int
    path: bytes
    state: FileState
    labels: tuple[str, ...]
    shot: Shot | None = None  # None if unchanged


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be used, and why."""

    root: int
    path: bytes
    reason: str
    size: int | None
    mtime_ns: int | None
    ctime_ns: int | None = None


@dataclass(slots=True)
class Batch:
    """Changes that are committed together.

    ``features`` has a (d,) float32 vector for each of ``stored``; ``shots`` has the dates and cameras of known images,
    by id.
    """

    stored: list[ImageRow] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    seen: list[ImageUpdate] = field(default_factory=list)
    shots: list[tuple[int, Shot]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stored) + len(self.seen) + len(self.shots) + len(self.skipped) + len(self.removed)
