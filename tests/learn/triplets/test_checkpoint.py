"""The checkpoint survives a kill and a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.errors import LearningError
from searchengine.learn.triplets.epochs import (
    Checkpoint,
    Epoch,
    State,
    best_of,
    load_checkpoint,
    save_checkpoint,
)


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def some_checkpoint(settings: dict[str, Any], epochs: int) -> Checkpoint:
    history = tuple(Epoch(n, None if n == 0 else 0.1, 0.5, 0.4, 0.3 + n / 100, 0.2) for n in range(epochs))
    weights = [np.full((2, 3), epochs, np.float32), np.zeros(3, np.float32)]
    return Checkpoint(settings, history, State(weights, [np.array(epochs)]), [2 * one for one in weights])


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "checkpoint.npz"
    settings = {"margin": 0.2, "thaw": None, "epochs": 5}
    assert load_checkpoint(file, settings) is None
    saved = some_checkpoint(settings, 3)
    save_checkpoint(file, saved)
    loaded = load_checkpoint(file, {**settings, "epochs": 9}, free=frozenset({"epochs"}))
    assert loaded is not None
    assert loaded.epochs == saved.epochs
    for one, other in [(loaded.best, saved.best), (loaded.last.weights, saved.last.weights)]:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(loaded.last.optimizer[0]) == 3
    with pytest.raises(LearningError, match=r"margin was 0.2 and is now 0.3. Use the earlier settings, .*--restart"):
        load_checkpoint(file, {**settings, "margin": 0.3})
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(LearningError, match="damaged"):
        load_checkpoint(file, settings)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkpoint.npz"
    save_checkpoint(file, some_checkpoint({}, 3))
    fill_disk(monkeypatch)
    with pytest.raises(LearningError, match=r"No space left .*The state after epoch 2 is kept.*run the same command"):
        save_checkpoint(file, some_checkpoint({}, 4))
    monkeypatch.undo()
    loaded = load_checkpoint(file, {})
    assert loaded is not None
    assert len(loaded.epochs) == 3
    assert [left.name for left in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    epochs = [Epoch(n, 0.1, 0, 0, value, 0) for n, value in enumerate([0.2, 0.5, 0.4, 0.5])]
    assert best_of(epochs).number == 1
