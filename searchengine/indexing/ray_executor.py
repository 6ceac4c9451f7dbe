"""An ``Executor`` on Ray: actors read, decode and embed files; the run plans and commits as it does without them.

A worker that dies is replaced, and its files are read again one at a time, so a file that kills workers is identified
after ``FATAL`` of them. A worker that cannot compute in the precision of the index, or does not see the files, is
refused.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, IndexingError, SearchEngineError
from searchengine.images import DECODING
from searchengine.indexing.model import RunExtractor, check_finite
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.ray_cluster import Cluster, KnownContent, SentModel, Worker, check_installed
from searchengine.indexing.reading import Picture, Reading
from searchengine.indexing.scan import Candidate, shown
from searchengine.progress import Progress

AT_ONCE = 2  # batches per worker: one is decoded while another is embedded
FATAL = 3  # a file is skipped once this many workers have died while reading it
_STARTS = 3  # the run ends after this many failed starts of a worker in a row
_PATIENCE = 20.0  # seconds without any worker, after which the user is told that the run is waiting


class RayExecutor:
    """An ``Executor`` that starts Ray, or connects to it, with the first file that must be read.

    Args:
        extractor: the extractor of the run.
        options: the options of the run.
        precision: the precision of the index, if there is one: all workers compute in it, unless ``options`` choose.
        progress: reports the workers that are refused.
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
        self._actors: list[Actor] = []
        self._computed: dict[str, str] | None = None
        self._failed_starts = 0
        self._has_waited = False

    # -- Executor -----------------------------------------------------------------------------------------------------

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        if not candidates:
            return
        cluster = self._start()
        wanted = cluster.workers * AT_ONCE
        size = min(max(1, self._options.batch_size), -(-len(candidates) // wanted))
        work = Work(candidates, size, ahead=size * (wanted + cluster.workers))
        known = cluster.ray.put(KnownContent(known_content))
        while not work.done:
            yield from work.pop_ready()
            self._hand_out(work, known)
            self._receive()

    def embed(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Return the features that the workers have computed, (n, d) float32."""
        features = [picture.feature for picture in pictures if picture.feature is not None]
        return check_finite(np.stack(features), self._recipe.spec)

    def computed(self) -> dict[str, str]:
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
        """Fix the precision, and put the exported model into the cache, where workers on this machine find it."""
        recipe = self._recipe
        precision = recipe.precision if recipe.precision != "auto" else self._recorded
        if recipe.runtime == "keras" and precision is not None:
            return  # Keras needs no exported model
        local = replace(recipe, precision="auto", gpu=False).load(self._progress.say)
        self._recipe = replace(recipe, precision=precision or local.precision)

    @cached_property
    def _sent_model(self) -> SentModel:
        """The exported model, for machines that lack it."""
        assert self._cluster is not None
        return SentModel.of(self._recipe.spec, self._cluster.ray.put)

    def _start_worker(self, cluster: Cluster) -> None:
        options = self._options
        actor = cluster.ray.remote(Worker).options(
            num_cpus=options.ray_cpus, num_gpus=options.ray_gpus, max_restarts=0, max_concurrency=AT_ONCE
        )
        handle = actor.remote(options.ray_cpus)
        self._actors.append(Actor(handle, handle.prepare.remote(self._recipe, DECODING)))

    def _end(self, actor: Actor) -> None:
        assert self._cluster is not None
        self._actors.remove(actor)
        with suppress(self._cluster.ray.exceptions.RayError):  # the cluster may have ended
            self._cluster.ray.kill(actor.handle)

    # -- requests and answers -----------------------------------------------------------------------------------------

    def _hand_out(self, work: Work, known: Any) -> None:
        for _ in range(AT_ONCE):  # one batch for each worker, then another
            for actor in self._actors:
                if actor.starting is None and (places := work.hand_out(actor)):
                    files = [work.candidates[place] for place in places]
                    actor.batches[actor.handle.read.remote(files, known)] = work, places

    def _receive(self) -> None:
        """Wait for the next answers of workers, and handle them."""
        assert self._cluster is not None
        ray = self._cluster.ray
        waiting = {answer: actor for actor in self._actors for answer in (actor.starting, *actor.batches) if answer}
        if not waiting:
            return
        ready, _ = ray.wait(list(waiting), timeout=_PATIENCE)
        if not ready and not self._has_waited and all(actor.starting for actor in self._actors):
            self._has_waited = True
            self._progress.say("Waiting for Ray to start a worker: the machines are busy, or have too few processors.")
        for answer in ready:
            actor = waiting[answer]
            if actor not in self._actors:
                continue  # the actor was ended because of another of its answers
            try:
                result = ray.get(answer)
            except ray.exceptions.RayTaskError as error:  # raised in the worker, which is still alive
                if actor.starting is None:
                    raise error.cause from error
                self._refuse(actor, _reason(error.cause))
            except ray.exceptions.RayError as error:
                self._replace(actor, error)
            else:
                self._handle(actor, answer, result)

    def _handle(self, actor: Actor, answer: Any, result: Any) -> None:
        if actor.starting == answer and result is None:
            actor.starting = actor.handle.prepare.remote(self._recipe, DECODING, self._sent_model)
            return
        if actor.starting == answer:
            actor.starting, self._failed_starts = None, 0
            self._computed = self._computed or result
            return
        unseen = next(
            (reading for reading in result if reading.vanished and os.path.lexists(reading.candidate.file)), None
        )
        if unseen is None:
            work, places = actor.batches.pop(answer)
            work.complete(places, result)
        else:
            file = shown(unseen.candidate.file)
            self._refuse(
                actor, f"It does not see {file}, which exists here. Photos need the same paths on all machines."
            )

    def _refuse(self, actor: Actor, reason: str) -> None:
        """Continue without a worker, as long as there are others."""
        self._end(actor)
        for work, places in actor.batches.values():
            work.requeue(places)
        if not self._actors:
            raise ExtractorError(f"Ray has no worker left; the last one was refused. {reason}")
        self._progress.say(f"A Ray worker was refused. {reason}")

    def _replace(self, actor: Actor, error: Exception) -> None:
        """Start another worker in place of one that died, and have its files read again."""
        assert self._cluster is not None
        self._end(actor)
        self._failed_starts += actor.starting is not None
        if self._failed_starts >= _STARTS:
            raise IndexingError(f"{_STARTS} Ray workers died while starting: {_reason(error)}") from error
        for work, places in actor.batches.values():
            work.record_death(places)
        self._start_worker(self._cluster)


def _reason(error: BaseException) -> str:
    if isinstance(error, SearchEngineError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


# -- which files are waiting, with workers, or read -------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Actor:
    """A worker as the driver knows it, with the batches it was given, by their pending answers.

    A batch is a work, and the positions of files among its candidates. While a worker reads a suspect, a file during
    which another worker died, it reads nothing else.
    """

    handle: Any
    starting: Any  # the pending answer of ``prepare``; None once it has arrived
    batches: dict[Any, tuple[Work, Sequence[int]]] = field(default_factory=dict)
    has_suspect: bool = False


class Work:
    """The files of one call of ``readings``. Results are returned in the order of the candidates.

    ``ahead`` is the maximum number of files that are handed out or wait to be returned.
    """

    def __init__(self, candidates: Sequence[Candidate], size: int, ahead: int) -> None:
        self.candidates = candidates
        self._size, self._ahead = size, ahead
        self._next = 0  # the first candidate that was never handed out
        self._returned = 0  # how many readings were returned
        self._suspects: deque[int] = deque()  # files to be read again, alone
        self._deaths: Counter[int] = Counter()
        self._read: dict[int, Reading] = {}

    @property
    def done(self) -> bool:
        """Whether all readings were returned."""
        return self._returned == len(self.candidates)

    def hand_out(self, actor: Actor) -> list[int]:
        """Return the next files for a worker; none if it has enough to do, or the limit is reached."""
        if len(actor.batches) >= (1 if actor.has_suspect or self._suspects else AT_ONCE):
            return []
        actor.has_suspect = bool(self._suspects)
        if self._suspects:
            return [self._suspects.popleft()]
        first, last = self._next, min(self._next + self._size, self._returned + self._ahead, len(self.candidates))
        self._next = max(first, last)
        return [*range(first, last)]

    def complete(self, places: Sequence[int], readings: Sequence[Reading]) -> None:
        """Store readings until ``pop_ready`` returns them."""
        self._read.update(zip(places, readings, strict=True))

    def requeue(self, places: Sequence[int]) -> None:
        """Have files read again because their worker was refused."""
        self._suspects.extend(places)

    def record_death(self, places: Sequence[int]) -> None:
        """Have files read again because their worker died, or skip a file if that has happened too often."""
        self._deaths.update(places)
        for place in places:
            if self._deaths[place] < FATAL:
                self._suspects.append(place)
            else:
                reason = f"{FATAL} Ray workers died while reading it. The next run will try it again."
                self._read[place] = Reading(self.candidates[place], None, None, reason=reason, lost=True)

    def pop_ready(self) -> Iterator[Reading]:
        """Yield the readings that come next in the order of the candidates, as far as they are complete."""
        while self._returned in self._read:
            self._returned += 1
            yield self._read.pop(self._returned - 1)
