"""The limit of nearness: measured in one pass, and again in the background."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from searchengine.errors import UnknownImageError
from searchengine.index.types import Hit
from searchengine.web.engines import Nearness
from tests.web.fake import FakeIndex


class Counting(FakeIndex):
    """An index that counts the passes over its features; ``size`` and ``fingerprint`` can be set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.passes = 0
        self.size = 45
        self.free = threading.Event()
        self.free.set()

    def search(self, queries: ArrayLike, k: int = 20, metric: str | None = None) -> list[list[Hit]]:
        self.free.wait(30)
        self.passes += 1
        return super().search(queries, k, metric)

    def __len__(self) -> int:
        return self.size


@pytest.fixture
def counting(collection: Path) -> Counting:
    return Counting(collection)


def settle(nearness: Nearness) -> None:
    assert nearness._limit._thread is not None
    nearness._limit._thread.join(30)


def test_it_is_measured_once_in_one_pass(counting: Counting) -> None:
    nearness = Nearness(counting)
    nearness.warm()
    assert counting.passes == 1
    assert nearness.is_far(0.9)
    assert not nearness.is_far(0.0)
    assert counting.passes == 1


def test_without_warming_up_the_first_call_measures(counting: Counting) -> None:
    assert Nearness(counting).is_far(0.9)
    assert counting.passes == 1


def test_a_doubled_collection_is_measured_in_the_background(counting: Counting) -> None:
    nearness = Nearness(counting)
    nearness.warm()
    counting.size = 100
    counting.free.clear()
    for _ in range(3):
        assert nearness.is_far(0.9)  # without waiting, the old limit is used
    assert counting.passes == 1
    counting.free.set()
    settle(nearness)
    assert counting.passes == 2
    assert nearness.is_far(0.9)
    assert counting.passes == 2


def test_the_limit_of_another_extractor_is_not_used(counting: Counting) -> None:
    nearness = Nearness(counting)
    nearness.warm()
    counting.fingerprint = "f" * 16
    assert nearness.is_far(0.9)
    assert counting.passes == 2


def test_small_collections_have_no_limit(counting: Counting) -> None:
    counting.size = 39
    nearness = Nearness(counting)
    nearness.warm()
    assert not nearness.is_far(100.0)
    assert counting.passes == 0


def test_an_image_removed_during_the_measurement(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(image_id: int) -> NDArray[np.float32]:
        raise UnknownImageError("The index holds no image 1.")

    nearness = Nearness(counting)
    with monkeypatch.context() as patched:
        patched.setattr(counting, "feature", gone)
        assert not nearness.is_far(0.9)
    assert nearness.is_far(0.9)


class NearCopies(Counting):
    """An index where every picture has a near copy, at a hundredth of the distance between kinds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._features = {id_: np.array([id_ // 2 * 1.0, id_ % 2 * 0.01, 0.0]) for id_ in self.images}


def test_similar_images_among_near_copies_are_not_far(collection: Path) -> None:
    nearness = Nearness(NearCopies(collection))
    nearness.warm()
    assert not nearness.is_far(2.0)  # 200 times as far as a copy, but much nearer than most others
    assert nearness.is_far(20.0)
