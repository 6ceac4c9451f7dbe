"""A classifier on disk: it is restored unchanged, reports when it is stale, and refuses planted data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from searchengine.errors import ExtractorMismatchError, IndexDamagedError
from searchengine.index.local import LocalIndex
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from searchengine.indexing.verify import verify
from searchengine.learn import Classifier, latest_classifier, load_classifier, save_classifier, training_set
from searchengine.learn.classifiers import CLASSIFIER
from tests.learn.conftest import Indexed, clouds
from tests.learn.test_classifiers import REPORT
from tests.waiting import wait_until
from tests.web.mapped import read_only_mount


@pytest.fixture
def index(indexed: Indexed) -> LocalIndex:
    return indexed(*clouds((5, 4)))


def classifier_for(index: LocalIndex, seed: int = 0) -> Classifier:
    random = np.random.default_rng(seed)
    data = training_set(index)
    return Classifier(
        classes=("a", "b"),
        coefficients=random.standard_normal((2, 4)),
        intercepts=random.standard_normal(2),
        mean=random.standard_normal(4),
        scale=random.random(4) + 0.5,
        fingerprint=data.fingerprint,
        version=data.version,
        report=REPORT,
    )


def test_round_trip(index: LocalIndex) -> None:
    assert load_classifier(index) is None
    for seed in (0, 1):
        fitted = classifier_for(index, seed)
        save_classifier(index, fitted)
        read = load_classifier(index)
        assert read is not None
        assert not read.stale
        assert (read.classes, read.report) == (fitted.classes, fitted.report)
        rows = index.features
        np.testing.assert_array_equal(read.probabilities(rows), fitted.probabilities(rows))
    assert [file.name for file in index.folder.glob("classifier*")] == ["classifier.npz"]
    assert verify(index.folder).sound  # the index itself still works


def test_stale(index: LocalIndex) -> None:
    save_classifier(index, classifier_for(index))
    with IndexWriter.open(index.folder) as writer:
        writer.compact()
    read = load_classifier(index)
    assert read is not None
    assert not read.stale  # compaction does not make it stale
    with IndexWriter.open(index.folder) as writer:
        writer.commit(Batch(removed=[3]))
    read = load_classifier(index)
    assert read is not None
    assert read.stale


def test_latest(index: LocalIndex) -> None:
    latest = latest_classifier(index)
    assert latest.get() is None
    save_classifier(index, classifier_for(index))
    first = latest.get()
    assert first is not None
    assert latest.get() is first
    save_classifier(index, classifier_for(index, 1))
    second = latest.get()
    assert second is not None
    assert second is not first
    with IndexWriter.open(index.folder) as writer:
        writer.commit(Batch(removed=[3]))
    assert latest.get() is second  # no request waits while all labels are read
    wait_until(lambda: latest.get() is not second)
    third = latest.get()
    assert third is not None
    assert third.stale


def test_latest_on_a_read_only_mount(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    save_classifier(index, classifier_for(index))
    index.close()
    read_only_mount(monkeypatch)
    latest = latest_classifier(LocalIndex.open(index.folder))
    first = latest.get()
    assert first is not None
    assert not first.stale
    with IndexWriter.open(index.folder) as writer:
        writer.commit(Batch(removed=[3]))
    wait_until(lambda: latest.get() is not first)
    read = latest.get()
    assert read is not None
    assert read.stale


def test_another_extractor_is_refused(index: LocalIndex) -> None:
    save_classifier(index, classifier_for(index))
    with IndexWriter.open(index.folder) as writer:
        writer.set({"fingerprint": "0" * 16})
    with pytest.raises(ExtractorMismatchError, match="classify --fit"):
        load_classifier(index)


def plant(index: LocalIndex, **arrays: Any) -> None:
    """Write other arrays into the file of the classifier."""
    file = CLASSIFIER.path(index.folder)
    with np.load(file) as stored:
        content = {**dict(stored), **arrays}
    np.savez(file, **content)


@pytest.mark.parametrize(
    "wrong",
    [
        {"coefficients": np.zeros((2, 5))},
        {"coefficients": np.zeros((2, 4), dtype=np.float32)},
        {"intercepts": np.array([0.0, np.nan])},
        {"scale": np.zeros(4)},
        {"classes": np.array(["a", "a"])},
        {"classes": np.array([1, 2])},
    ],
)
def test_planted_arrays(wrong: dict[str, Any], index: LocalIndex) -> None:
    save_classifier(index, classifier_for(index))
    plant(index)
    assert load_classifier(index) is not None
    plant(index, **wrong)
    with pytest.raises(IndexDamagedError, match="classify --fit"):
        load_classifier(index)
