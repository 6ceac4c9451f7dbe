"""The actor, and what is sent to it: where Ray runs it, it reads, decodes and embeds files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from searchengine.errors import ExtractorError
from searchengine.extractors import Extractor, ExtractorRecipe, ExtractorSpec, cache
from searchengine.images import DECODING
from searchengine.indexing.model import Computed
from searchengine.indexing.reading import Reading, read_ahead
from searchengine.indexing.scan import Candidate
from searchengine.processors import share_processors

_PIECE = 2**24  # bytes of a model that are sent at a time
_HASH = np.dtype("S16")  # of a content hash


class Worker:
    """The actor. Two threads call its methods, so that it decodes one batch while it embeds another."""

    def __init__(self, threads: int) -> None:
        share_processors(threads)
        self._threads = threads
        self._extractor: Extractor | None = None

    def prepare(self, recipe: ExtractorRecipe, decoding: int, model: SentModel | None = None) -> Computed | None:
        """Load the model; None where its exported form is missing here, and must be sent.

        ExtractorError where it cannot run as the recipe says, or where images are decoded differently.
        """
        if decoding != DECODING:
            raise ExtractorError(
                "Another version of searchengine is installed there, which decodes images differently."
            )
        if model is not None:
            model.store(recipe.spec)
        elif recipe.needs_export and cache.lookup(recipe.spec) is None:
            return None
        self._extractor = recipe.load(lambda text: None)
        self._extractor.embed(np.zeros((1, *recipe.spec.input_size, 3), np.uint8))
        return Computed.by(self._extractor)

    def read(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> list[Reading]:
        """Read and decode files, and embed what is not known: pictures come back with features, without pixels."""
        assert self._extractor is not None
        readings = list(
            read_ahead(
                candidates, self._extractor.preprocess, known_content, threads=self._threads, ahead=len(candidates)
            )
        )
        pictures = [reading.picture for reading in readings if reading.picture is not None]
        if not pictures:
            return readings
        # n of (h, w, 3) -> (n, d) float32
        embedded = iter(self._extractor.embed([picture.pixels for picture in pictures]))
        return [
            reading if reading.picture is None else replace(reading, picture=reading.picture.embedded(next(embedded)))
            for reading in readings
        ]


@dataclass(frozen=True, slots=True)
class SentModel:
    """An exported model on its way to other machines: for each of its files, the pieces in Ray's object store."""

    parts: tuple[int, ...]
    files: dict[str, list[Any]]

    @classmethod
    def of(cls, spec: ExtractorSpec, put: Callable[[bytes], Any]) -> SentModel:
        """That of the cache of this machine; ExtractorError if there is none."""
        model = cache.lookup(spec)
        if model is None:
            raise ExtractorError("The exported model is missing on this machine, too. Give --runtime keras.")
        files = {}
        for name in cache.MODEL_FILES:
            with (model.xml.parent / name).open("rb") as file:
                files[name] = [*map(put, iter(partial(file.read, _PIECE), b""))]
        return cls(model.parts, files)

    def store(self, spec: ExtractorSpec) -> None:
        """Keep it in the cache of the machine where this is called."""
        import ray

        files = {name: (ray.get(piece) for piece in pieces) for name, pieces in self.files.items()}
        cache.store(spec, self.parts, files, lambda text: None)


class KnownContent(Collection[bytes]):
    """Content hashes as one sorted array, which the workers of a machine share in Ray's object store."""

    def __init__(self, hashes: Collection[bytes]) -> None:
        self._hashes = np.array(sorted(hashes), dtype=_HASH)

    def __contains__(self, digest: object) -> bool:
        at = int(np.searchsorted(self._hashes, np.array(digest, dtype=_HASH)))
        return at < len(self._hashes) and self._hashes[at] == np.array(digest, dtype=_HASH)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._hashes.tolist())

    def __len__(self) -> int:
        return len(self._hashes)
