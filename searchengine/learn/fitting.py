"""Fits a classifier to labelled features: nested cross-validation chooses the regularisation and measures the accuracy.

The images are split into five folds. For each fold, C is chosen on another one: models of all C are fitted on the
remaining three. The chosen C is then fitted on four folds and predicts the fifth, which had no part in the choice
(nested cross-validation; Varma and Simon 2006, with one inner split for each fold). The final model is fitted on all
images, with the C that has the lowest log loss over all inner splits.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import timestamp
from searchengine.errors import LearningError, import_extra
from searchengine.learn.classifiers import (
    NEIGHBOURS,
    Classifier,
    ClassScore,
    Confusion,
    FitReport,
    HeldOut,
    held_out_shares,
)
from searchengine.learn.training_set import TrainingSet
from searchengine.processors import processors

GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5
NEVER_HELD_OUT = -1  # the fold of images that are always in the training part
_DEFAULT_C = 0.1  # if there are too few images to choose C
_MAX_CROSS_VALIDATED = 20_000  # images, with at most _MAX_NUMBERS numbers; the final fit uses all images
_MAX_NUMBERS = 2**25
_MAX_DOUBLE = 2**26  # numbers that are fitted as float64; more are fitted as float32
_ITERATIONS = 1000
_SEED = 0  # for the split into folds, so that the same images give the same classifier
_MIN_PROBABILITY = 1e-7  # lower bound in the log loss
_BINS = 15  # of the calibration error


def fit_classifier(data: TrainingSet, *, neighbours: int = NEIGHBOURS) -> Classifier:
    """Fit logistic regression to all labelled images, and measure its accuracy and that of a vote of neighbours.

    Args:
        data: images of at least two classes.
        neighbours: the number of voters in the comparison.

    Raises:
        LearningError: there is only one class.
        MissingPackageError: scikit-learn is not installed.
    """
    classes = tuple(sorted(set(data.labels)))
    if len(classes) < 2:
        raise LearningError(
            f"All labelled images carry the same label, {classes[0]!r}, but a classifier needs at least two. Index "
            "images with another label too."
        )
    import_extra("sklearn", "scikit-learn", "learn")
    number = {label: i for i, label in enumerate(classes)}
    truth = np.array([number[label] for label in data.labels], dtype=np.int64)  # (n,)
    features = data.features.astype(np.float64 if data.features.size <= _MAX_DOUBLE else np.float32)
    sample = _sample(len(truth), data.features.shape[1])
    folds = stratified_folds(truth[sample], data.groups[sample], FOLDS, _SEED)
    notes = _notes(data, classes, truth, folds)
    logistic = vote = None
    c = _DEFAULT_C
    with _single_threaded_blas() as unconverged:
        tested = folds != NEVER_HELD_OUT
        if tested.any():
            c, probabilities = _cross_validate(features[sample], truth[sample], folds, len(classes), notes)
            logistic = held_out(truth[sample][tested], probabilities[tested], classes)
            shares = held_out_shares(data.take(sample), folds, classes, neighbours)
            vote = held_out(truth[sample][tested], shares[tested], classes)
        else:
            notes.append(f"No label has two different images, so nothing could be held out, and C is {c:g}.")
        scaler, model = _pipeline(c).fit(features, truth)
    if unconverged:
        notes.append(f"{len(unconverged)} of the fits stopped after {_ITERATIONS} steps without converging.")
    coefficients, intercepts = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(classes) == 2:  # (1, d) -> (2, d): the logistic function is a softmax with zero for the first class
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    return Classifier(
        classes=classes,
        coefficients=coefficients,
        intercepts=intercepts,
        mean=np.asarray(scaler.mean_, np.float64),
        scale=np.asarray(scaler.scale_, np.float64),
        fingerprint=data.fingerprint,
        version=data.version,
        report=FitReport(
            fitted=timestamp(),
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


def stratified_folds(truth: NDArray[np.int64], groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Distribute the images of each class evenly over folds, by scikit-learn's ``StratifiedGroupKFold``.

    Args:
        truth: (n,) int64, the class of each image.
        groups: (n,) int64; images of the same group (files with the same content) share a fold, because a copy in the
            training part would make the held-out image too easy.
        most: the number of folds; fewer are used if no class has as many groups.
        seed: seed of the shuffling.

    Returns:
        (n,) int64: 0 ... folds - 1, or ``NEVER_HELD_OUT`` for images of a class with a single group, which would leave
        nothing to learn from.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    sizes = {label: len(np.unique(groups[truth == label])) for label in np.unique(truth).tolist()}
    rows = np.flatnonzero([sizes[label] > 1 for label in truth.tolist()])
    folds = np.full(len(truth), NEVER_HELD_OUT, dtype=np.int64)
    number = min(most, max(sizes.values(), default=0))
    if number < 2:
        return folds
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have fewer images than there are folds
        for fold, (_, test) in enumerate(splitter.split(rows, truth[rows], groups[rows])):
            folds[rows[test]] = fold
    folds[rows] = np.unique(folds[rows], return_inverse=True)[1]  # a fold of a tiny set may be empty
    return folds


def _cross_validate(
    features: NDArray[Any], truth: NDArray[np.int64], folds: NDArray[np.int64], classes: int, notes: list[str]
) -> tuple[float, NDArray[np.float64]]:
    """Return C for the final model, and the (n, classes) held-out probabilities, zero for images not held out."""
    number = int(folds.max()) + 1
    with ThreadPoolExecutor(min(number, processors())) as pool:
        outcomes = list(pool.map(lambda fold: _one_fold(features, truth, folds, fold), range(number)))
    probabilities = np.zeros((len(truth), classes))
    for fold, (_, classes_learnt, rows) in enumerate(outcomes):
        probabilities[np.ix_(folds == fold, classes_learnt)] = rows
    if number < 3:
        notes.append(f"No label has three different images, too few to choose C, so C is {_DEFAULT_C:g}.")
        return _DEFAULT_C, probabilities
    return GRID[int(np.argmax(sum(scores for scores, _, _ in outcomes)))], probabilities


def _one_fold(
    features: NDArray[Any], truth: NDArray[np.int64], folds: NDArray[np.int64], fold: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the log likelihood of each C on the inner split, the classes learnt, and their probabilities."""
    from sklearn.dummy import DummyClassifier

    number = int(folds.max()) + 1
    tested, training = features[folds == fold], folds != fold
    features, truth = features[training], truth[training]
    inner = folds[training] == (fold + 1) % number
    scores, best = np.zeros(len(GRID)), _DEFAULT_C
    if number >= 3 and len(np.unique(truth[~inner])) > 1:
        for place, c in enumerate(GRID):
            model = _pipeline(c).fit(features[~inner], truth[~inner])
            scores[place] = _log_likelihood(model, features[inner], truth[inner])
        best = GRID[int(np.argmax(scores))]
    # A fold of a tiny set may leave a single class.
    model = (_pipeline(best) if len(np.unique(truth)) > 1 else DummyClassifier()).fit(features, truth)
    return scores, model.classes_, model.predict_proba(tested)


