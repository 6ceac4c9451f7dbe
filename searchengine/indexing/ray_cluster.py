"""The Ray cluster of a run, and the workers on it, which read, decode and embed files."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from searchengine.errors import ExtractorError, IndexingError, missing_extra
from searchengine.extractors import Extractor, ExtractorRecipe, ExtractorSpec
from searchengine.extractors import cache as model_cache
from searchengine.images import DECODING
from searchengine.indexing.model import computed_by
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.reading import Reading, read_ahead
from searchengine.indexing.scan import Candidate
from searchengine.processors import processors, share_processors

AUTO = "auto"
_PATIENCE = 10.0  # seconds for a machine to answer
_ADDRESS_VARIABLE = "RAY_ADDRESS"
# No usage statistics are sent, and Ray's messages about workers that die are not printed among results.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
# For Ray started here. It listens on the loopback interface only (on Linux this variable does it, despite its name) and
# requires a token, because anyone who reaches Ray without one can run programs. It may be slow to start when busy.
_PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_gcs_server_port_wait_time_s": "120",
}


def check_installed() -> None:
    """Raise MissingPackageError, with the command that installs it, if Ray is missing."""
    if find_spec("ray") is None:
        raise missing_extra("Ray", "ray")


class Cluster:
    """Ray for one run: an existing cluster, or Ray started on this machine alone, which ``close`` ends.

    Raises IndexingError if the cluster does not answer, or has no room for a worker.
    """

    def __init__(self, options: IndexingOptions) -> None:
        self._options = options
        self._before: dict[str, str | None] = {}  # the previous values of the environment variables set here
        self._is_ours = not _is_initialized()  # otherwise the caller has started Ray, with its own settings
        address = (os.environ.get(_ADDRESS_VARIABLE) or AUTO) if options.ray == AUTO else str(options.ray)
        try:
            if self._is_ours:
                self._set(_QUIET)
                if address == AUTO:
                    self._set({**_PRIVATE, "RAY_AUTH_TOKEN": _token()})
                elif "RAY_AUTH_MODE" not in os.environ and _has_token():
                    self._set({"RAY_AUTH_MODE": "token"})  # as `ray start` does by itself
            import ray

            self.ray: Any = ray
            if self._is_ours:
                self._connect(address)
            self.workers = options.ray_actors or self._capacity()
        except BaseException:
            self.close()
            raise

    def _set(self, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value

    def _connect(self, address: str) -> None:
        try:
            if address != AUTO:
                _check_listens(address)
                self._init(address=address)
                return
            try:
                self._start()
            except Exception:  # Ray gives its processes 30 seconds, which a busy machine may exceed
                self.ray.shutdown()
                self._start()
        except Exception as error:  # Ray raises exceptions of all kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            if address == AUTO:
                raise IndexingError(f"Ray cannot be started here ({lines[0]}). The run works without --ray.") from error
            raise IndexingError(
                f"There is no Ray at {address} for this run ({lines[0]}). This machine must be part of the cluster "
                "(`ray start --address ...`), with the same versions of Ray and Python."
            ) from error

    def _start(self) -> None:
        store = self._options.ray_store_mb * 10**6
        self._init(address="local", num_cpus=processors(), object_store_memory=store, include_dashboard=False)

    def _init(self, **settings: Any) -> None:
        self.ray.init(**settings, log_to_driver=False, logging_level="CRITICAL")

    def _capacity(self) -> int:
        """Return how many workers the machines have room for."""
        options = self._options
        workers = 0
        for node in self.ray.nodes():
            free = node["Resources"] if node["Alive"] else {}
            room = free.get("CPU", 0) // options.ray_cpus
            if options.ray_gpus:
                room = min(room, free.get("GPU", 0) // options.ray_gpus)
            workers += int(room)
        if not workers:
            raise IndexingError(
                f"No machine of the Ray cluster has what a worker needs, --ray-cpus {options.ray_cpus} --ray-gpus "
                f"{options.ray_gpus:g}. Ask for less."
            )
        return workers

    def close(self) -> None:
        """Disconnect, and end Ray if it was started here."""
        if self._is_ours and _is_initialized():
            self.ray.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_listens(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT, ValueError if it is not an address. Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
        pass


@cache
def _token() -> str:
    """Return a token, the same for all runs of this process because Ray remembers it."""
    return secrets.token_hex(32)


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or Path("~/.ray/auth_token").expanduser().exists()


def _is_initialized() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


# -- workers ----------------------------------------------------------------------------------------------------------

_PIECE = 2**24  # bytes of a model that are sent at a time
_HASH = np.dtype("S16")  # of a content hash


class Worker:
    """The actor. Two threads call its methods, so it decodes one batch while it embeds another."""

    def __init__(self, threads: int) -> None:
        share_processors(threads)
        self._threads = threads
        self._extractor: Extractor | None = None

    def prepare(self, recipe: ExtractorRecipe, decoding: int, model: SentModel | None = None) -> dict[str, str] | None:
        """Load the model and return ``computed_by`` it, or None if its exported form is missing here and must be sent.

        Raises ExtractorError if it cannot run as the recipe says, or if images are decoded differently here.
        """
        if decoding != DECODING:
            raise ExtractorError("It has another version of searchengine, which decodes images differently.")
        if model is not None:
            model.store(recipe.spec)
        elif recipe.needs_export and model_cache.lookup(recipe.spec) is None:
            return None
        self._extractor = recipe.load(lambda text: None)
        self._extractor.embed(np.zeros((1, *recipe.spec.input_size, 3), np.uint8))
        return computed_by(self._extractor)

    def read(self, candidates: Sequence[Candidate], known_content: Container[bytes]) -> list[Reading]:
        """Read files, and decode and embed new content. Pictures are returned with features instead of pixels."""
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
    """An exported model that is sent to other machines: each of its files, in pieces in Ray's object store."""

    parts: tuple[int, ...]
    files: dict[str, list[Any]]

    @classmethod
    def of(cls, spec: ExtractorSpec, put: Callable[[bytes], Any]) -> SentModel:
        """Read the model from the cache of this machine. Raises ExtractorError if there is none."""
        model = model_cache.lookup(spec)
        if model is None:
            raise ExtractorError("The exported model is missing on this machine too. Give --runtime keras.")
        files = {}
        for name in model_cache.MODEL_FILES:
            with (model.xml.parent / name).open("rb") as file:
                files[name] = [*map(put, iter(partial(file.read, _PIECE), b""))]
        return cls(model.parts, files)

    def store(self, spec: ExtractorSpec) -> None:
        """Store the model in the cache of the machine where this is called."""
        import ray

        files = {name: (ray.get(piece) for piece in pieces) for name, pieces in self.files.items()}
        model_cache.store(spec, self.parts, files, lambda text: None)


class KnownContent:
    """Content hashes as one sorted array, which the workers of a machine share in Ray's object store."""

    def __init__(self, hashes: Collection[bytes]) -> None:
        self._hashes = np.array(sorted(hashes), dtype=_HASH)

    def __contains__(self, digest: object) -> bool:
        at = int(np.searchsorted(self._hashes, np.array(digest, dtype=_HASH)))
        return at < len(self._hashes) and bool(self._hashes[at] == np.array(digest, dtype=_HASH))
