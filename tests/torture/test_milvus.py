"""A real Milvus server: normal use, and kills and restarts in the middle of a run and of serving."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.address import AnyAddress
from searchengine.cli.main import main
from searchengine.engine import SearchEngine, open_index
from searchengine.errors import IndexLockedError
from searchengine.index.filters import Filter
from searchengine.index.milvus import MilvusWriter, reader
from searchengine.index.milvus.connection import Connection
from searchengine.indexing import update_index
from searchengine.web import create_app
from tests.fakes import FakeExtractor
from tests.milvus import MilvusServer, server, stop_server
from tests.torture.photographs import png, write
from tests.torture.served import served
from tests.waiting import wait_until
from tests.web.fake import draw_collection

longest = pytest.mark.longest  # starting a server takes a minute on a busy machine


@pytest.fixture(scope="module")
def milvus() -> Iterator[MilvusServer]:
    yield server()
    stop_server()


@pytest.mark.torture
def test_pictures_are_indexed_found_and_served(
    milvus: MilvusServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, address = draw_collection(tmp_path / "images", 12), str(milvus.address("smoke"))
    assert main(["index", str(images), "--index-dir", address, "--model", "efficientnet-lite0"]) == 0
    with closing(SearchEngine.open(address)) as engine:
        feature = engine.index.feature(3)
        check_requests(engine, feature, monkeypatch)
    np.savetxt(tmp_path / "vector.txt", feature[None])

    def found(*query: str) -> list[str]:
        capsys.readouterr()
        assert main(["search", *query, "--index-dir", address, "--json", "--k", "4"]) == 0, capsys.readouterr().err
        return [hit["path"] for hit in json.loads(capsys.readouterr().out)["hits"]]

    by_vector, by_id = found("--vector", str(tmp_path / "vector.txt")), found("--id", "3")
    assert len(by_id) == len(by_vector) == 4
    assert by_vector == by_id
    label = by_vector[0].partition("/")[0]
    assert {path.partition("/")[0] for path in found("--id", "5", "--label", label)} == {label}

    with served(images, address, tmp_path / "log") as server:
        status, _, page = server.ask("GET", "/search?id=3")
        assert status == 200, page
        assert by_id[0].rpartition("/")[2] in page.decode()


def check_requests(engine: SearchEngine, feature: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that, once a snapshot is cached, a search by a vector is one request, and one by an id two."""
    asked: list[object] = []
    ask = Connection.ask

    def counted(connection: Connection, question: Any) -> Any:
        asked.append(question)
        return ask(connection, question)

    monkeypatch.setattr(Connection, "ask", counted)
    with monkeypatch.context() as patched:
        patched.setattr(reader, "_CACHED", 60.0)
        for query, requests in ((feature, 1), (5, 2), (5, 1)):
            asked.clear()
            assert len(engine.search(query, k=4)) == 4
            assert len(asked) == requests


class Interrupting(FakeExtractor):
    """Kills the server before the second batch is embedded, and restarts it while the run continues."""

    def __init__(self, milvus: MilvusServer) -> None:
        super().__init__()
        self.milvus = milvus
        self.starting: threading.Thread | None = None

    def embed(self, images: Any) -> NDArray[np.float32]:
        if self.embedded and self.starting is None:
            self.milvus.kill()
            self.starting = threading.Thread(target=self.milvus.start)
            self.starting.start()
        return super().embed(images)


def contents(address: AnyAddress) -> dict[str, tuple[Any, ...]]:
    """Return all properties of the images of an index, by path."""
    index = open_index(address)
    try:
        state = index.state()
        records = index.records(state.ids[state.live].tolist())
        assert len({record.path for record in records}) == len(records) == len(index) == index.count(Filter(ids=None))
        return {
            record.path: (record.labels, record.size, record.content_hash, record.colour, row.tobytes())
            for record, row in zip(records, state.rows[state.live], strict=True)
        }
    finally:
        index.close()


