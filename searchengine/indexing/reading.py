"""Files are read, hashed and decoded by threads, ahead of the model, so that decoding overlaps inference.

An ``Executor`` does both for a run: this process (``LocalExecutor``), or Ray actors (``on_ray``).
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
from searchengine.indexing.model import Computed, RunExtractor
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.scan import Candidate
from searchengine.processors import processors

_SHOTS_AHEAD = 256  # photos whose metadata are read at a time
_RACY_NS = 2_000_000_000  # a file changed so shortly before it was read may change again under the same times

Preprocess = Callable[[bytes], DecodedImage]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image: ``pixels`` (h, w, 3) uint8 as the extractor wants them; the size is the original's, upright.

    One that was embedded where it was read has its ``feature``, (d,) float32, and no pixels: (0, 0, 3).
    """

    pixels: Pixels
    width: int
    height: int
    colour: str
    format: str
    feature: NDArray[np.float32] | None = None

    def embedded(self, feature: NDArray[np.float32]) -> Picture:
        """The same with its feature in place of its pixels."""
        return replace(self, pixels=np.empty((0, 0, 3), np.uint8), feature=feature)


@dataclass(frozen=True, slots=True)
class Reading:
    """The result for one file: a picture, or a reason why not, or neither if its content is known already."""

    candidate: Candidate
    state: FileState | None
    content_hash: bytes | None
    picture: Picture | None = None
    shot: Shot | None = None
    reason: str | None = None
    vanished: bool = False  # it existed when the folder was walked
    lost: bool = False  # a temporary fault: it could not be read or decoded this time


def read_ahead(
    candidates: Sequence[Candidate],
    preprocess: Preprocess,
    known_content: Container[bytes],
    *,
    threads: int,
    ahead: int,
) -> Iterator[Reading]:
    """Read the candidates in order, at most ``ahead`` at a time, so that memory stays bounded."""
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
    """Read one file, and decode it unless its content is known; DecoderUnavailableError."""
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
    """When and with what each of the photos (id, file) was taken; None where a file cannot be read."""

    def shot_of(file: tuple[int, bytes]) -> tuple[int, Shot | None]:
        with suppress(OSError), open_regular(file[1]) as opened:
            return file[0], read_shot(opened)
        return file[0], None

    with ThreadPoolExecutor(threads, thread_name_prefix="shots") as pool:
        for start in range(0, len(files), _SHOTS_AHEAD):
            yield from pool.map(shot_of, files[start : start + _SHOTS_AHEAD])


# -- who reads and embeds ----------------------------------------------------------------------------------------------


class Executor(Protocol):
    """Candidates -> readings -> features. Planning and committing are done by the run."""

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        """Read files, in the order of the candidates and a bounded number of them ahead.

        Content whose hash is among ``known_content`` need not be decoded. DecoderUnavailableError, ExtractorError.
        """
        ...

    def embed(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """The features of n pictures of its readings: (n, d) float32; IndexingError where the model gives NaN."""
        ...

    def computed(self) -> Computed:
        """How features are computed, for the manifest."""
        ...

    def close(self) -> None:
        """Release everything that was started."""
        ...


class LocalExecutor:
    """An ``Executor`` in this process: threads read and decode ahead while the model embeds."""

    def __init__(self, extractor: RunExtractor, options: IndexingOptions) -> None:
        self._extractor = extractor
        self._threads = options.threads or processors()
        self._ahead = 2 * options.batch_size + self._threads

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        """See ``Executor.readings``."""
        preprocess = self._extractor.preprocess
        return read_ahead(candidates, preprocess, known_content, threads=self._threads, ahead=self._ahead)

    def embed(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """See ``Executor.embed``."""
        return self._extractor.embed([picture.pixels for picture in pictures])

    def computed(self) -> Computed:
        """See ``Executor.computed``."""
        return Computed.by(self._extractor.get())

    def close(self) -> None:
        """Nothing to end: the threads end with the readings."""
