"""A real Milvus server for tests, by the package ``milvus``: started when it is needed, killed and started again.

Only one runs on a machine at a time, because the etcd in it takes a port that cannot be chosen; tests in other
processes wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from searchengine.address import MilvusAddress, MilvusOptions

_STARTS = 120  # s, on a machine that has much else to do


class MilvusServer:
    """One server with its data in a folder. Kill it, start it again: what was written is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._launcher: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; now and then the server crashes as it starts, and is started again."""
        # by default, what a killed server was in charge of stays with it for half a minute
        command = [sys.executable, "-c", "import milvus; milvus.main()", "--data", str(self.folder)]
        command += ["--proxy-port", str(self.port), "--extra-config", "common.session.ttl=5"]
        end = time.monotonic() + _STARTS
        while not self._answers():
            assert time.monotonic() < end, self._log()
            if self._launcher is None or self._has_failed():
                self.kill()
                with (self.folder / "launcher.log").open("ab") as log:
                    self._launcher = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            time.sleep(0.2)

    def _has_failed(self) -> bool:
        """Whether the launcher has ended, or the server under it, of which the launcher takes no notice."""
        assert self._launcher is not None
        return self._launcher.poll() is not None or any(
            "Z (zombie)" in Path(f"/proc/{child}/status").read_text() for child in _children(self._launcher.pid)
        )

    def _log(self) -> str:
        logs = [self.folder / "launcher.log", *self.folder.glob("logs/milvus-*.log")]
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)

    def _answers(self) -> bool:
        from pymilvus import MilvusClient

        with contextlib.suppress(Exception):
            client = MilvusClient(uri=f"http://127.0.0.1:{self.port}", timeout=2)
            try:
                client.list_collections(timeout=2)
            finally:
                client.close()
            return True
        return False

    def kill(self) -> None:
        """SIGKILL for the server itself, and for what started it."""
        launcher, self._launcher = self._launcher, None
        if launcher is None:
            return
        for process in (*_children(launcher.pid), launcher.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        launcher.wait()

    def address(self, collection: str, **options: object) -> MilvusAddress:
        """The address of a collection."""
        return MilvusAddress("127.0.0.1", self.port, collection, MilvusOptions(**options))  # type: ignore[arg-type]


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _free_port() -> int:
    """One that no connection is given by chance: a server that finds its port in use takes another."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


_started: list[MilvusServer] = []  # one at most
_turn = FileLock(Path(tempfile.gettempdir()) / "searchengine-tests-milvus.lock")


def server() -> MilvusServer:
    """The server of this process; the test is skipped where there can be none."""
    if not _started:
        if importlib.util.find_spec("milvus") is None or importlib.util.find_spec("pymilvus") is None:
            pytest.skip("needs the packages milvus (a server for Linux on x86-64) and pymilvus")
        _turn.acquire(timeout=900)
        _started.append(MilvusServer(Path(tempfile.mkdtemp(prefix="milvus-"))))
    return _started[0]


def stop_server() -> None:
    """At the end of a module, where one was started."""
    while _started:
        server = _started.pop()
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)
    _turn.release()


def collection_of(place: Path) -> str:
    """A name for the collection of a test that has a folder of its own."""
    return f"t{hashlib.sha256(bytes(place)).hexdigest()[:16]}"
