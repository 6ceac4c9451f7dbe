"""An ``Executor`` on Ray: actors read, decode and embed files; the run plans and commits as it does without them.

A worker that dies is replaced, and its files are read again, each by itself, so that a file that kills workers is known
after ``FATAL`` of them. A worker that cannot compute as the index wants it, or does not see the files, is refused.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, IndexingError, SearchEngineError
from searchengine.images import DECODING
from searchengine.indexing.model import Computed, RunExtractor, check_finite
from searchengine.indexing.on_ray.cluster import Cluster, check_installed
from searchengine.indexing.on_ray.work import AT_ONCE, Actor, Batch, Work
from searchengine.indexing.on_ray.worker import KnownContent, SentModel, Worker
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.reading import Picture, Reading
from searchengine.indexing.roots import shown
from searchengine.indexing.scan import Candidate
from searchengine.progress import Progress

_STARTS = 3  # in a row that fail, and the run ends
_PATIENCE = 20.0  # seconds without any worker, until that is said


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
        self._actors: list[Actor] = []
        self._sent_model: SentModel | None = None
        self._computed: Computed | None = None
        self._failed_starts = 0
        self._has_waited = False

    # -- Executor -----------------------------------------------------------------------------------------------------

    def readings(self, candidates: Sequence[Candidate], known_content: Collection[bytes]) -> Iterator[Reading]:
        """See ``Executor.readings``."""
        if not candidates:
            return
        cluster = self._start()
        wanted = cluster.workers * AT_ONCE
        size = min(max(1, self._options.batch_size), -(-len(candidates) // wanted))
        work = Work(candidates, size, ahead=size * (wanted + cluster.workers))
        known = cluster.ray.put(KnownContent(known_content))
        while not work.done:
            yield from work.leave()
            self._hand_out(work, known)
            self._receive()

    def embed(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """See ``Executor.embed``: the workers have done it."""
        features = [picture.feature for picture in pictures if picture.feature is not None]
        return check_finite(np.stack(features), self._recipe.spec)

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

    def _model_to_send(self) -> SentModel:
        """The exported model, for machines that lack it; read once."""
        assert self._cluster is not None
        if self._sent_model is None:
            self._sent_model = SentModel.of(self._recipe.spec, self._cluster.ray.put)
        return self._sent_model

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
        with suppress(self._cluster.ray.exceptions.RayError):  # its cluster may have gone
            self._cluster.ray.kill(actor.handle)

    # -- work ---------------------------------------------------------------------------------------------------------

    def _hand_out(self, work: Work, known: Any) -> None:
        for _ in range(AT_ONCE):  # one batch each, then another
            for actor in self._actors:
                if actor.starting is None and (places := work.hand_out(actor)):
                    files = [work.candidates[place] for place in places]
                    actor.batches[actor.handle.read.remote(files, known)] = Batch(work, places)

    def _receive(self) -> None:
        """Wait for the next answers of workers, and take them."""
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

    def _take(self, actor: Actor, answer: Any, result: Any) -> None:
        if actor.starting == answer and result is None:
            actor.starting = actor.handle.prepare.remote(self._recipe, DECODING, self._model_to_send())
            return
        if actor.starting == answer:
            actor.starting, self._failed_starts = None, 0
            self._computed = self._computed or result
            return
        unseen = next(
            (reading for reading in result if reading.vanished and os.path.lexists(reading.candidate.file)), None
        )
        if unseen is None:
            batch = actor.batches.pop(answer)
            batch.work.take(batch.places, result)
        else:
            file = shown(unseen.candidate.file)
            self._refuse(actor, f"It does not see {file}, which is here. Photos need the same paths on all machines.")

    def _refuse(self, actor: Actor, reason: str) -> None:
        """Go on without a worker, as long as there are others."""
        self._end(actor)
        for batch in actor.batches.values():
            batch.work.again(batch.places)
        if not self._actors:
            raise ExtractorError(f"No worker of Ray is left, the last one was refused. {reason}")
        self._progress.say(f"A worker of Ray was refused. {reason}")

    def _died(self, actor: Actor, error: Exception) -> None:
        """Start another in its place, and have its files read again."""
        assert self._cluster is not None
        self._end(actor)
        self._failed_starts += actor.starting is not None
        if self._failed_starts >= _STARTS:
            raise IndexingError(f"{_STARTS} workers of Ray ended while they started: {_reason(error)}") from error
        for batch in actor.batches.values():
            batch.work.died(batch.places)
        self._start_worker(self._cluster)


def _reason(error: BaseException) -> str:
    if isinstance(error, SearchEngineError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
