"""Labelled features -> a classifier: regularisation chosen, and accuracy told, by nested cross-validation.

The images are dealt to five folds. For each fold f, C is chosen on another one: models of all C are fitted on the
remaining three. The chosen C is fitted on four folds and predicts f, which took no part in any of it (nested
cross-validation; Varma and Simon 2006, with one inner split for each fold). For the final model, fitted on all, each C
counts by its log loss over all inner splits.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.index.catalog import now
from searchengine.learn.classifiers import Classifier
from searchengine.learn.folds import ALWAYS, stratified
from searchengine.learn.nearest import NEIGHBOURS, held_out_shares
from searchengine.learn.scores import FitReport, HeldOut, held_out
from searchengine.learn.training_set import TrainingSet

GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5
_C = 0.1  # where there is too little to choose by
_CROSS_VALIDATED = 20_000  # images at most, and no more numbers than these; the final model is fitted on all images
_NUMBERS = 2**25
_DOUBLE = 2**26  # numbers that are held as float64, as scikit-learn would; more as float32
_ITERATIONS = 1000
_LEAST = 1e-7  # a probability below it counts as this in the log loss


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Standardisation and a linear map: (n, d) -> (n, c) logits of those classes that the training part had."""

    mean: NDArray[np.float64]  # (d,)
    scale: NDArray[np.float64]  # (d,)
    coefficients: NDArray[np.float64]  # (c, d)
    intercepts: NDArray[np.float64]  # (c,)
    classes: NDArray[np.int64]  # (c,)


