"""The server as in production: gunicorn, an index made by the offline script, the packaged model."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from searchengine.cli import offline_index
from tests.waiting import wait_until
from tests.web.conftest import encoded
from tests.web.fake import COLOURS, draw, draw_collection
from tests.web.test_uploads import form

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def index(images: Path, index_dir: Path) -> None:
    command = [sys.executable, str(ROOT / "offline_index.py"), str(images), "--index-dir", str(index_dir)]
    subprocess.run([*command, "--model", "efficientnet-lite0"], check=True, capture_output=True, cwd=ROOT)


def start(index_dir: Path, port: int, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:create_app()"],
        cwd=ROOT,
        env={**os.environ, "SEARCHENGINE_INDEX_DIR": str(index_dir), "PORT": str(port), **environ},
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    """Return a free port below those that the system uses for connections, so that it stays free."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Server:
    def __init__(self, process: subprocess.Popen[str], port: int, images: Path, index_dir: Path) -> None:
        self.process, self.port, self.images, self.index_dir = process, port, images, index_dir

    def ask(
        self, method: str, address: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, address, body, headers or {}, **options)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def wait_until_up(server: Server) -> None:
    """Wait for at most two minutes, because the machine may be busy with other tests."""
    for _ in range(1200):
        try:
            server.ask("GET", "/healthz")
            return
        except OSError:
            assert server.process.poll() is None, server.process.communicate()[1]
            time.sleep(0.1)
    raise AssertionError("the server did not come up")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    images = draw_collection(folder / "images", 16)
    index(images, folder / "index")
    port = free_port()
    # Only thumbnails: models exported for other tests may be used here too.
    process = start(folder / "index", port, SEARCHENGINE_MAX_UPLOAD_MB="1")
    served = Server(process, port, images, folder / "index")
    wait_until_up(served)
    yield served
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_pages_and_searches(server: Server) -> None:
    status, headers, page = server.ask("GET", "/")
    assert status == 200
    assert "16 pictures" in page.decode()
    assert headers["x-content-type-options"] == "nosniff"
    file = next(server.images.rglob("*.png"))
    status, _, body = server.ask(
        "POST",
        "/search",
        form(("image", file.read_bytes(), "mine.png")),
        {"Content-Type": "multipart/form-data; boundary=b", "Accept": "application/json"},
    )
    assert status == 200
    hits = json.loads(body)["hits"]
    assert len(hits) == 16
    assert hits[0]["path"].endswith(file.name)
    assert hits[0]["distance"] == pytest.approx(0, abs=1e-2)
    first = hits[0]["id"]
    status, _, body = server.ask("GET", f"/search?id={first}&k=3", headers={"Accept": "application/json"})
    assert json.loads(body)["hits"][0]["id"] == first
    assert server.ask("GET", f"/thumbnails/{first}")[1]["content-type"] == "image/jpeg"
    assert server.ask("GET", f"/images/{first}")[2] == file.read_bytes()
    assert server.ask("HEAD", f"/images/{first}")[2] == b""


def test_no_tensorflow_is_loaded(server: Server) -> None:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    if not children.exists():
        pytest.skip("what a process has loaded is only told by Linux")
    workers = children.read_text().split()
    assert len(workers) == 1
    loaded = Path(f"/proc/{workers[0]}/maps").read_text()
    assert "openvino" in loaded
    assert "/site-packages/tensorflow/" not in loaded


def test_a_growing_index_shows_without_a_restart(server: Server) -> None:
    (server.images / "new.png").write_bytes(encoded(draw(COLOURS["white"], (90, 90), 999)))
    index(server.images, server.index_dir)
    assert json.loads(server.ask("GET", "/healthz")[2])["images"] == 17
    assert "17 pictures" in server.ask("GET", "/")[2].decode()


def test_a_broken_index_is_reported_until_it_is_restored(server: Server) -> None:
    """For example, truncating the matrix during a search ends the worker with a bus error."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    if not children.exists():
        pytest.skip("the children of a process are only listed by Linux")
    matrix = server.index_dir / "features.npy"
    whole = matrix.read_bytes()
    os.truncate(matrix, 5000)
    try:
        os.kill(int(children.read_text()), signal.SIGBUS)
        for _ in range(3):
            status, headers, body = server.ask("GET", "/")
            assert status == 503
            assert b"is damaged: it is cut short" in body
            assert headers["retry-after"]
    finally:
        matrix.write_bytes(whole)
    wait_until(lambda: server.ask("GET", "/healthz")[0] == 200)


def serve_command(port: int, *indexes: Path) -> list[str]:
    options = [option for index_dir in indexes for option in ("--index-dir", str(index_dir))]
    return [sys.executable, "-m", "searchengine", "serve", "--port", str(port), *options]


def test_a_missing_index_is_reported(server: Server, tmp_path: Path) -> None:
    command = serve_command(free_port(), server.index_dir, tmp_path / "none")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 1
    assert f"There is no index in {tmp_path / 'none'}" in run.stderr
    assert "Traceback" not in run.stderr
    assert "Listening" not in run.stderr


def test_several_indexes(server: Server, tmp_path: Path) -> None:
    images = draw_collection(tmp_path / "images", 1)
    assert offline_index([str(images), "--index-dir", str(tmp_path / "other"), "--model", "efficientnet-lite0"]) == 0
    port = free_port()
    command = serve_command(port, shutil.copytree(server.index_dir, tmp_path / "one"), tmp_path / "other")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    served = Server(process, port, images, tmp_path / "one")
    try:
        wait_until_up(served)
        health = json.loads(served.ask("GET", "/healthz")[2])
        counts = {index["name"]: index["images"] for index in health["indexes"]}
        assert counts == {"one": len(list(server.images.rglob("*.png"))), "other": 1}
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Accept": "application/json"}
        file = next(server.images.rglob("*.png"))
        body = form(("image", file.read_bytes(), "mine.png"))
        sides = json.loads(served.ask("POST", "/compare", body, headers)[2])["sides"]
        assert [(side["index"], len(side["hits"])) for side in sides] == list(counts.items())
        assert sides[0]["hits"][0]["path"].endswith(file.name)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
