"""Images as browsers want them: small thumbnails, and JPEG where a browser cannot show the original.

Each is made once and kept on disk, named by the hash of the content it was made from.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import BoundedSemaphore
from typing import Literal

from searchengine import images
from searchengine.errors import ImageError
from searchengine.files import read_regular, replace_bytes
from searchengine.index.types import ImageRecord

THUMBNAIL_SIDE = 480  # px; cards are about 220 px high, and screens have two pixels to one

Kind = Literal["thumbnail", "full"]


class FileGoneError(ImageError):
    """The image is in the index, but its file is no longer where it was."""


_EDITION = 2  # counted up when the same file is drawn in another way, so that older renditions are not found


@dataclass(frozen=True, slots=True)
class Rendition:
    """A JPEG to send; ``current``: it was made from the content that the index knows."""

    data: bytes
    current: bool


class Renditions:
    """Makes renditions and keeps them under ``folder``, if that can be written."""

    def __init__(self, folder: Path, *, at_once: int = 2) -> None:
        self._folder = folder
        # A decoded image can take hundreds of megabytes: only so many at a time.
        self._decoding = BoundedSemaphore(at_once)

    def thumbnail(self, record: ImageRecord) -> Rendition:
        """A small JPEG; FileGoneError, ImageError."""
        return self._cached(record, "thumbnail", lambda data: images.thumbnail(data, max_side=THUMBNAIL_SIDE))

    def full(self, record: ImageRecord) -> Rendition:
        """The whole image as a JPEG, for formats that browsers do not show; FileGoneError, ImageError."""
        return self._cached(record, "full", lambda data: images.for_browser(data)[0])

    def _cached(self, record: ImageRecord, kind: Kind, render: Callable[[bytes], bytes]) -> Rendition:
        path = self._path(record.content_hash, kind)
        if path is not None:
            with contextlib.suppress(OSError):
                return Rendition(path.read_bytes(), current=True)
        data = read_file(record)
        current = blake2b(data, digest_size=16).hexdigest() == record.content_hash
        with self._decoding:
            rendered = render(data)
        if path is not None and current:
            _write(path, rendered)
        return Rendition(rendered, current)

    def _path(self, content_hash: str | None, kind: Kind) -> Path | None:
        if not content_hash:
            return None
        return self._folder / f"{kind}-{_EDITION}" / content_hash[:2] / f"{content_hash}.jpg"


def read_file(record: ImageRecord) -> bytes:
    """The bytes of the image's file; FileGoneError."""
    try:
        return read_regular(existing_file(record))
    except OSError as error:
        raise _gone(record) from error


def existing_file(record: ImageRecord) -> Path:
    """The image's file, which can be read; FileGoneError."""
    if record.file is None or not has_file(record):
        raise _gone(record)
    return record.file


def has_picture(record: ImageRecord) -> bool:
    """Whether there ever was an image: rows of imported features may have none, or only the path of one."""
    return record.file is not None and record.content_hash is not None


def has_file(record: ImageRecord) -> bool:
    """Whether the image has a regular file that can be read."""
    if record.file is None:
        return False
    try:
        return stat.S_ISREG(record.file.stat().st_mode) and os.access(record.file, os.R_OK)
    except (OSError, ValueError):
        return False


def _gone(record: ImageRecord) -> FileGoneError:
    if not has_picture(record):
        return FileGoneError(f"“{record.path}” is a row of imported features: there is no picture to it.")
    return FileGoneError(
        f"“{record.path}” is in the index, but its file is no longer there. If the photos have moved, start the "
        "server with SEARCHENGINE_IMAGES_DIR set to where they are now; if they were deleted, index the folder again."
    )


def _write(path: Path, data: bytes) -> None:
    """Write a whole file in one step; a full or read-only disk only means that nothing is kept."""
    with contextlib.suppress(OSError):
        replace_bytes(path, data, durable=False)
