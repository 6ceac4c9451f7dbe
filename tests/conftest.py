"""What several test folders share."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from searchengine.extractors import export, frameworks
from searchengine.processors import processors
from searchengine.settings import Settings, variable

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# The same examples in every run, however slow the machine: what fails here fails everywhere.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def cache_dir_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of exported models for the whole run, whose lock lets parallel workers share it."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache"


# These load TensorFlow, which takes seconds and a gigabyte.
LOADS_TENSORFLOW = (
    "tests/extractors/",
    "tests/learn/triplets/",
    "tests/indexing/test_model.py",
    "tests/test_compat.py",
)


class ByModule(LoadScopeScheduling):
    """Gives all tests of a module to one worker, because they share fixtures, and all with TensorFlow to one."""

    def _split_scope(self, nodeid: str) -> str:
        return "TensorFlow" if nodeid.startswith(LOADS_TENSORFLOW) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    config.option.loadscopereorder = False  # in the order of ``pytest_collection_modifyitems``
    return ByModule(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors, because tests also wait: for a browser, a server or the disk."""
    return min(4, processors() + 1)


def pytest_xdist_setupnodes() -> None:
    """One thread for each worker's linear algebra, because several would wait for processors that others use."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, so that no worker begins one when the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(LOADS_TENSORFLOW), item.path not in slow))


def pytest_collection_finish() -> None:
    """What is imported by now stays: collections of garbage need not look through it again and again."""
    gc.collect()
    gc.freeze()


def isolate(environment: pytest.MonkeyPatch, cache_dir: Path) -> None:
    """No test reads or writes the user's caches, nor sees the user's settings."""
    for field in Settings.model_fields:
        environment.delenv(variable(field), raising=False)
    environment.setenv("SEARCHENGINE_CACHE_DIR", str(cache_dir))


@pytest.fixture(scope="session", autouse=True)
def isolated_fixtures(cache_dir_of_the_run: Path) -> Iterator[None]:
    """For fixtures of modules and sessions, which are made before those of a test."""
    with pytest.MonkeyPatch.context() as environment:
        isolate(environment, cache_dir_of_the_run)
        yield


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, cache_dir_of_the_run: Path) -> None:
    """Again for each test, whatever fixtures set."""
    isolate(monkeypatch, cache_dir_of_the_run)


def export_in_process(monkeypatch: pytest.MonkeyPatch, *, tasks: Collection[str] = ("describe", "export")) -> None:
    """Run these tasks in this process, where TensorFlow is loaded once for many tests.

    test_custom.py runs them in a subprocess, and so do the tests with the packaged model.
    """
    run = frameworks.run_task

    def run_or_start(task: str, request: dict[str, Any], say: frameworks.Say, *, doing: str) -> Mapping[str, Any]:
        if task not in tasks:
            return run(task, request, say, doing=doing)
        return export.TASKS[task](request, say)

    monkeypatch.setattr(frameworks, "run_task", run_or_start)


@pytest.fixture
def described_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    export_in_process(monkeypatch, tasks=["describe"])


@pytest.fixture
def exported_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    export_in_process(monkeypatch)


def draw(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A smooth random picture of (width, height); another seed gives one that looks quite different."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve pictures in two subfolders, of which one file is no image."""
    folder = tmp_path_factory.mktemp("drawings")
    for i in range(12):
        place = folder / ("warm" if i % 2 else "cold")
        place.mkdir(exist_ok=True)
        draw(i).save(place / f"{i:02d}.jpg", quality=90)
    (folder / "warm" / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    from tests.web.browsing import CHROMIUM, FLAGS

    # One for all: Playwright's synchronous interface runs once in a process.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()
