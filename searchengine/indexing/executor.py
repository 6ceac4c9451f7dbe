"""Reads and embeds the files of a run: by threads of this process, or by Ray actors (``on_ray``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.indexing.model import Computed, RunExtractor
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.reading import Picture, Reading, read_ahead
from searchengine.indexing.scan import Candidate
from searchengine.processors import processors


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
