"""Runs on Ray, compared with the same runs without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.address import Address
from searchengine.engine import open_index
from searchengine.errors import ExtractorError, IndexingError, IndexNotFoundError
from searchengine.extractors import ExtractorRecipe, cache
from searchengine.index.storage import storage_of
from searchengine.index.writer import IndexWriter
from searchengine.indexing import update_index
from tests.conftest import draw
from tests.extractors.tiny import SPEC, put_tiny_model
from tests.milvus import collection_of, server, stop_server
from tests.torture.looking import Contents, answers, contents
from tests.torture.ray_run import KILLER, run
from tests.waiting import wait_until

# Of Ray that a test starts itself: as a run starts it, on the loopback interface, with a token.
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
}


@pytest.fixture(autouse=True)
def place_of_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for Ray's sockets, whose paths must be short, without those of another Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make 61 images, two of them equal, and a file that is not an image."""
    put_tiny_model()
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        draw(i).save(folder / f"{i:02d}.jpg")
    shutil.copyfile(folder / "07.jpg", folder / "copy.jpg")
    (folder / "no image.jpg").write_bytes(b"no image")
    return folder


def without_features(held: Contents | None) -> Contents:
    assert held is not None
    return replace(held, rows={path: replace(row, feature=()) for path, row in held.rows.items()})


def check_same(index: Path, other: Path, skipped: frozenset[str] = frozenset()) -> None:
    """Check that two indexes have the same contents and ids, except that the first has skipped some more files."""
    held, expected = without_features(contents(index)), without_features(contents(other))
    assert held == replace(expected, skipped=expected.skipped | skipped)
    features = [np.load(folder / "features.npy") for folder in (index, other)]
    np.testing.assert_allclose(*features, rtol=1e-5)


@pytest.mark.torture
def test_the_index_is_that_of_a_run_without_ray(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "local")
    killer = "31 killer.jpg"  # a worker that reads it dies, and those in its place
    (photos / killer).write_bytes((photos / "31.jpg").read_bytes() + KILLER)
    with running(photos, tmp_path / "ray", seconds=0) as process:
        out, errors = process.communicate(timeout=500)
    done = json.loads(out)
    assert (done["images"], done["added"], done["embedded"], done["skipped"]) == (61, 61, 60, 2)
    said = sorted(line for line in errors.splitlines() if not line.startswith("Waiting for Ray"))  # on a busy machine
    assert len(said) == 2, errors
    assert said[0].startswith(f"skipped '{killer}': 3 Ray workers died while reading it.")
    assert said[1].startswith("skipped 'no image.jpg': ")
    check_same(tmp_path / "ray", tmp_path / "local", skipped=frozenset({killer}))


# -- the longer ones --------------------------------------------------------------------------------------------------


@pytest.fixture
def many(photos: Path, tmp_path: Path) -> Path:
    """Make enough images that something can happen midway, and an index of them."""
    for i in range(60, 300):
        draw(i).save(photos / f"{i}.jpg")
    run(photos, tmp_path / "local")
    return photos


@contextmanager
def running(photos: Path, index: Path, address: str = "auto", seconds: float = 0.1) -> Iterator[subprocess.Popen[str]]:
    """Start a run in a separate process, slow by default, which prints its summary and the skipped files."""
    command = [sys.executable, "-m", "tests.torture.ray_run", str(photos), str(index), address, str(seconds)]
    environment = {**os.environ, **(LOOPBACK if address != "auto" else {})}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def indexed(index: Path) -> int:
    try:
        opened = open_index(index)
    except IndexNotFoundError:
        return 0
    try:
        return len(opened)
    finally:
        opened.close()


def workers(folder: Path) -> list[int]:
    """Return the processes of the Ray whose files are in a folder."""
    return [pid for pid in all_processes() if str(folder) in environment_of(pid).get("RAY_TMPDIR", "")]


def actors(folder: Path) -> list[int]:
    """Return those that are actors."""
    return [pid for pid in workers(folder) if command_of(pid).startswith("ray::Worker")]


def all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.partition("=")[::2] for entry in text.split("\0"))


