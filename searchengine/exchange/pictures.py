"""The pictures behind ready-made features, where there are any: their sizes and colours, for the page."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import ImageError, IndexingError
from searchengine.images import average_colour, decode
from searchengine.index.changes import FileState

_AHEAD = 256  # pictures that are waited for at a time
_SEEN_AT = (32, 32)  # enough for an average colour; a JPEG is decoded at a reduced scale


@dataclass(frozen=True, slots=True)
class Seen:
    """What was learnt from one file; sizes in pixels, upright."""

    content_hash: bytes
    state: FileState
    width: int
    height: int
    colour: str
    format: str


def relative_to(folder: Path, path: str) -> bytes:
    """A path from a file of features, as the catalog has it: relative to the image folder, ``/``-separated.

    IndexingError if it is no path, or leads out of the folder: what is served to browsers lies inside.
    """
    if "\0" in path:
        raise IndexingError(f"{path!r} is no path of a file.")
    inside = os.path.normpath(os.path.relpath(path, folder) if os.path.isabs(path) else path)  # noqa: PTH117
    if inside in {os.curdir, os.pardir} or inside.startswith(os.pardir + os.sep):
        raise IndexingError(
            f"The path {path!r} leads out of the image folder {folder}. Give the folder that holds all pictures with "
            "--images."
        )
    return os.fsencode(inside)


def look(files: Sequence[bytes | None]) -> Iterator[Seen | None]:
    """Look at each file, by several threads; None where there is none, or none that can be read."""
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="look") as pool:
        for start in range(0, len(files), _AHEAD):
            yield from pool.map(_look, files[start : start + _AHEAD])


def _look(file: bytes | None) -> Seen | None:
    if file is None:
        return None
    try:
        with open(file, "rb") as opened:  # noqa: PTH123  (a path of bytes)
            status = os.fstat(opened.fileno())
            data = opened.read()
        decoded = decode(data, at_least=_SEEN_AT)
    except (OSError, ImageError):
        return None
    return Seen(
        hashlib.blake2b(data, digest_size=16).digest(),
        FileState(status.st_size, status.st_mtime_ns, settled=False),
        decoded.width,
        decoded.height,
        average_colour(decoded.pixels),
        decoded.format,
    )
