"""After kill -9 in the middle of a run, the same command resumes it with the result of an uninterrupted run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from searchengine.extractors import custom
from searchengine.learn.triplets.epochs import best_of, load_checkpoint
from tests.learn.triplets import tiny
from tests.learn.triplets.conftest import Setting

EPOCHS = 5


def start(setting: Setting, out: Path, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.learn.triplets.slow_run", setting.photos, setting.backbone, out]
    return subprocess.Popen(
        [*map(str, command), str(EPOCHS), str(last)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_killed_and_resumed(setting: Setting, tmp_path: Path) -> None:
    out = tmp_path / "killed.keras"
    run = start(setting, out, 2)
    assert run.stdout is not None
    for line in run.stdout:
        if int(line) == 2:
            break
    run.kill()  # kill -9
    run.communicate()
    assert run.returncode == -9
    assert not out.exists()

    recorder = tiny.Recorder()
    result = setting.train(out, recorder, epochs=EPOCHS, patience=EPOCHS)
    assert recorder.epochs == [3, 4, 5]
    unbroken = setting.train(tmp_path / "unbroken.keras", epochs=EPOCHS, patience=EPOCHS)
    assert [epoch.number for epoch in result.epochs] == [epoch.number for epoch in unbroken.epochs]
    for one, other in zip(result.epochs, unbroken.epochs, strict=True):
        assert one.mean_average_precision == pytest.approx(other.mean_average_precision, rel=0.01)
        assert (one.loss or 0.0) == pytest.approx(other.loss or 0.0, rel=0.01)
    assert result.after.mean_average_precision == pytest.approx(unbroken.after.mean_average_precision, rel=0.01)
    mine, theirs = (custom.load(one.model).get_layer("embedding").get_weights()[0] for one in (result, unbroken))
    assert np.linalg.norm(mine - theirs) <= 0.01 * np.linalg.norm(theirs)


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_killed_at_random_moments(setting: Setting, tmp_path: Path) -> None:
    """Whenever a run is killed, the state on disk is complete or absent, and nothing stored is lost."""
    chance = np.random.default_rng(5)
    out = tmp_path / "killed.keras"
    done = 0
    for _ in range(8):
        run = start(setting, out, 0)
        assert run.stdout is not None
        run.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(float(chance.uniform(0.0, 0.2)))
        run.kill()
        run.communicate()
        file = tmp_path / "killed.training" / "checkpoint.npz"
        with np.load(file, allow_pickle=False) as stored:
            assert "about" in stored.files
        loaded = load_checkpoint(file, {}, free=frozenset(_settings(file)))
        assert loaded is not None
        assert loaded.epochs[-1].number >= done
        done = loaded.epochs[-1].number
    result = setting.train(out, epochs=EPOCHS, patience=EPOCHS)
    assert best_of(result.epochs).mean_average_precision == result.after.mean_average_precision


def _settings(file: Path) -> set[str]:
    with np.load(file, allow_pickle=False) as stored:
        return set(json.loads(str(stored["about"]))["settings"])
