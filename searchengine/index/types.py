"""The results of an index, and the changes of a run."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import FileGoneError
from searchengine.files import parse_json, read_regular
from searchengine.images.metadata import Shot

Place = tuple[int, bytes]  # of a file: the id of its image folder, and its path within it


def content_hash(data: bytes) -> bytes:
    """Identifies the content of a file: BLAKE2b, 128 bits."""
    return hashlib.blake2b(data, digest_size=16).digest()


# -- answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """One neighbour of a query.

    ``distance`` is smaller-is-better, in the metric of the search; ``score`` is larger-is-better, see
    ``metrics.score``. ``rank`` starts at 1. ``record`` is the record of the image at that moment. ``stands_for`` is the
    number of images that this one represents, including itself: copies or near-duplicates of it.
    """

    rank: int
    id: int
    path: str
    distance: float
    score: float
    label: str | None
    record: ImageRecord = field(repr=False, compare=False)
    stands_for: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the record."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "record"}


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The record of one image in the catalog.

    ``path`` is for people (relative to the image folder, ``/``-separated, undecodable bytes replaced); ``file`` opens.
    ``width`` and ``height`` are in pixels, upright; ``colour`` is the average, ``#rrggbb``; ``size`` is in bytes;
    ``content_hash`` is the lower-case hex BLAKE2b-128 of the file. All are None where a row has no image file.
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
        """The first label, if there is one."""
        return self.labels[0] if self.labels else None

    @property
    def has_picture(self) -> bool:
        """Whether it was made from an image file: rows of imported features have none, or only a path."""
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
        """Its file, which can be read; FileGoneError."""
        if self.file is None or not self.has_file:
            raise self._gone()
        return self.file

    def read(self) -> bytes:
        """The bytes of its file; FileGoneError."""
        try:
            return read_regular(self.existing_file())
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> FileGoneError:
        if not self.has_picture:
            return FileGoneError(f"“{self.path}” is a row of imported features, which has no picture.")
        return FileGoneError(
            f"“{self.path}” is in the index, but its file is no longer there. If the photos have moved, say where they "
            "are now (--images-dir, or SEARCHENGINE_IMAGES_DIR); if they were deleted, index the folder again."
        )

    @classmethod
    def removed(cls, id_: int) -> ImageRecord:
        """For an image that was removed a moment ago, but is still in the state that is searched."""
        return cls(id_, f"#{id_}", None, (), None, None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """An unfinished run, which has read ``done`` of ``total`` files."""

    done: int
    total: int
    active: bool  # False: it was killed, and the same command resumes it


def run_note(done: int, total: int, started: str) -> str:
    """The entry ``run`` of the manifest while a run is active."""
    return json.dumps({"done": done, "total": total, "started": started})


def run_of(note: str | None) -> tuple[int, int] | None:
    """The files that an unfinished run has read, and their total, by that entry; None without one. ValueError."""
    if note is None:
        return None
    try:
        values = parse_json(note)
        return int(values["done"]), int(values["total"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{note!r} is not a note of a run") from error


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The index in a few numbers; ``bytes`` on disk, ``updated`` as ISO 8601 in UTC."""

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

    ``settled``: the times can be trusted by the next run; ``ctime_ns`` is None in an index of an older format.
    """

    size: int
    mtime_ns: int
    settled: bool
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """One image as the catalog has it."""

    id: int
    row: int
    content_hash: bytes
    state: FileState
    labels: tuple[str, ...]
    has_shot: bool = True  # False: when and with what it was taken has not been read, as in an index of an older format

    def without_ctime(self) -> IndexedImage:
        """The same, with nothing known of its ctime."""
        return replace(self, state=replace(self.state, ctime_ns=None))


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image to store, new unless it ``replaces`` the content of a known one.

    ``id`` None: the next one. An imported feature need not have a file; then ``path`` is only a name, and what is read
    from a file is None.
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
    """The properties of the content of an image, and of every file with the same; ``feature`` is (d,) float32."""

    feature: NDArray[np.float32]
    width: int
    height: int
    colour: str
    format: str


@dataclass(frozen=True, slots=True)
class ImageUpdate:
    """A known image with another place, mtime or labels; its feature is kept."""

    id: int
    root: int
    path: bytes
    state: FileState
    labels: tuple[str, ...]
    shot: Shot | None = None  # None: as it was


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

    ``features`` has a (d,) float32 row for each of ``stored``; ``shots`` are of known images, by id.
    """

    stored: list[ImageRow] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    seen: list[ImageUpdate] = field(default_factory=list)
    shots: list[tuple[int, Shot]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stored) + len(self.seen) + len(self.shots) + len(self.skipped) + len(self.removed)
