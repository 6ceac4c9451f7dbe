"""Real servers behind gunicorn, and an index of any size for them."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import vgg16
from measuring import peak_mib, resident_mib, say
from numpy.typing import NDArray

from searchengine.extractors import Extractor, ExtractorSpec
from searchengine.extractors.extractor import Images
from searchengine.images import DecodedImage

ROOT = Path(__file__).resolve().parents[1]


class RandomExtractor:
    """An ``Extractor`` with random features, for a large index without hours of embedding."""

    precision, runtime, device = "float32", "openvino", "CPU"

    def __init__(self, spec: ExtractorSpec, dimension: int) -> None:
        self.spec, self.dimension = spec, dimension
        self._random = np.random.default_rng(0)

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Return (n, d) float32, non-negative and of length 1, like features after a ReLU."""
        count = len(images)  # type: ignore[arg-type]
        rows = np.maximum(self._random.standard_normal((count, self.dimension), dtype=np.float32), 0)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def preprocess(self, data: bytes, max_pixels: int = 10**9) -> DecodedImage:
        """Return pixels that are not used."""
        return DecodedImage(np.zeros((1, 1, 3), dtype=np.uint8), 64, 48, "JPEG")


def make_index(folder: Path, images: Path, extractor: Extractor, rows: int) -> None:
    """Index this number of tiny files with random features, as if made by the extractor."""
    from searchengine.indexing import update_index

    images.mkdir(parents=True, exist_ok=True)
    for number in range(rows):
        file = images / f"{number:06d}.jpg"
        if not file.exists():
            file.write_bytes(b"\xff\xd8\xff\xe0" + number.to_bytes(8, "big"))
    random_extractor = RandomExtractor(extractor.spec, extractor.dimension)
    summary = update_index([images], folder, extractor=random_extractor)
    assert summary.images == rows, summary


class Server:
    """gunicorn with an application."""

    def __init__(
        self, application: str, environment: dict[str, str], *settings: str, threads: int = 4, root: Path = ROOT
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                "--bind",
                f"127.0.0.1:{self.port}",
                "--threads",
                str(threads),
                *(settings or ("-c", "gunicorn.conf.py")),
                application,
            ],
            cwd=root if not settings else root / "benchmarks",
            env={
                **os.environ,
                **environment,
                "PORT": str(self.port),
                "THREADS": str(threads),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def seconds_to(self, photo: bytes, accept: str = "application/json") -> float:
        """Return the seconds from the start of the process to its first response to a query."""
        while True:
            try:
                Client(self.port).query(photo, accept)
                return time.perf_counter() - self._started
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError(self._process.communicate()[1]) from None
                time.sleep(0.02)

    def peak(self) -> float:
        """Return the peak MiB of the worker, the largest if there are several."""
        return max((peak_mib(worker) for worker in self._workers()), default=0)

    def resident(self) -> float:
        """Return the current MiB of the worker, the largest if there are several."""
        return max((resident_mib(worker) for worker in self._workers()), default=0)

    def _workers(self) -> list[str]:
        pid = self._process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children")
        return workers.read_text().split() if workers.exists() else []

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Client:
    """One connection, kept open as by a browser."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def query(self, photo: bytes, accept: str, **fields: str) -> float:
        """Return the seconds from sending a photo, with more fields of the form, to the end of the response."""
        boundary = secrets.token_hex(16)  # a new one each time, as in browsers
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="query.jpg"\r\n'
        more = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        body = f"{more}{head}Content-Type: image/jpeg\r\n\r\n".encode() + photo + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Accept": accept}
        try:
            return self._timed(body, headers)
        except (BrokenPipeError, ConnectionResetError):  # idle for too long, so the server closed it
            self._connection.close()
            return self._timed(body, headers)

    def _timed(self, body: bytes, headers: dict[str, str]) -> float:
        start = time.perf_counter()
        self._connection.request("POST", "/search", body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - start
        if answer.status != 200 or (headers["Accept"] == "application/json" and not json.loads(content)["hits"]):
            raise RuntimeError(f"{answer.status}: {content[:300]!r}")
        return seconds


def serve_ours(index_dir: Path, cache: Path, root: Path = ROOT) -> Server:
    """Serve the product, or an older version of it in another folder."""
    environment = {"SEARCHENGINE_INDEX_DIR": str(index_dir), "SEARCHENGINE_CACHE_DIR": str(cache)}
    return Server("app:create_app()", environment, root=root)


def serve_reference(features: Path, weights: Path, uploads: Path) -> Server:
    """Serve a tutorial-style server: see reference_system.py."""
    say("starting the reference system ...")
    return Server(
        "reference_system:create_app()",
        {
            **vgg16.QUIET,
            "REFERENCE_FEATURES": str(features),
            "REFERENCE_WEIGHTS": str(weights),
            "REFERENCE_UPLOADS": str(uploads),
        },
        "--worker-class=gthread",
        "--timeout=120",
        "--no-control-socket",
    )
