"""What is measured after each epoch, and the state of a run on disk: a checkpoint, and the history as a CSV table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import evaluate_features
from searchengine.derived import UNREADABLE
from searchengine.errors import LearningError
from searchengine.files import parse_json, replace_bytes, replace_text
from searchengine.learn.triplets.sampling import Triplets, draw_triplets, with_partner

_TRIPLETS = 5000  # of the validation part
_SHEET = "about"  # the name of settings and epochs in the file


@dataclass(frozen=True, slots=True)
class Scores:
    """``triplet_accuracy`` is the share of random triplets with D(a, p) < D(a, n); ``precision`` is P@1."""

    triplet_accuracy: float
    precision: float
    mean_average_precision: float


def validation_triplets(labels: NDArray[np.int64], seed: int) -> Triplets:
    """(n,) int64 labels -> (5000, 3) int64 rows, the same for the same seed."""
    random = np.random.default_rng(seed)
    return draw_triplets(labels, random.choice(with_partner(labels), _TRIPLETS), random)


def triplet_accuracy(embeddings: NDArray[np.float32], triplets: Triplets) -> float:
    """The share of triplets whose positive is nearer than the negative; a tie does not count."""
    anchors, positives, negatives = (embeddings[triplets[:, i]].astype(np.float64) for i in range(3))  # (t, d) each
    near = np.square(anchors - positives).sum(axis=1)
    far = np.square(anchors - negatives).sum(axis=1)
    return float(np.mean(near < far))


def score(embeddings: NDArray[np.float32], labels: NDArray[np.int64], triplets: Triplets) -> Scores:
    """(n, d) float32 rows of length 1 and their (n,) labels -> leave-one-out scores, by distance."""
    scores = evaluate_features(embeddings, [str(label) for label in labels.tolist()])
    return Scores(triplet_accuracy(embeddings, triplets), scores["P@1"], scores["mAP"])


@dataclass(frozen=True, slots=True)
class Epoch:
    """Scores on the validation part. ``number`` 0 is the start, before anything was learnt; it has no ``loss``."""

    number: int
    loss: float | None
    triplet_accuracy: float
    precision: float
    mean_average_precision: float
    seconds: float

    @property
    def scores(self) -> Scores:
        """Without the rest."""
        return Scores(self.triplet_accuracy, self.precision, self.mean_average_precision)


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the best mAP; the first of several."""
    return max(epochs, key=lambda epoch: (epoch.mean_average_precision, -epoch.number))


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """``weights`` that learn, and the variables of the ``optimizer``."""

    weights: list[NDArray[np.float32]]
    optimizer: list[NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """``last`` is the state after the last of the ``epochs``, ``best`` the blended weights of the best one.

    ``settings`` are those of the run; a run with others cannot resume from here.
    """

    settings: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    last: State
    best: list[NDArray[np.float32]]


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in one step; where it cannot be written, LearningError, and the previous one stays."""
    arrays: dict[str, NDArray[Any]] = {}
    groups = {"last": checkpoint.last.weights, "optimizer": checkpoint.last.optimizer, "best": checkpoint.best}
    for kind, values in groups.items():
        arrays |= {f"{kind}_{number:04d}": value for number, value in enumerate(values)}
    sheet = {"settings": dict(checkpoint.settings), "epochs": [asdict(epoch) for epoch in checkpoint.epochs]}
    stream = io.BytesIO()
    np.savez(stream, **{_SHEET: np.array(json.dumps(sheet)), **arrays})  # type: ignore[arg-type]
    try:
        replace_bytes(file, stream.getvalue())
    except OSError as error:
        number = checkpoint.epochs[-1].number
        kept = f"The state after epoch {number - 1} is kept" if number > 1 else "Nothing but this epoch is lost"
        raise LearningError(
            f"{file} cannot be written after epoch {number}: {error.strerror or error}. {kept}. Free some space; the "
            "same command resumes from there."
        ) from error


def load_checkpoint(
    file: Path, settings: Mapping[str, Any], *, free: frozenset[str] = frozenset()
) -> Checkpoint | None:
    """The checkpoint of a run with these settings, or None where there is none.

    LearningError where it has other settings, apart from those that are ``free`` to change, and where it is damaged.
    """
    try:
        # From memory: NumPy would leave a damaged file open.
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            sheet = parse_json(str(stored[_SHEET]))
            groups: dict[str, list[NDArray[Any]]] = {"last": [], "optimizer": [], "best": []}
            for name in sorted(set(stored.files) - {_SHEET}):
                groups[name.rpartition("_")[0]].append(stored[name])
        epochs = tuple(Epoch(**values) for values in sheet["epochs"])
        before = dict(sheet["settings"])
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise LearningError(f"{file} is damaged: {error}. Start again with --restart.") from error
    differing = [
        f"{name} was {before.get(name)!r} and is now {settings.get(name)!r}"
        for name in sorted(before.keys() | settings.keys())
        if name not in free and before.get(name) != settings.get(name)
    ]
    if differing:
        raise LearningError(
            f"{file} belongs to a run with other settings: {'; '.join(differing)}. Use the earlier ones, start again "
            "with --restart, or choose another --out."
        )
    return Checkpoint(settings, epochs, State(groups["last"], groups["optimizer"]), groups["best"])


def write_history(file: Path, epochs: Sequence[Epoch]) -> None:
    """Write a CSV table with a line for each epoch; LearningError."""
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(["epoch", "loss", "triplet_accuracy", "P@1", "mAP", "seconds"])
    for epoch in epochs:
        loss = "" if epoch.loss is None else f"{epoch.loss:.6f}"
        scores = (epoch.triplet_accuracy, epoch.precision, epoch.mean_average_precision)
        table.writerow([epoch.number, loss, *(f"{score:.6f}" for score in scores), f"{epoch.seconds:.3f}"])
    try:
        replace_text(file, out.getvalue())
    except OSError as error:
        raise LearningError(
            f"{file} cannot be written: {error.strerror or error}. Free some space; the same command resumes from the "
            "last state."
        ) from error
