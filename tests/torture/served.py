"""A real gunicorn with the model that ships, watched from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.web.test_gunicorn import ROOT, Server, free_port


class Watched(Server):
    """Its one worker must be the same from beginning to end."""

    @property
    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def megabytes(self) -> float:
        """What the worker holds in memory that is its own."""
        (worker,) = self.workers
        for line in Path(f"/proc/{worker}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1000
        raise AssertionError("no RssAnon")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=40)

    def raw(self, *lines: str) -> bytes:
        """Send lines as they are; whatever comes back before the connection is closed."""
        with self.connect() as connection:
            connection.sendall("\r\n".join([*lines, "Host: localhost", "Connection: close", "", ""]).encode("latin-1"))
            received = b""
            while more := connection.recv(65536):
                received += more
            return received


@contextmanager
def served(images: Path, index: Path | str, log: Path, **environ: str) -> Iterator[Watched]:
    """The server, up; when it comes down it must have kept its worker, and have nothing to complain of."""
    port = free_port()
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:create_app()"],
            cwd=ROOT,
            env={**os.environ, "SEARCHENGINE_INDEX_DIR": str(index), "PORT": str(port), **environ},
            stderr=said,
        )
    server = Watched(process, port, images, index)  # type: ignore[arg-type]
    try:
        for _ in range(1200):
            try:
                server.ask("GET", "/healthz")
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        workers = server.workers
        assert len(workers) == 1
        yield server
        assert server.workers == workers, log.read_text()
        assert server.ask("GET", "/healthz")[0] == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0
    assert "Traceback" not in log.read_text(), log.read_text()


def offline(images: Path, index: Path, *flags: str) -> subprocess.Popen[str]:
    """The offline script with the model that ships, begun."""
    command = [sys.executable, str(ROOT / "offline_index.py"), str(images), "--index-dir", str(index)]
    return subprocess.Popen(
        [*command, "--model", "efficientnet-lite0", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
