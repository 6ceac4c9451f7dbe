"""Reads, hashes and decodes files in threads, ahead of the model, so that decoding overlaps inference.

An ``Executor`` reads and embeds for a run: in this process (``LocalExecutor``), or on Ray (``ray_executor``).
"""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import DecodingKilledError, ImageError, ImageTooLargeError, NotAnImageError
from searchengine.files import MAX_PHOTO_BYTES, open_regular
from searchengine.images import HEAD_BYTES, DecodedImage, Pixels, average_colour, sniff, why_not
from searchengine.images.metadata import Shot, read_shot
from searchengine.index.types import FileState, content_hash
from searchengine.indexing.model import RunExtractor, computed_by
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.scan import Candidate
from searchengine.processors import processors

_SHOTS_AHEAD = 256  # photos whose metadata are read in one go
_RACY_NS = 2_000_000_000  # a file changed this shortly before it was read may change again without new times

Preprocess = Callable[[bytes], DecodedImage]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image: ``pixels``, (h, w, 3) uint8, as the extractor takes them, and the upright size of the original.

    A picture that was embedded where it was read has a ``feature``, (d,) float32, and no pixels, (0, 0, 3).
    """

    pixels: Pixels
    width: int
    height: int
    colour: str
    format: str
    feature: NDArray[np.float32] | None = None

    def embedded(self, feature: NDArray[np.float32]) -> Picture:
        """Return a copy with the feature in place of the pixels."""
        return replace(self, pixels=np.empty((0, 0, 3), np.uint8), feature=feature)


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading one file: a picture, the reason why there is none, or neither if its content is known."""

    candidate: Candidate
    state: FileState | None
    content_hash: bytes | None
    picture: Picture | None = None
    shot: Shot | None = None
    reason: str | None = None
    vanished: bool = False  # the file existed when the folder was walked, but is gone
    lost: bool = False  # a temporary fault: the file could not be read or decoded this time


def read_ahead(
    candidates: Sequence[Candidate],
    preprocess: Preprocess,
    known_content: Container[bytes],
    *,
    threads: int,
    ahead: int,
) -> Iterator[Reading]:
    """Read the candidates in order, at most ``ahead`` at a time to bound memory."""
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Reading]] = deque()
        try:
            for candidate in candidates:
                waiting.append(pool.submit(read, candidate, preprocess, known_content))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read(candidate: Candidate, preprocess: Preprocess, known_content: Container[bytes]) -> Reading:
    """Read one file, and decode it unless its content is known. Raises DecoderUnavailableError."""
    state: FileState | None = None
    try:
        with open_regular(candidate.file) as opened:
            seen = os.fstat(opened.fileno())
            settled = max(seen.st_mtime_ns, seen.st_ctime_ns) < time.time_ns() - _RACY_NS
            state = FileState(seen.st_size, seen.st_mtime_ns, settled, seen.st_ctime_ns)
            head = opened.read(HEAD_BYTES)
            if sniff(head) is None:
                raise NotAnImageError(why_not(head))
            if seen.st_size > MAX_PHOTO_BYTES:
                raise ImageTooLargeError(
                    f"The file has {seen.st_size / 2**20:.0f} MiB; {MAX_PHOTO_BYTES // 2**20} are allowed."
                )
            opened.seek(0)
            data = opened.read()
    except FileNotFoundError:
        return Reading(candidate, None, None, vanished=True)
    except OSError as error:
        return Reading(candidate, state, None, reason=f"The file cannot be read: {error.strerror or error}.", lost=True)
    except ImageError as error:
        return Reading(candidate, state, None, reason=str(error))
    digest, shot = content_hash(data), read_shot(io.BytesIO(data))
    if digest in known_content:
        return Reading(candidate, state, digest, shot=shot)
    try:
        image = preprocess(data)
    except ImageError as error:
        return Reading(candidate, state, digest, reason=str(error), lost=isinstance(error, DecodingKilledError))
    picture = Picture(image.pixels, image.width, image.height, average_colour(image.pixels), image.format)
    return Reading(candidate, state, digest, picture, shot)


def read_shots(files: Sequence[tuple[int, bytes]], *, threads: int) -> Iterator[tuple[int, Shot | None]]:
    """Read when and with what camera each photo (id, file) was taken; None if a file cannot be read."""

    def shot_of(file: tuple[int, bytes]) -> tuple[int, Shot | None]:
        with suppress(OSError), open_regular(file[1]) as opened:
            return file[0], read_shot(opened)
        return file[0], None

    with ThreadPoolExecutor(threads, thread_name_prefix="shots") as pool:
        for start in range(0, len(files), _SHOTS_AHEAD):
            yield from pool.map(shot_of, files[start : start + _SHOTS_AHEAD])


# -- executors ---------------------------------------------------------------------------------------------------------


class Executor(Protocol):
    """Turns candidates into readings, and readings into features. The run itself plans and commits."""

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        """Read files in the order of the candidates, a bounded number of them ahead.

        Content whose hash is in ``known_content`` is not decoded. Raises DecoderUnavailableError and ExtractorError.
        """
        ...

    def embed(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Return the features of n pictures, (n, d) float32. Raises IndexingError if the model gives NaN."""
        ...

    def computed(self) -> dict[str, str]:
        """Return how features are computed, as entries of the manifest."""
        ...

    def close(self) -> None:
        """End everything that was started."""
        ...


class LocalExecutor:
    """An ``Executor`` in this process: threads read and decode ahead while the model embeds."""

    def __init__(self, extractor: RunExtractor, options: IndexingOptions) -> None:
        self._extractor = extractor
        self._threads = options.threads or processors()
        self._ahead = 2 * options.batch_size + self._threads

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        preprocess = self._extractor.preprocess
        return read_ahead(candidates, preprocess, known_content, threads=self._threads, ahead=self._ahead)

    def embed(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        return self._extractor.embed([picture.pixels for picture in pictures])

    def computed(self) -> dict[str, str]:
        return computed_by(self._extractor.get())

    def close(self) -> None:
        """Do nothing: the threads end with the readings."""