def fit_classifier(data: TrainingSet, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> Classifier:
    """Fit logistic regression on all labelled images, and tell how well it and a neighbours' vote do.

    Args:
        data: at least two classes.
        neighbours: how many vote, in the comparison.
        seed: of the dealing into folds; the same seed gives the same classifier.

    Raises:
        LearningError: a single class, or scikit-learn is not installed.
    """
    classes = tuple(sorted(set(data.labels)))
    if len(classes) < 2:
        raise LearningError(
            f"All labelled images carry the same label, {classes[0]!r}: a classifier needs at least two to tell apart. "
            "Index images with another label too."
        )
    _scikit_learn()
    place = {name: i for i, name in enumerate(classes)}
    truth = np.array([place[label] for label in data.labels], dtype=np.int64)  # (n,)
    used = _some(len(truth), data.features.shape[1], seed)
    folds = np.full(len(truth), ALWAYS, dtype=np.int64)
    folds[used] = stratified(truth[used], data.groups[used], FOLDS, seed)
    notes = _notes(data, classes, truth, folds, len(used))
    with _undisturbed() as unconverged:
        c, logistic, vote = _cross_validate(data, truth, used, folds, classes, neighbours, notes)
        model = fit_linear(data.features, truth, (c,))[0]
    if unconverged:
        notes.append(f"{len(unconverged)} of the fits stopped at {_ITERATIONS} steps, before they had settled.")
    return Classifier(
        classes=classes,
        coefficients=model.coefficients,
        intercepts=model.intercepts,
        mean=model.mean,
        scale=model.scale,
        fingerprint=data.fingerprint,
        version=data.version,
        report=FitReport(
            fitted=now(),
            images=len(truth),
            unlabelled=data.unlabelled,
            regularization=c,
            folds=int(folds.max()) + 1,
            neighbours=neighbours,
            logistic=logistic,
            vote=vote,
            notes=tuple(notes),
        ),
    )


def _cross_validate(
    data: TrainingSet,
    truth: NDArray[np.int64],
    used: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: tuple[str, ...],
    neighbours: int,
    notes: list[str],
) -> tuple[float, HeldOut | None, HeldOut | None]:
    """C for the final model, and the held-out scores of logistic regression and of the vote."""
    tested = np.flatnonzero(folds != ALWAYS)
    if not len(tested):
        notes.append(f"No label has two different images, so nothing was held out, and C is {_C:g}.")
        return _C, None, None
    number = int(folds.max()) + 1
    with ThreadPoolExecutor(min(number, os.cpu_count() or 1)) as pool:
        done = list(pool.map(lambda fold: _one_fold(data.features, truth, used, folds, fold), range(number)))
    probabilities = np.zeros((len(truth), len(classes)))
    for fold, (_, known, rows) in enumerate(done):
        probabilities[np.ix_(folds == fold, known)] = rows
    if number < 3:
        notes.append(f"No label has three different images: too few to choose C by, so it is {_C:g}.")
        c = _C
    else:
        c = GRID[int(np.argmin(sum(losses for losses, _, _ in done)))]
    logistic = held_out(truth[tested], probabilities[tested], classes)
    shares = held_out_shares(data, truth, used, folds, len(classes), neighbours)
    return c, logistic, held_out(truth[tested], shares[tested], classes)


def _one_fold(
    features: NDArray[np.float32],
    truth: NDArray[np.int64],
    used: NDArray[np.int64],
    folds: NDArray[np.int64],
    fold: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Summed log loss of each C on the inner split; the classes known, and their probabilities for this fold."""
    number = int(folds.max()) + 1
    losses = np.zeros(len(GRID))
    best = _C
    dealt = folds[used]
    if number >= 3:
        inner = (fold + 1) % number
        train, validation = used[(dealt != fold) & (dealt != inner)], used[dealt == inner]
        for place, model in enumerate(fit_linear(features[train], truth[train], GRID)):
            losses[place] = _log_loss(model, features[validation], truth[validation])
        best = GRID[int(np.argmin(losses))]
    train, test = used[dealt != fold], used[dealt == fold]
    model = fit_linear(features[train], truth[train], (best,))[0]
    return losses, model.classes, probabilities_of(model, features[test])


def fit_linear(features: NDArray[np.float32], truth: NDArray[np.int64], grid: tuple[float, ...]) -> list[Linear]:
    """Multinomial logistic regression with an L2 penalty, one model for each C, each starting where the last ended.

    ``features``: (n, d); ``truth``: (n,) class numbers. By scikit-learn, solver L-BFGS.
    """
    rows: NDArray[Any] = features.astype(np.float64 if features.size <= _DOUBLE else np.float32)
    mean, scale = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-10 * np.maximum(np.abs(mean), 1e-10)] = 1.0
    np.subtract(rows, mean.astype(rows.dtype), out=rows)
    np.divide(rows, scale.astype(rows.dtype), out=rows)
    classes = np.unique(truth)
    if len(classes) == 1:  # of a very small set, a fold may leave one class only
        only = Linear(mean, scale, np.zeros((1, rows.shape[1])), np.zeros(1), classes)
        return [only for _ in grid]
    model = _scikit_learn().LogisticRegression(C=grid[0], max_iter=_ITERATIONS, warm_start=True)
    fitted = []
    for c in grid:
        model.set_params(C=c).fit(rows, truth)
        coefficients = np.array(model.coef_, dtype=np.float64)
        intercepts = np.array(model.intercept_, dtype=np.float64)
        if len(classes) == 2:  # (1, d) -> (2, d): the logistic function is a softmax with zero for the first class
            coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
            intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
        fitted.append(Linear(mean, scale, coefficients, intercepts, classes))
    return fitted


def probabilities_of(model: Linear, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, d) -> (n, c) for the classes of that model."""
    from searchengine.learn.classifiers import softmax

    return softmax(((features - model.mean) / model.scale) @ model.coefficients.T + model.intercepts)


def _log_loss(model: Linear, features: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Summed over images; a class that the model does not know has the least probability."""
    probabilities = probabilities_of(model, features)
    place = np.searchsorted(model.classes, truth).clip(max=len(model.classes) - 1)
    known = model.classes[place] == truth
    given = np.where(known, probabilities[np.arange(len(truth)), place], 0.0)
    return float(-np.log(np.maximum(given, _LEAST)).sum())


def _some(count: int, dimension: int, seed: int) -> NDArray[np.int64]:
    """Which images take part in the cross-validation, ascending."""
    most = min(_CROSS_VALIDATED, max(1000, _NUMBERS // dimension))
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def _notes(
    data: TrainingSet, classes: tuple[str, ...], truth: NDArray[np.int64], folds: NDArray[np.int64], used: int
) -> list[str]:
    notes = []
    counts = Counter(truth.tolist())
    single = [name for place, name in enumerate(classes) if counts[place] == 1]
    if single and (folds != ALWAYS).any():
        notes.append(
            f"{len(single)} {'label has' if len(single) == 1 else 'labels have'} a single image "
            f"({', '.join(single[:5])}{', ...' if len(single) > 5 else ''}): it is learnt from but cannot be held out, "
            "so the figures say nothing of it."
        )
    if data.several:
        notes.append(f"{data.several} images carry several labels; the first one counts.")
    if used < len(truth):
        notes.append(f"C was chosen, and the figures were made, on {used} of the {len(truth)} images.")
    return notes


@contextmanager
def _undisturbed() -> Iterator[list[str]]:
    """BLAS on one thread each, since folds run side by side; yields what did not converge.

    Small matrices by many BLAS threads cost more in waiting than in arithmetic: on a busy machine fifty times as much.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    unconverged: list[str] = []
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(limits=1, user_api="blas"):
        warnings.simplefilter("always")
        yield unconverged
    unconverged += [str(one.message) for one in caught if one.category.__name__ == "ConvergenceWarning"]


def _scikit_learn() -> Any:
    """Its linear models, or a sentence that says how to get them."""
    try:
        from sklearn import linear_model
    except ImportError as error:
        raise LearningError(
            "Fitting a classifier needs scikit-learn, which is not installed. Install it with: "
            "pip install 'searchengine[learn]'"
        ) from error
    return linear_model
