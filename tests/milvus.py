"""A real Milvus server for tests, from the package ``milvus``, which can be killed and restarted.

Only one can run on a machine, because the port of its etcd cannot be chosen. Tests in other processes wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from searchengine.address import MilvusAddress, MilvusOptions

_START_SECONDS = 120  # on a busy machine
_END_SECONDS = 30


_PREPARE = """
import milvus, sys
server = milvus.default_server
server.config.extra_configs["common.session.ttl"] = 5
server.config.update(data_dir=sys.argv[1], proxy_port=int(sys.argv[2]))
server.config.resolve()
milvus._initialize_data_files(server.config.base_data_dir)
"""  # with the default ttl, the leases of a killed server last for half a minute


class MilvusServer:
    """One server, whose data in a folder survive a kill and a restart.

    The package writes the configuration and unpacks the program, but this class starts it. The package itself would
    briefly listen on the port to see whether it is free, and choose another one if a client connected meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        subprocess.run([sys.executable, "-c", _PREPARE, str(folder), str(self.port)], check=True)
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers. If a port is still taken it exits, and is started again."""
        end = time.monotonic() + _START_SECONDS
        environment = {
            **os.environ,
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(_free_port()),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "LD_LIBRARY_PATH": str(self.folder / "bin"),
        }
        command = [str(self.folder / "bin" / "milvus"), "run", "standalone"]
        while not self._answers():
            assert time.monotonic() < end, self._log()
            if self._process is None or self._process.poll() is not None:
                with (self.folder / "server.log").open("ab") as log:
                    self._process = subprocess.Popen(
                        command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
                    )
                self._watch(self._process.pid)
            time.sleep(0.2)

    def _watch(self, pid: int) -> None:
        """Start a process that kills the server when this process ends in any way, so that its etcd frees the port."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._guard = subprocess.Popen(
            ["sh", "-c", f"read -r _; kill -9 {pid}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate(timeout=_END_SECONDS)  # closes its pipe, so that it kills the server
        if process is not None:
            process.kill()
            process.wait(timeout=_END_SECONDS)

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-4000:]

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

    def address(self, collection: str, **options: object) -> MilvusAddress:
        """Return the address of a collection."""
        return MilvusAddress("127.0.0.1", self.port, collection, MilvusOptions(**options))  # type: ignore[arg-type]


def _free_port() -> int:
    """Return a port outside the ephemeral range, so that no outgoing connection takes it by chance."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


_started: list[MilvusServer] = []  # at most one
_lock = FileLock(Path(tempfile.gettempdir()) / "searchengine-tests-milvus.lock")


def server() -> MilvusServer:
    """Return the server of this process, started if necessary; skip the test if there cannot be one."""
    if not _started:
        if importlib.util.find_spec("milvus") is None or importlib.util.find_spec("pymilvus") is None:
            pytest.skip("needs the packages milvus (a server for Linux on x86-64) and pymilvus")
        _lock.acquire(timeout=900)
        _started.append(MilvusServer(Path(tempfile.mkdtemp(prefix="milvus-"))))
    return _started[0]


def stop_server() -> None:
    """Stop the server, if one was started; called at the end of a module."""
    while _started:
        server = _started.pop()
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)
    _lock.release()


def collection_of(place: Path) -> str:
    """Return a collection name for a test with its own folder."""
    return f"t{hashlib.sha256(bytes(place)).hexdigest()[:16]}"