def nearest(address: AnyAddress, path: str, **choices: Any) -> list[tuple[str, float]]:
    """Return (path, distance) of the images nearest to one."""
    index = open_index(address)
    try:
        (image,) = [record for record in index.page(n=1000) if record.path == path]
        return [(hit.path, hit.distance) for hit in index.search(index.feature(image.id), 12, **choices)[0]]
    finally:
        index.close()


@longest
def test_a_server_that_is_killed_loses_nothing(milvus: MilvusServer, tmp_path: Path) -> None:
    photos, local = write(tmp_path / "photos", range(60)), tmp_path / "local"
    address = milvus.address("killed", timeout=2.0)
    interrupting = Interrupting(milvus)
    done = update_index(photos, address, extractor=interrupting, batch_size=20)
    assert interrupting.starting is not None
    interrupting.starting.join()
    assert (done.added, done.embedded, interrupting.embedded) == (60, 60, 60)
    update_index(photos, local, extractor=FakeExtractor())
    assert contents(address) == contents(local)
    some = next(iter(contents(local)))
    for choices in ({}, {"metric": "manhattan"}, {"filter": Filter(labels=("label1",))}):
        assert nearest(address, some, **choices) == nearest(local, some, **choices)

    # the server of a running page goes away and comes back
    app = create_app({"index_dir": address, "milvus_timeout": 2.0, "TESTING": True})
    client = app.test_client()
    assert client.get("/").status_code == client.get("/search?id=7").status_code == 200
    milvus.kill()
    away = client.get("/search?id=7")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "10")
    assert "does not answer" in away.text
    milvus.start()
    wait_until(lambda: client.get("/search?id=7").status_code == 200)

    # the folder changes
    files = sorted(photos.rglob("*.png"))
    files[0].unlink()
    files[1].rename(photos / "moved.png")
    files[2].write_bytes(png(777))
    write(photos, [800, 801])
    (photos / "broken.jpg").write_bytes(b"broken")
    summaries = [update_index(photos, place, extractor=FakeExtractor()).to_dict() for place in (address, local)]
    assert {**summaries[0], "seconds": 0} == {**summaries[1], "seconds": 0}
    assert contents(address) == contents(local)
    assert client.get("/search?id=7").status_code == 200


@longest
@pytest.mark.parametrize("kills", [int(os.environ.get("TORTURE_MILVUS_KILLS", "10"))])
def test_runs_that_are_killed_are_resumed(milvus: MilvusServer, tmp_path: Path, kills: int) -> None:
    photos, local, address = write(tmp_path / "photos", range(200)), tmp_path / "local", milvus.address("resumed")
    command = [sys.executable, "-m", "tests.torture.fake_run", str(photos), str(address)]
    chance = random.Random(7)
    for _ in range(kills):
        run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(1.0, 8.0))
        run.send_signal(signal.SIGKILL)
        run.wait()
        if chance.random() < 0.5:
            write(photos, [chance.randrange(300, 900)])
    assert subprocess.run(command, check=False).returncode == 0
    update_index(photos, local, extractor=FakeExtractor())
    assert contents(address) == contents(local)
    shutil.rmtree(tmp_path / "photos" / "label1")
    for place in (address, local):
        update_index(photos, place, extractor=FakeExtractor(), prune=True)
    assert contents(address) == contents(local)


@longest
def test_two_runs_do_not_write_at_once(milvus: MilvusServer, tmp_path: Path) -> None:
    photos, address = write(tmp_path / "photos", range(20)), milvus.address("twice")
    update_index(photos, address, extractor=FakeExtractor())
    writer = MilvusWriter.open(address)  # without the lock of this machine, as on another machine
    try:
        with pytest.raises(IndexLockedError, match="Another run is writing"):
            update_index(photos, address, extractor=FakeExtractor())
    finally:
        writer.close()
    assert update_index(photos, address, extractor=FakeExtractor()).unchanged == 20
