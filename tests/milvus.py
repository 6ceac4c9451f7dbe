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
_ENDS = 30  # s


_PREPARE = """
import milvus, sys
server = milvus.default_server
server.config.extra_configs["common.session.ttl"] = 5
server.config.update(data_dir=sys.argv[1], proxy_port=int(sys.argv[2]))
server.config.resolve()
milvus._initialize_data_files(server.config.base_data_dir)
"""  # by default, what a killed server was in charge of stays with it for half a minute


class MilvusServer:
    """One server with its data in a folder. Kill it, start it again: what was written is there.

    The package writes the configuration and unpacks the program, which is started here: the package itself would
    listen at the port for a moment to see whether it is free, and then take another if a client called meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        subprocess.run([sys.executable, "-c", _PREPARE, str(folder), str(self.port)], check=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; where a port is still taken, the server ends, and is started again."""
        end = time.monotonic() + _STARTS
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
        """Have the server killed when this process ends, however it does: it would keep the port of its etcd."""
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
        """SIGKILL."""
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate(timeout=_ENDS)  # its pipe is closed, and it kills
        if process is not None:
            process.kill()
            process.wait(timeout=_ENDS)

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
        """The address of a collection."""
        return MilvusAddress("127.0.0.1", self.port, collection, MilvusOptions(**options))  # type: ignore[arg-type]


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