def _pipeline(c: float) -> Any:
    """Return standardisation followed by multinomial logistic regression with an L2 penalty, solved by L-BFGS."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=_ITERATIONS))


def _log_likelihood(model: Any, features: NDArray[Any], truth: NDArray[np.int64]) -> float:
    """Return the log likelihood summed over images; a class that was not learnt has the lowest probability."""
    probabilities = model.predict_proba(features)
    index = np.searchsorted(model.classes_, truth).clip(max=len(model.classes_) - 1)
    learnt = model.classes_[index] == truth
    of_truth = np.where(learnt, probabilities[np.arange(len(truth)), index], 0.0)
    return float(np.log(np.maximum(of_truth, _MIN_PROBABILITY)).sum())


def _sample(count: int, dimension: int) -> NDArray[np.int64]:
    """Return the images of the cross-validation in ascending order."""
    most = min(_MAX_CROSS_VALIDATED, max(1000, _MAX_NUMBERS // dimension))
    return np.sort(np.random.default_rng(_SEED).permutation(count)[:most])


def _notes(
    data: TrainingSet, classes: tuple[str, ...], truth: NDArray[np.int64], folds: NDArray[np.int64]
) -> list[str]:
    notes = []
    counts = Counter(truth.tolist())
    single = [name for number, name in enumerate(classes) if counts[number] == 1]
    if single and (folds != NEVER_HELD_OUT).any():
        notes.append(
            f"{len(single)} {'label has' if len(single) == 1 else 'labels have'} a single image "
            f"({', '.join(single[:5])}{', ...' if len(single) > 5 else ''}): such images are learnt but cannot be held "
            "out, so the figures do not cover them."
        )
    if data.several:
        notes.append(f"{data.several} images carry several labels; only the first counts.")
    if len(folds) < len(truth):
        notes.append(f"C was chosen and the accuracy measured on {len(folds)} of the {len(truth)} images.")
    return notes


@contextmanager
def _single_threaded_blas() -> Iterator[list[str]]:
    """Run BLAS with one thread per fold, since folds run in parallel; yields the fits that did not converge.

    For small matrices, many BLAS threads spend more time waiting than computing: fifty times as much on a busy machine.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    unconverged: list[str] = []
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(limits=1, user_api="blas"):
        warnings.simplefilter("always")
        yield unconverged
    unconverged += [str(warning.message) for warning in caught if warning.category.__name__ == "ConvergenceWarning"]


# -- scores of held-out predictions ------------------------------------------------------------------------------------


def held_out(truth: NDArray[np.int64], probabilities: NDArray[np.float64], classes: tuple[str, ...]) -> HeldOut:
    """Score predictions.

    Args:
        truth: (n,) int64, n at least 1; the index of the true class in ``classes``.
        probabilities: (n, c) float64. Of equal probabilities the first wins.
        classes: the c class names.
    """
    count = len(truth)
    predicted = probabilities.argmax(axis=1)
    right = predicted == truth
    low, high = wilson(int(right.sum()), count)
    pairs = Counter(zip(truth[~right].tolist(), predicted[~right].tolist(), strict=True))
    present = np.unique(truth).tolist()
    return HeldOut(
        images=count,
        accuracy=float(right.mean()),
        low=low,
        high=high,
        calibration_error=expected_calibration_error(probabilities.max(axis=1), right),
        brier=brier(truth, probabilities),
        by_class=tuple(ClassScore(classes[c], int((truth == c).sum()), int(right[truth == c].sum())) for c in present),
        confused=tuple(
            Confusion(classes[a], classes[b], times)
            for (a, b), times in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of ``right`` / ``count`` (Wilson 1927).

    It is valid for few images and for shares of 0 % or 100 %.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(right, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = _BINS) -> float:
    """Return the mean over images of |accuracy - confidence| in the image's bin of equal width (Guo et al. 2017).

    ``confidence`` is (n,), the winner's probability; ``right`` is (n,), whether the winner is the truth.
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are (lower, upper]
    gaps = np.bincount(place, weights=right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def brier(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Return the mean over images of the sum over classes of (probability - truth)^2 (Brier 1950).

    scikit-learn's version requires rows that sum to 1, which is not so if a class was not learnt.
    """
    errors = probabilities.copy()
    errors[np.arange(len(truth)), truth] -= 1.0
    return float((errors * errors).sum(axis=1).mean())
