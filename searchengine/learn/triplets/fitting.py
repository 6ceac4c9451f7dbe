"""Epoch after epoch, until the recipe is done or nothing gets better."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.learn.triplets.checkpoint import Checkpoint
from searchengine.learn.triplets.curves import Epoch, best_of
from searchengine.learn.triplets.learner import Learner, NotFiniteError
from searchengine.learn.triplets.recipe import Recipe
from searchengine.learn.triplets.scores import Scores


def begin(learner: Learner, judge: Callable[[], Scores], settings: Mapping[str, Any]) -> Checkpoint:
    """The state before the first epoch. The start counts as an epoch, 0: so the best is never worse than it.

    LearningError where the backbone is such that an embedding is no number already.
    """
    state = learner.state()
    try:
        found = judge()
    except NotFiniteError as error:
        raise LearningError(
            "In epoch 0, before anything was learnt, an embedding was no number: what the backbone gives is too large, "
            "or its weights are damaged. Nothing was written. Choose another --layer, --backbone or --weights."
        ) from error
    return Checkpoint(settings, (_epoch(0, None, found, time.monotonic()),), state, state.weights)


def fit(
    learner: Learner,
    rows: NDArray[np.int64],
    judge: Callable[[], Scores],
    recipe: Recipe,
    state: Checkpoint,
    *,
    keep: Callable[[Checkpoint], None] = lambda _: None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Checkpoint, bool]:
    """Learn from a state on.

    Args:
        learner: in that state.
        rows: (m,) int64, what is learnt from.
        judge: gives the scores of the learner as it is, on what is not learnt from.
        recipe: how long.
        state: where to begin.
        keep: called with the state after each epoch.
        advance: called after each batch.

    Returns:
        the last state that is sound, and whether it ended because the loss was no number any more.
    """
    while not _done(state.epochs, recipe):
        began = time.monotonic()
        number = state.epochs[-1].number + 1
        try:
            loss = learner.epoch(number, rows, advance)
            epoch = _epoch(number, loss, judge(), began)
        except NotFiniteError:
            return state, True
        last = learner.state()
        better = epoch.mean_average_precision > best_of(state.epochs).mean_average_precision
        state = Checkpoint(state.settings, (*state.epochs, epoch), last, last.weights if better else state.best)
        keep(state)
    return state, False


def _epoch(number: int, loss: float | None, found: Scores, began: float) -> Epoch:
    seconds = time.monotonic() - began
    return Epoch(number, loss, found.triplet_accuracy, found.precision, found.mean_average_precision, seconds)


def _done(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    last = epochs[-1].number
    return last >= recipe.epochs or last - best_of(epochs).number >= recipe.patience
