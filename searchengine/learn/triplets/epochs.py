"""The training loop: the scores after each epoch, and the state of a run on disk, as a checkpoint and a CSV table."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import evaluate_features
from searchengine.derived import UNREADABLE
from searchengine.errors import LearningError
from searchengine.files import parse_json, replace_bytes, replace_text
from searchengine.learn.triplets.learner import Learner, NotFiniteError, Recipe, State
from searchengine.learn.triplets.sampling import Triplets, draw_triplets, with_partner

_TRIPLETS = 5000  # number of triplets drawn from the validation part
_SHEET = "about"  # the name of the settings and epochs in a checkpoint


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores on held-out images: the share of random triplets with D(a, p) < D(a, n), P@1 (``precision``) and mAP."""

    triplet_accuracy: float
    precision: float
    mean_average_precision: float


def validation_triplets(labels: NDArray[np.int64], seed: int) -> Triplets:
    """Draw (5000, 3) int64 rows for (n,) int64 labels, the same for the same seed."""
    random = np.random.default_rng(seed)
    return draw_triplets(labels, random.choice(with_partner(labels), _TRIPLETS), random)


def triplet_accuracy(embeddings: NDArray[np.float32], triplets: Triplets) -> float:
    """Return the share of triplets whose positive is nearer than the negative; a tie does not count."""
    anchors, positives, negatives = (embeddings[triplets[:, i]].astype(np.float64) for i in range(3))  # (t, d) each
    near = np.square(anchors - positives).sum(axis=1)
    far = np.square(anchors - negatives).sum(axis=1)
    return float(np.mean(near < far))


def score(embeddings: NDArray[np.float32], labels: NDArray[np.int64], triplets: Triplets) -> Scores:
    """Return leave-one-out scores of (n, d) float32 embeddings of length 1 with (n,) labels."""
    scores = evaluate_features(embeddings, [str(label) for label in labels.tolist()])
    return Scores(triplet_accuracy(embeddings, triplets), scores["P@1"], scores["mAP"])


@dataclass(frozen=True, slots=True)
class Epoch:
    """Scores on the validation part after an epoch. Number 0 is the state before training, which has no ``loss``."""

    number: int
    loss: float | None
    triplet_accuracy: float
    precision: float
    mean_average_precision: float
    seconds: float

    @property
    def scores(self) -> Scores:
        """The scores alone."""
        return Scores(self.triplet_accuracy, self.precision, self.mean_average_precision)


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the best mAP, the first of several."""
    return max(epochs, key=lambda epoch: (epoch.mean_average_precision, -epoch.number))


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a run: ``last`` after the last of the ``epochs``, ``best`` the blended weights of the best epoch.

    ``settings`` are those of the run; a run with other settings cannot resume from here.
    """

    settings: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    last: State
    best: list[NDArray[np.float32]]


# -- the training loop -------------------------------------------------------------------------------------------------


def start_training(learner: Learner, evaluate: Callable[[], Scores], settings: Mapping[str, Any]) -> Checkpoint:
    """Return the state before the first epoch. It counts as epoch 0, so the best epoch is never worse than the start.

    Raises LearningError if the backbone makes an embedding NaN or infinite.
    """
    began = time.monotonic()
    state = learner.state()
    try:
        scores = evaluate()
    except NotFiniteError as error:
        raise LearningError(
            "An embedding is NaN or infinite before training: the backbone's features are too large, or its weights "
            "are damaged. Nothing was written. Choose another --layer, --backbone or --weights."
        ) from error
    return Checkpoint(settings, (_epoch(0, None, scores, began),), state, state.weights)


def further_epochs(
    learner: Learner,
    rows: NDArray[np.int64],
    evaluate: Callable[[], Scores],
    state: Checkpoint,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Checkpoint]:
    """Yield the state after each further epoch, until the recipe of the learner is completed or mAP stops improving.

    Args:
        learner: a learner in the last state of ``state``.
        rows: (m,) int64, the training part.
        evaluate: scores the learner's present weights on the validation part.
        state: where to start.
        advance: called after each batch.

    Raises:
        NotFiniteError: the loss became NaN or infinite; the state yielded before is sound.
    """
    while not _done(state.epochs, learner.recipe):
        began = time.monotonic()
        number = state.epochs[-1].number + 1
        loss = learner.epoch(number, rows, advance)
        last = learner.state()
        blended = learner.blended(last.weights)
        learner.restore_weights(blended)
        epoch = _epoch(number, loss, evaluate(), began)
        learner.restore_weights(last.weights)
        better = epoch.mean_average_precision > best_of(state.epochs).mean_average_precision
        state = Checkpoint(state.settings, (*state.epochs, epoch), last, blended if better else state.best)
        yield state


def _epoch(number: int, loss: float | None, scores: Scores, began: float) -> Epoch:
    seconds = time.monotonic() - began
    return Epoch(number, loss, scores.triplet_accuracy, scores.precision, scores.mean_average_precision, seconds)


def _done(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    last = epochs[-1].number
    return last >= recipe.epochs or last - best_of(epochs).number >= recipe.patience


# -- the state of a run on disk ----------------------------------------------------------------------------------------


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in one step. Raises LearningError, and keeps the previous one, if it cannot be written."""
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
            f"{file} cannot be written after epoch {number}: {error.strerror or error}. {kept}. Free some space, then "
            "run the same command again to resume."
        ) from error


def load_checkpoint(
    file: Path, settings: Mapping[str, Any], *, free: frozenset[str] = frozenset()
) -> Checkpoint | None:
    """Return the checkpoint of a run with these settings, or None if there is none.

    Raises LearningError if it is damaged, or if settings differ other than those that are ``free`` to change.
    """
    try:
        # Read into memory first, because NumPy would leave a damaged file open.
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
            f"{file} belongs to a run with other settings: {'; '.join(differing)}. Use the earlier settings, start "
            "again with --restart, or choose another --out."
        )
    return Checkpoint(settings, epochs, State(groups["last"], groups["optimizer"]), groups["best"])


def write_history(file: Path, epochs: Sequence[Epoch]) -> None:
    """Write a CSV table with a line for each epoch. Raises LearningError."""
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
            f"{file} cannot be written: {error.strerror or error}. Free some space, then run the same command again to "
            "resume."
        ) from error
