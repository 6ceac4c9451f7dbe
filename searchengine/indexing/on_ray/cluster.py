"""Connecting to Ray, or starting it for one run."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from searchengine.errors import IndexingError, missing_extra
from searchengine.indexing.options import IndexingOptions
from searchengine.processors import processors

AUTO = "auto"
_PATIENCE = 10.0  # seconds for a machine to answer
_ADDRESS_VARIABLE = "RAY_ADDRESS"
# Nothing is reported to anybody, and what Ray has to say of workers that die is not printed among results.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
# Of Ray that is started here: it listens on the loopback interface only, which on Linux it does under this name, and
# answers those who know the token. Whoever reaches Ray without one can run programs.
# It may take its time on a busy machine.
_PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_gcs_server_port_wait_time_s": "120",
}


def check_installed() -> None:
    """MissingPackageError, with the command that installs it, where there is no Ray."""
    if find_spec("ray") is None:
        raise missing_extra("Ray", "ray")


class Cluster:
    """Ray as a run uses it: a cluster that runs already, or one of this machine alone, ended by ``close``.

    IndexingError where the cluster does not answer, or has no room for a worker.
    """

    def __init__(self, options: IndexingOptions) -> None:
        self._options = options
        self._before: dict[str, str | None] = {}  # the environment variables that were set here, as they were
        self._is_ours = not _is_initialized()  # else it is the caller's, as are its settings
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
            self.workers = options.ray_actors or self._places()
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
        except Exception as error:  # what Ray raises is of every kind
            lines = str(error).strip().splitlines() or [type(error).__name__]
            if address == AUTO:
                raise IndexingError(f"Ray cannot be started here ({lines[0]}). The run works without --ray.") from error
            raise IndexingError(
                f"There is no Ray at {address} for this run ({lines[0]}). This machine must be one of the cluster "
                "(`ray start --address ...`), with the same Ray and Python."
            ) from error

    def _start(self) -> None:
        store = self._options.ray_store_mb * 10**6
        self._init(address="local", num_cpus=processors(), object_store_memory=store, include_dashboard=False)

    def _init(self, **settings: Any) -> None:
        self.ray.init(**settings, log_to_driver=False, logging_level="CRITICAL")

    def _places(self) -> int:
        """How many workers the machines have room for."""
        options = self._options
        places = 0
        for node in self.ray.nodes():
            free = node["Resources"] if node["Alive"] else {}
            room = free.get("CPU", 0) // options.ray_cpus
            if options.ray_gpus:
                room = min(room, free.get("GPU", 0) // options.ray_gpus)
            places += int(room)
        if not places:
            raise IndexingError(
                f"No machine of the Ray cluster has what a worker needs, --ray-cpus {options.ray_cpus} --ray-gpus "
                f"{options.ray_gpus:g}. Ask for less."
            )
        return places

    def close(self) -> None:
        """Disconnect; end Ray if it was started here."""
        if self._is_ours and _is_initialized():
            self.ray.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_listens(address: str) -> None:
    """OSError where nothing listens at HOST:PORT, ValueError where that is no address; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
        pass


@cache
def _token() -> str:
    """One for all runs of this process, in which Ray remembers it."""
    return secrets.token_hex(32)


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or Path("~/.ray/auth_token").expanduser().exists()


def _is_initialized() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