@contextmanager
def two_nodes(cache_dir: Path) -> Iterator[tuple[str, int]]:
    """Start two nodes; yield their address and the process id of the second, which has its own cache."""
    command = [sys.executable, "-m", "tests.torture.ray_nodes", str(cache_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **LOOPBACK}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, pid = process.stdout.readline().split()
        yield address, int(pid)
        process.stdin.close()


def summary(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    done: dict[str, Any] = json.loads(out)
    return done


@pytest.mark.longest
def test_a_worker_that_is_killed_is_replaced(many: Path, tmp_path: Path, place_of_ray: Path) -> None:
    with running(many, tmp_path / "index") as process:
        wait_until(lambda: indexed(tmp_path / "index") > 20)
        os.kill(actors(place_of_ray)[0], signal.SIGKILL)
        done = summary(process)
    assert (done["images"], done["skipped"]) == (301, 1)
    check_same(tmp_path / "index", tmp_path / "local")


@pytest.mark.longest
@pytest.mark.parametrize("kill", [False, True])
def test_two_nodes(many: Path, tmp_path: Path, place_of_ray: Path, kill: bool) -> None:
    """The second node lacks the model, which is sent to it. After it is killed, the first does the rest."""
    cache_dir = tmp_path / "cache of the second"
    with two_nodes(cache_dir) as (address, pid), running(many, tmp_path / "index", address) as process:
        wait_until(lambda: indexed(tmp_path / "index") > 20 and len(actors(place_of_ray)) == 2)
        if kill:
            os.kill(pid, signal.SIGKILL)
        done = summary(process)
    assert (done["images"], done["skipped"]) == (301, 1)
    check_same(tmp_path / "index", tmp_path / "local")
    sent, ours = cache_dir / "models" / SPEC.network.fingerprint, cache.entry_folder(SPEC)
    assert all((sent / name).read_bytes() == (ours / name).read_bytes() for name in cache.MODEL_FILES)


@pytest.mark.longest
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_ends_its_workers_and_resumes(
    many: Path, tmp_path: Path, place_of_ray: Path, ending: signal.Signals
) -> None:
    with running(many, tmp_path / "index") as process:
        wait_until(lambda: indexed(tmp_path / "index") > 20)
        process.send_signal(ending)
        process.communicate(timeout=60)
    wait_until(lambda: not workers(place_of_ray))
    done = answers(tmp_path / "index")
    assert 20 < done < 301
    with running(many, tmp_path / "index") as process:
        assert summary(process)["added"] == 301 - done
    check_same(tmp_path / "index", tmp_path / "local")


@pytest.mark.longest
def test_two_runs_of_a_process(photos: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run(photos, tmp_path / name, ray="auto", ray_actors=1).added == 61


@pytest.mark.longest
def test_a_worker_that_lacks_the_precision_of_the_index_is_refused(photos: Path, tmp_path: Path) -> None:
    if ExtractorRecipe(SPEC).load().precision == "bfloat16":
        pytest.skip("this processor has bfloat16")
    run(photos, tmp_path / "index")
    with closing(IndexWriter.open(tmp_path / "index")) as writer:
        writer.set({"precision": "bfloat16"})
    draw(60).save(photos / "new.jpg")
    with pytest.raises(ExtractorError, match=r"Ray has no worker left.*does not compute in bfloat16"):
        run(photos, tmp_path / "index", ray="auto")
    assert indexed(tmp_path / "index") == 61


@pytest.mark.longest
def test_more_than_a_machine_has_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match=r"No machine of the Ray cluster has .*--ray-cpus 1 --ray-gpus 1\. Ask"):
        run(photos, tmp_path / "index", ray="auto", ray_gpus=1)


@pytest.mark.longest
def test_a_cluster_that_does_not_answer_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match=r"There is no Ray at 127\.0\.0\.1:1 for this run"):
        update_index(photos, tmp_path / "index", extractor=ExtractorRecipe(SPEC).load(), ray="127.0.0.1:1")


@pytest.mark.longest
def test_into_milvus(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "local")
    try:
        address = server().address(collection_of(tmp_path))
        done = run(photos, address, ray="auto", ray_actors=2)
        assert (done.images, done.added, done.skipped) == (61, 61, 1)
        same, local = features_by_path(address), features_by_path(tmp_path / "local")
        assert same.keys() == local.keys()
        for path, feature in local.items():
            np.testing.assert_allclose(same[path], feature, rtol=1e-5)
        assert run(photos, address, ray="auto", ray_actors=2).unchanged == 61
    finally:
        stop_server()


def features_by_path(place: Address) -> dict[str, np.ndarray]:
    with closing(storage_of(place).read()) as index:
        return {record.path: index.feature(record.id) for record in index.page(n=100)}
