"""What a run tells an index, and what the index tells a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FileState:
    """What the file system said of a file when it was read; ``settled``: its mtime can be trusted next time."""

    size: int
    mtime_ns: int
    settled: bool


@dataclass(frozen=True, slots=True)
class Known:
    """One image as the catalog has it."""

    id: int
    row: int
    content_hash: bytes
    state: FileState
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image to be stored: a new one (``id`` None, or an id that is not in use), or a known one's new content."""

    id: int | None
    root: int
    path: bytes
    content_hash: bytes
    state: FileState
    width: int
    height: int
    colour: str
    format: str
    labels: tuple[str, ...]
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class ReadyRow:
    """What stands behind a ready-made feature: there may be no file, and then ``path`` is no more than a name.

    ``id`` None: the next one. All that follows from a file is None where none was read.
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


@dataclass(frozen=True, slots=True)
class Twin:
    """What is known of an image's content, and so of every file with the same: ``feature`` is (d,) float32."""

    feature: NDArray[np.float32]
    width: int
    height: int
    colour: str
    format: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A known image found again: at another place, with another mtime or with other labels; its feature stands."""

    id: int
    root: int
    path: bytes
    state: FileState
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be used, and why."""

    root: int
    path: bytes
    reason: str
    size: int | None
    mtime_ns: int | None


@dataclass(slots=True)
class Batch:
    """What is committed together. ``features`` holds one (d,) float32 row for each of ``stored``."""

    stored: list[ImageRow] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stored) + len(self.seen) + len(self.skipped) + len(self.removed)
