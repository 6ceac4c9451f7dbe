"""A server under load, under fuzz, and beside runs that are killed: no failed request, no worker lost, memory flat."""

from __future__ import annotations

import io
import json
import os
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from searchengine.indexing.verify import verify
from tests.images.hostile import make_hostile
from tests.images.pictures import every_format, jpeg_of_size, png
from tests.torture.clients import MULTIPART, Answer, a_photo, ask_all, get, upload
from tests.torture.conftest import sizes
from tests.torture.looking import contents
from tests.torture.served import Watched, offline, served
from tests.web.fake import draw_collection
from tests.web.test_uploads import form

pytestmark = pytest.mark.torture

COMMON = settings(suppress_health_check=list(HealthCheck))
FILES = list(every_format().values())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("served")
    images = draw_collection(folder / "images", 60)
    assert offline(images, folder / "index").wait(600) == 0
    environ = {"SEARCHENGINE_CACHE_DIR": os.environ.get("SEARCHENGINE_CACHE_DIR", str(folder / "cache"))}
    with served(images, folder / "index", folder / "log", **environ) as server:
        yield server


# -- load -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration", sizes("TORTURE_LOAD_SECONDS", 20, 60))
def test_fifty_clients(duration: int, server: Watched) -> None:
    """`benchmarks/serving.py` prints how long they wait."""
    end = time.monotonic() + duration
    held: list[tuple[float, float]] = []
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_all, server.port, 50, lambda: time.monotonic() > end, ids=40)
        while time.monotonic() < end:
            held.append((time.monotonic(), server.megabytes))
            time.sleep(0.5)
        answers = asking.result()
    print(f"{len(answers)} requests by 50 clients in {duration} s: {Counter((a.way, a.status) for a in answers)}")
    settled = [m for at, m in held if at > end - duration * 0.6]
    print(f"memory of the worker's own: {held[0][1]:.0f} MB, {settled[0]:.0f} MB, {settled[-1]:.0f} MB in the end")
    assert [answer for answer in answers if not answer.good] == []
    assert len(answers) > 50
    assert max(settled[len(settled) // 2 :]) < max(settled[: len(settled) // 2]) + 60  # MB


@pytest.mark.parametrize("duration", sizes("TORTURE_HOSTILE_SECONDS", 6, 60))
def test_uploads_that_take_long_keep_nobody_waiting(duration: int, server: Watched) -> None:
    """Twenty clients upload what takes seconds to decode. Pages and photos of others are answered all the while."""
    hostile = interlaced_png()
    end = time.monotonic() + duration

    def attack() -> Counter[int]:
        seen: Counter[int] = Counter()
        while time.monotonic() < end:
            seen[upload(server.port, hostile).status] += 1
        return seen

    with ThreadPoolExecutor(20) as pool:
        attacks = [pool.submit(attack) for _ in range(20)]
        answers: list[Answer] = []
        while time.monotonic() < end:
            answers += [get(server.port, "/search?id=1"), upload(server.port, a_photo(1))]
        seen = sum((attacking.result() for attacking in attacks), Counter())
    print(f"hostile: {dict(seen)}; others: {len(answers)}, at most {max(a.seconds for a in answers):.2f} s")
    assert [answer for answer in answers if not answer.good] == []
    assert seen.keys() <= {200, 503, 0}  # 0: a client that waits no longer
    assert seen[503] > 0


def interlaced_png() -> bytes:
    side = 6000  # 36 megapixels: some seconds
    rows = bytes(side * (1 + side * 4) + 8 * side)
    data = png(side, side, 8, 6, rows)
    return data[:28] + b"\1" + zlib.crc32(data[12:28] + b"\1").to_bytes(4) + data[33:]


# -- fuzz -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", sizes("TORTURE_FUZZ", 100, 300))
def test_whatever_is_uploaded_gets_an_answer_of_ours(examples: int, server: Watched, tmp_path: Path) -> None:
    seen: Counter[int] = Counter()
    held: list[float] = []

    def upload(data: bytes, name: str = "a.jpg") -> None:
        status, headers, body = server.ask("POST", "/search", form(("image", data, name)), MULTIPART)
        seen[status] += 1
        assert status in (200, 400, 413, 415, 422), (status, data[:40])
        assert headers["content-type"] == "application/json"
        if status != 200:
            assert json.loads(body)["error"].endswith(".")
        if sum(seen.values()) % 20 == 0:
            held.append(server.megabytes)

    @settings(COMMON, max_examples=examples // 2)
    @given(data=st.data())
    def mutated(data: st.DataObject) -> None:
        file = bytearray(data.draw(st.sampled_from(FILES)))
        for _ in range(data.draw(st.integers(1, 8))):
            at = data.draw(st.integers(0, len(file)))
            some = data.draw(st.binary(max_size=6))
            file[at : at + data.draw(st.sampled_from([0, len(some), 1, 50]))] = some
        upload(bytes(file))

    @settings(COMMON, max_examples=examples // 4)
    @given(head=st.sampled_from([b"", *(file[:16] for file in FILES)]), rest=st.binary(max_size=600))
    def random_bytes(head: bytes, rest: bytes) -> None:
        upload(head + rest)

    @settings(COMMON, max_examples=examples // 4)
    @given(name=st.text(st.characters(blacklist_characters='"\r\n', codec="utf-8"), max_size=60))
    def names(name: str) -> None:
        upload(FILES[0], name)

    upload(a_photo(0, (6000, 4000)))  # what a large one takes, once
    before = server.megabytes
    mutated()
    random_bytes()
    names()
    make_hostile(tmp_path / "hostile")
    for file in sorted((tmp_path / "hostile").rglob("*")):
        if file.is_file() and file.stat().st_size < 10**6:
            upload(file.read_bytes())
    for bomb in (jpeg_of_size(50_000, 50_000), png(50_000, 50_000, 1, 0, bytes(5_000_000)), a_gif_of_many_frames()):
        for _ in range(5):
            upload(bomb)
    for seed in range(10):
        upload(a_photo(seed, (6000, 4000)))
    print(f"answers: {dict(seen)}; memory of the worker's own: {before:.0f} MB, at most {max(held):.0f} MB")
    assert seen[200] > 20
    assert seen[415] > 20
    assert seen[413] >= 10
    assert max(held) < before + 400


def a_gif_of_many_frames() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("L", (2000, 2000), level) for level in range(60)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


# -- runs that are killed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", sizes("TORTURE_SERVED_KILLS", 6, 12))
def test_runs_are_killed_while_the_server_reads(runs: int, tmp_path: Path) -> None:
    """New pictures, removals with compaction, rebuilds: each killed at a random moment, time and again."""
    images, index = tmp_path / "images", tmp_path / "index"
    draw_collection(images, 60)
    assert offline(images, index).wait(600) == 0
    chance = random.Random(2)
    stop = threading.Event()
    killed, longest = 0, 4.0  # s that a run is left to itself
    with served(images, index, tmp_path / "log") as server, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_all, server.port, 4, stop.is_set, ids=40)
        try:
            for turn in range(runs):
                more = images / f"more {turn}"
                more.mkdir()
                for i in range(40):
                    (more / f"{i}.jpg").write_bytes(a_photo(1000 * turn + i, (64, 48)))
                if turn > 1:  # what is asked for by id is not among them
                    for file in (images / f"more {turn - 2}").iterdir():
                        file.unlink()
                run = offline(images, index, "--batch-size", "4", "--prune-all", *["--rebuild"] * (turn % 3 == 2))
                time.sleep(chance.uniform(0, longest))
                if run.poll() is None:
                    killed += 1
                else:  # a quick machine
                    longest /= 2
                run.kill()
                run.wait()
                assert not asking.done(), asking.exception()
            assert offline(images, index, "--prune-all").wait(600) == 0
        finally:
            stop.set()
        answers = asking.result()
        left = sum(1 for file in images.rglob("*") if file.is_file())
        assert json.loads(server.ask("GET", "/healthz")[2])["images"] == left
    print(f"{killed} of {runs} runs were killed under {len(answers)} requests")
    assert killed >= runs // 2
    assert [answer for answer in answers if not answer.good] == []
    assert verify(index).sound
    assert offline(images, tmp_path / "clean").wait(600) == 0
    made, clean = contents(index), contents(tmp_path / "clean")
    assert made is not None
    assert clean is not None
    assert made.rows.keys() == clean.rows.keys()
    for path, row in clean.rows.items():
        np.testing.assert_allclose(made.rows[path].feature, row.feature, atol=0.02)  # batches differ, so do last bits
        assert made.rows[path].content_hash == row.content_hash
