"""The state of a run on disk, replaced as a whole after each epoch: a kill leaves the state before or after it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.files import replace_bytes
from searchengine.learn.triplets.curves import Epoch
from searchengine.learn.triplets.learner import State


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """``last`` is the state after the last of the ``epochs``, ``best`` the weights of the one with the best mAP.

    ``settings`` are those of the run; another run does not go on from here.
    """

    settings: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    last: State
    best: list[NDArray[np.float32]]


def save(file: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the one before; LearningError where it cannot be written, and that one stays."""
    arrays: dict[str, NDArray[Any]] = {}
    groups = {"last": checkpoint.last.weights, "optimizer": checkpoint.last.optimizer, "best": checkpoint.best}
    for kind, values in groups.items():
        arrays |= {f"{kind}_{number:04d}": value for number, value in enumerate(values)}
    told = {"settings": dict(checkpoint.settings), "epochs": [epoch.to_dict() for epoch in checkpoint.epochs]}
    stream = io.BytesIO()
    np.savez(stream, told=np.array(json.dumps(told)), **arrays)  # type: ignore[arg-type]
    try:
        replace_bytes(file, stream.getvalue())
    except OSError as error:
        number = checkpoint.epochs[-1].number
        kept = f"The state after epoch {number - 1} is kept" if number > 1 else "Nothing is lost but this epoch"
        raise LearningError(
            f"{file} cannot be written after epoch {number}: {error.strerror or error}. {kept}. Free some space; the "
            "same command goes on from there."
        ) from error


def load(file: Path, settings: Mapping[str, Any], *, free: frozenset[str] = frozenset()) -> Checkpoint | None:
    """The checkpoint of a run with these settings, or None where there is none.

    LearningError for one of other settings, but for those that are ``free`` to change, and for one that is damaged.
    """
    try:
        # From memory: NumPy would leave a damaged file open.
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            told = json.loads(str(stored["told"]))
            groups: dict[str, list[NDArray[Any]]] = {"last": [], "optimizer": [], "best": []}
            for name in sorted(set(stored.files) - {"told"}):
                groups[name.rpartition("_")[0]].append(stored[name])
        epochs = tuple(Epoch(**values) for values in told["epochs"])
        before = dict(told["settings"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise LearningError(f"{file} is damaged: {error}. Begin anew with --restart.") from error
    differing = [
        f"{name} {before.get(name)!r} then, {settings.get(name)!r} now"
        for name in sorted(before.keys() | settings.keys())
        if name not in free and before.get(name) != settings.get(name)
    ]
    if differing:
        raise LearningError(
            f"{file} is of a run with other settings: {'; '.join(differing)}. Use those, begin anew with --restart, or "
            "choose another --out."
        )
    return Checkpoint(settings, epochs, State(groups["last"], groups["optimizer"]), groups["best"])
