"""An ``Executor`` on Ray: actors read, decode and embed files; the run plans and commits as it does without them.

A worker that dies is replaced, and its files are read again, each by itself, so that a file that kills workers is known
after ``_FATAL`` of them. A worker that cannot compute as the index wants it, or does not see the files, is refused.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.compat import share_processors
from searchengine.errors import ExtractorError, IndexingError, SearchEngineError
from searchengine.extractors import Extractor
from searchengine.images import DECODING
from searchengine.indexing.model import Computed, Recipe, RunExtractor, check_finite
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.ray_cluster import Cluster, check_installed
from searchengine.indexing.reading import Reading, read_ahead
from searchengine.indexing.roots import shown
from searchengine.indexing.scan import Candidate
from searchengine.progress import Progress

_FATAL = 3  # workers that died while they read a file, and it is skipped
_AT_ONCE = 2  # batches of a worker: one is decoded while another is embedded
_STARTS = 3  # in a row that fail, and the run ends
_PATIENCE = 20.0  # seconds without any worker, until that is said
_HASH = np.dtype("S16")  # of a content hash


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


# -- the actor --------------------------------------------------------------------------------------------------------


class Worker:
    """The actor. Two threads call its methods, so that it decodes one batch while it embeds another."""

    def __init__(self, threads: int) -> None:
        share_processors(threads)
        self._threads = threads
        self._extractor: Extractor | None = None

    def prepare(self, recipe: Recipe, decoding: int) -> Computed:
        """Load the model; ExtractorError where it cannot run as the recipe says, or images are decoded differently."""
        if decoding != DECODING:
            raise ExtractorError(
                "Another version of searchengine is installed there, which decodes images differently."
            )
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
        # n of (h, w, 3) uint8 -> (n, d) float32
        embedded = iter(self._extractor.embed(np.stack([picture.pixels for picture in pictures])))
        return [
            reading if reading.picture is None else replace(reading, picture=reading.picture.embedded(next(embedded)))
            for reading in readings
        ]


# -- the driver -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Actor:
    """A worker as the driver knows it, and the batches it has been given, by the answers that are waited for."""

    handle: Any
    starting: Any  # the answer of ``prepare`` that is waited for; None once it is there
    batches: dict[Any, _Batch] = field(default_factory=dict)
    has_suspect: bool = False


@dataclass(frozen=True, slots=True)
class _Batch:
    """Files that one worker reads: places among the candidates of a work."""

    work: _Work
    places: Sequence[int]


class _Work:
    """The files of a call: which wait, which are with workers, which are read. They leave in their order.

    ``ahead`` bounds how many have been handed out and have not left.
    """

    def __init__(self, candidates: Sequence[Candidate], size: int, ahead: int) -> None:
        self.candidates = candidates
        self._size, self._ahead = size, ahead
        self._next = 0  # that was never handed out
        self._left = 0  # how many have left
        self._suspects: deque[int] = deque()  # to be read again, alone
        self._deaths: Counter[int] = Counter()
        self._read: dict[int, Reading] = {}

    @property
    def done(self) -> bool:
        return self._left == len(self.candidates)

    def hand_out(self, actor: _Actor) -> list[int]:
        """The places of the next files for a worker; none if it has enough to do, or nothing may be handed out."""
        if self._suspects:
            actor.has_suspect = not actor.batches
            return [] if actor.batches else [self._suspects.popleft()]
        if len(actor.batches) >= _AT_ONCE or (actor.has_suspect and actor.batches):
            return []
        actor.has_suspect = False
        first, last = self._next, min(self._next + self._size, self._left + self._ahead, len(self.candidates))
        self._next = max(first, last)
        return [*range(first, last)]

    def take(self, places: Sequence[int], readings: Sequence[Reading]) -> None:
        self._read.update(zip(places, readings, strict=True))

    def again(self, places: Sequence[int]) -> None:
        """Have files read again that a worker was given in vain."""
        self._suspects.extend(places)

    def died(self, places: Sequence[int]) -> None:
        """Have files read again during which a worker died; skip those that it happened to too often."""
        self._deaths.update(places)
        for place in places:
            if self._deaths[place] < _FATAL:
                self._suspects.append(place)
            else:
                reason = f"{_FATAL} processes of Ray died while they read it. The next run will try it again."
                self._read[place] = Reading(self.candidates[place], None, None, reason=reason, lost=True)

    def leave(self) -> Iterator[Reading]:
        """The files whose turn it is."""
        while self._left in self._read:
            self._left += 1
            yield self._read.pop(self._left - 1)


class RayExecutor:
    """See ``Executor``. Ray is started, or connected to, with the first file that must be read.

    Args:
        extractor: of the run.
        options: of the run.
        precision: that of the index, if there is one: all workers compute in it, or in what ``options`` say.
        progress: is told which workers are refused.
    """

    def __init__(
        self, extractor: RunExtractor, options: IndexingOptions, precision: str | None, progress: Progress
    ) -> None:
        check_installed()
        self._recipe = replace(extractor.recipe, gpu=options.ray_gpus > 0)
        self._options = options
        self._recorded = precision
        self._progress = progress
        self._cluster: Cluster | None = None
        self._actors: list[_Actor] = []
        self._computed: Computed | None = None
        self._failed_starts = 0

    # -- Executor -----------------------------------------------------------------------------------------------------

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        """See ``Executor.readings``."""
        if not candidates:
            return
        cluster = self._start()
        wanted = cluster.workers * _AT_ONCE
        size = min(max(1, self._options.batch_size), -(-len(candidates) // wanted))
        work = _Work(candidates, size, ahead=size * (wanted + cluster.workers))
        known = cluster.ray.put(KnownContent(known_content))
        while not work.done:
            yield from work.leave()
            self._hand_out(work, known)
            self._receive()

    def embed(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """See ``Executor.embed``: the workers have done it."""
        return check_finite(np.stack([picture.feature for picture in pictures]), self._recipe.spec)

    def computed(self) -> Computed:
        """See ``Executor.computed``: as the first worker does it."""
        assert self._computed is not None
        return self._computed

    def close(self) -> None:
        """End the workers, and Ray if it was started for them."""
        for actor in [*self._actors]:
            self._end(actor)
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    # -- workers ------------------------------------------------------------------------------------------------------

    def _start(self) -> Cluster:
        if self._cluster is None:
            self._prepare()
            self._cluster = Cluster(self._options)
            for _ in range(self._cluster.workers):
                self._start_worker(self._cluster)
        return self._cluster

    def _prepare(self) -> None:
        """Fix the precision, and have the exported model in the cache, where workers of this machine find it."""
        recipe = self._recipe
        precision = recipe.precision if recipe.precision != "auto" else self._recorded
        if recipe.runtime == "keras" and precision is not None:
            return  # which needs no exported model
        local = replace(recipe, precision="auto", gpu=False).load(self._progress.say)
        self._recipe = replace(recipe, precision=precision or local.precision)

    def _start_worker(self, cluster: Cluster) -> None:
        options = self._options
        actor = cluster.ray.remote(Worker).options(
            num_cpus=options.ray_cpus, num_gpus=options.ray_gpus, max_restarts=0, max_concurrency=_AT_ONCE
        )
        handle = actor.remote(options.ray_cpus)
        self._actors.append(_Actor(handle, handle.prepare.remote(self._recipe, DECODING)))

    def _end(self, actor: _Actor) -> None:
        assert self._cluster is not None
        self._actors.remove(actor)
        self._cluster.ray.kill(actor.handle)

    # -- work ---------------------------------------------------------------------------------------------------------

    def _hand_out(self, work: _Work, known: Any) -> None:
        for _ in range(_AT_ONCE):  # one batch each, then another
            for actor in self._actors:
                if actor.starting is None and (places := work.hand_out(actor)):
                    files = [work.candidates[place] for place in places]
                    actor.batches[actor.handle.read.remote(files, known)] = _Batch(work, places)

    def _receive(self) -> None:
        """Wait for the next answers of workers, and take them."""
        assert self._cluster is not None
        ray = self._cluster.ray
        waiting = {answer: actor for actor in self._actors for answer in (actor.starting, *actor.batches) if answer}
        if not waiting:
            return
        ready, _ = ray.wait(list(waiting), timeout=_PATIENCE)
        if not ready and all(actor.starting for actor in self._actors):
            self._progress.say("Waiting for Ray to start a worker: the machines are busy, or have too few processors.")
        for answer in ready:
            actor = waiting[answer]
            if actor not in self._actors:
                continue  # it was ended for another of its answers
            try:
                result = ray.get(answer)
            except ray.exceptions.RayTaskError as error:  # raised in the worker, which lives
                if actor.starting is None:
                    raise error.cause from error
                self._refuse(actor, _reason(error.cause))
            except ray.exceptions.RayError as error:
                self._died(actor, error)
            else:
                self._take(actor, answer, result)

    def _take(self, actor: _Actor, answer: Any, result: Any) -> None:
        if actor.starting == answer:
            actor.starting, self._failed_starts = None, 0
            self._computed = self._computed or result
            return
        unseen = next((reading for reading in result if reading.vanished and _exists(reading.candidate.file)), None)
        if unseen is None:
            batch = actor.batches.pop(answer)
            batch.work.take(batch.places, result)
        else:
            file = shown(unseen.candidate.file)
            self._refuse(actor, f"It does not see {file}, which lies here: photos must have the same paths there.")

    def _refuse(self, actor: _Actor, reason: str) -> None:
        """Go on without a worker, as long as there are others."""
        self._end(actor)
        for batch in actor.batches.values():
            batch.work.again(batch.places)
        if not self._actors:
            raise ExtractorError(f"No worker of Ray is left. The last one was refused: {reason}")
        self._progress.say(f"A worker of Ray was refused: {reason}")

    def _died(self, actor: _Actor, error: Exception) -> None:
        """Start another in its place, and have its files read again."""
        assert self._cluster is not None
        self._end(actor)
        self._failed_starts += actor.starting is not None
        if self._failed_starts >= _STARTS:
            raise IndexingError(f"{_STARTS} workers of Ray ended while they started: {_reason(error)}") from error
        for batch in actor.batches.values():
            batch.work.died(batch.places)
        self._start_worker(self._cluster)


def _exists(file: bytes) -> bool:
    return os.path.lexists(file)


def _reason(error: BaseException) -> str:
    if isinstance(error, SearchEngineError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
