"""Labels for images: by a fitted classifier, which is kept with its index, or by a vote of the nearest images.

A classifier is plain arrays, and how good it is. NumPy is all that either needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.derived import Arrays, Cached, Derived
from searchengine.errors import ExtractorMismatchError, IndexDamagedError, QueryError, with_index_dir
from searchengine.index.exact import Searcher
from searchengine.index.protocol import Index
from searchengine.learn.training_set import TrainingSet, labels_version

# -- how good it is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Of ``images`` held-out images of a class, ``right`` were given its label."""

    label: str
    images: int
    right: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images of one label were given another one."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of predictions, each made by a model that had not seen the image.

    ``low`` and ``high`` bound the accuracy's 95 % interval (Wilson 1927). ``calibration_error`` is the expected
    calibration error (Guo et al. 2017; 15 bins of the winner's probability): how far, on average, the share of
    right predictions is from their probability. ``brier`` is the mean over images of the sum over classes of
    (probability - truth)^2 (Brier 1950), from 0, perfect, to 2. ``by_class`` and ``confused`` together are the whole
    confusion matrix; the most frequent confusions come first.
    """

    images: int
    accuracy: float
    low: float
    high: float
    calibration_error: float
    brier: float
    by_class: tuple[ClassScore, ...]
    confused: tuple[Confusion, ...]


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a classifier was fitted on and how well it does; ``fitted`` is ISO 8601 in UTC.

    ``regularization`` is C, the inverse strength of the L2 penalty. ``folds`` is 0, and ``logistic`` and ``vote`` are
    None, where nothing could be held out. ``notes`` are sentences for a person.
    """

    fitted: str
    images: int
    unlabelled: int
    regularization: float
    folds: int
    neighbours: int
    logistic: HeldOut | None
    vote: HeldOut | None
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Of the logistic regression on held-out images; NaN where nothing could be held out."""
        return math.nan if self.logistic is None else self.logistic.accuracy


# -- the classifier ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prediction:
    """``probability`` is between 0 and 1; over all labels they sum to 1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Multinomial logistic regression on standardised features.

    ``P(c | x) = softmax(W ((x - mean) / scale) + b)_c`` (Bishop 2006, section 4.3.4). Two classes are two rows too, of
    which one is zero: that is the logistic function of the other. Never changes; safe to share between threads.
    """

    classes: tuple[str, ...]
    coefficients: NDArray[np.float64]  # (c, d), W
    intercepts: NDArray[np.float64]  # (c,), b
    mean: NDArray[np.float64]  # (d,), of the features it was fitted on
    scale: NDArray[np.float64]  # (d,), their standard deviation; 1 where that is 0
    fingerprint: str  # of the extractor that made those features
    version: str  # of the images and labels that it was fitted on
    report: FitReport
    stale: bool = False  # images or labels have changed since

    def probabilities(self, features: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of all classes, in their order.

        Args:
            features: (n, d) float32, or (d,) for a single one; made by the extractor of the index.

        Returns:
            (n, c) float64; each row sums to 1.

        Raises:
            QueryError: a wrong shape, NaN or infinity.
        """
        block = np.atleast_2d(np.asarray(features, dtype=np.float64))  # (d,) -> (1, d)
        if block.ndim != 2 or block.shape[1] != len(self.mean):
            raise QueryError(f"Features have the shape {block.shape}; this classifier wants (n, {len(self.mean)}).")
        if not np.isfinite(block).all():
            raise QueryError("A feature holds NaN or infinity, so it has no label.")
        return softmax(((block - self.mean) / self.scale) @ self.coefficients.T + self.intercepts)  # (n, d) -> (n, c)

    def predict(self, feature: ArrayLike) -> list[Prediction]:
        """One feature, (d,) or (1, d) -> all labels, the most probable first; QueryError.

        Of labels with equal probability, the one that comes first in the order of the alphabet stands first.
        """
        rows = self.probabilities(feature)
        if len(rows) != 1:
            raise QueryError(f"One feature is predicted at a time, not {len(rows)}; probabilities() takes several.")
        order = np.argsort(-rows[0], kind="stable")
        return [Prediction(self.classes[i], float(rows[0, i])) for i in order.tolist()]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, c) -> (n, c), rows that sum to 1; no overflow, whatever the size of the logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


# -- kept with an index -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassifierSheet:
    """What the classifier was fitted on, and how well it did."""

    format: Literal[1]
    fingerprint: str
    version: str
    report: FitReport


CLASSIFIER = Derived(
    "classifier.npz",
    ClassifierSheet,
    command="searchengine classify --fit",
    arrays=("coefficients", "intercepts", "mean", "scale", "classes"),
)


def save_classifier(index: Index, classifier: Classifier) -> None:
    """Keep a classifier with its index; IndexingError where the folder cannot be written to."""
    CLASSIFIER.save(
        index.folder,
        ClassifierSheet(1, classifier.fingerprint, classifier.version, classifier.report),
        {
            "coefficients": classifier.coefficients,
            "intercepts": classifier.intercepts,
            "mean": classifier.mean,
            "scale": classifier.scale,
            "classes": np.array(classifier.classes, dtype=np.str_),
        },
    )


def load_classifier(index: Index) -> Classifier | None:
    """The classifier kept with an index, or None; ``stale`` if images or labels have changed since it was fitted.

    Raises:
        ExtractorMismatchError: it was fitted on features of another extractor.
        IndexDamagedError: its file is damaged, or is not a classifier.
    """
    kept = CLASSIFIER.load(index.folder)
    if kept is None:
        return None
    if kept.sheet.fingerprint != index.fingerprint:
        raise ExtractorMismatchError(
            f"The classifier in {index.folder} was fitted on features of another extractor than the index has now. Fit "
            f"it again with: {with_index_dir(CLASSIFIER.command, index.address)}"
        )
    fault = _fault(kept.arrays, index.dimension)
    if fault:
        raise IndexDamagedError(
            f"{CLASSIFIER.path(index.folder)} cannot be used: {fault}. Fit it again with: "
            f"{with_index_dir(CLASSIFIER.command, index.address)}"
        )
    arrays = {name: kept.arrays[name] for name in CLASSIFIER.arrays}
    return Classifier(
        classes=tuple(arrays.pop("classes").tolist()),
        **arrays,
        fingerprint=kept.sheet.fingerprint,
        version=kept.sheet.version,
        report=kept.sheet.report,
        stale=kept.sheet.version != labels_version(index),
    )


def latest_classifier(index: Index) -> Cached[Any, Classifier | None]:
    """For a server: ``load_classifier`` again whenever the file or the index has changed.

    To see whether it is stale, all labels are read. That happens in the background: while an index grows, its state
    changes every second. Of another extractor or file, nothing known before is used.
    """

    def key() -> tuple[object, ...]:
        state = index.state()
        return (state.fingerprint, CLASSIFIER.identity(index.folder), state.generation)

    return Cached(key, lambda: load_classifier(index), in_background=lambda old, new: old[:2] == new[:2])


def _fault(arrays: Arrays, dimension: int) -> str:
    """What is wrong with the arrays, or nothing."""
    classes = arrays["classes"]
    if classes.ndim != 1 or classes.dtype.kind != "U" or not 2 <= len(classes) == len(set(classes.tolist())):
        return "its classes are not a list of different names"
    shapes = {
        "coefficients": (len(classes), dimension),
        "intercepts": (len(classes),),
        "mean": (dimension,),
        "scale": (dimension,),
    }
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            return f"{name} is not {shape} finite float64 numbers"
    return "" if (arrays["scale"] > 0).all() else "its scale is not above 0"


# -- the vote of neighbours: k-nearest-neighbours classification (Cover and Hart 1967) ---------------------------------

NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Vote:
    """``count`` of the neighbours with any label carry this one; ``share`` is their part of these neighbours."""

    label: str
    count: int
    share: float


def vote(neighbours: Sequence[Sequence[str]]) -> list[Vote]:
    """The labels of each neighbour, nearest first -> every label with its share, the winner first.

    Each neighbour has one vote for each of its labels; one without labels has none. Of labels with equal votes, the
    label of the nearer neighbour comes first. Empty where no neighbour has a label.
    """
    voters = [tuple(dict.fromkeys(labels)) for labels in neighbours if labels]
    counts: dict[str, int] = {}  # in the order in which labels appear, which the sort keeps
    for labels in voters:
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [Vote(label, count, count / len(voters)) for label, count in ordered]


def predict_by_vote(
    data: TrainingSet, feature: NDArray[np.float32], k: int = NEIGHBOURS, *, without: int | None = None
) -> list[Prediction]:
    """Labels by the share of the k nearest labelled images that carry them, the winner first.

    Args:
        data: the images that may vote, compared by the metric of their index.
        feature: (d,) or (1, d) float32.
        k: how many vote.
        without: the id of an image that has no vote: the query itself.
    """
    squared_norms = data.squared_norms if without is None else np.where(data.ids == without, np.inf, data.squared_norms)
    searcher = Searcher(data.metric, data.features, squared_norms, data.ids)
    positions = searcher.nearest(np.atleast_2d(feature), k)[0].positions
    return [Prediction(result.label, result.share) for result in vote([(data.labels[i],) for i in positions.tolist()])]


def held_out_shares(data: TrainingSet, folds: NDArray[np.int64], classes: Sequence[str], k: int) -> NDArray[np.float64]:
    """Shares of the vote for the images of each fold, by those of the others.

    Args:
        data: the n images that may vote.
        folds: (n,) int64, their folds; negative for an image that is never held out.
        classes: every label of the images.
        k: how many vote.

    Returns:
        (n, classes) float64, zero where not held out. Equal shares are decided as by ``vote``, for the nearer
        neighbour: the share of the winner is raised by next to nothing.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    shares = np.zeros((len(folds), len(classes)))
    for fold in range(int(folds.max()) + 1):
        tested = np.flatnonzero(folds == fold)
        squared_norms = np.where(folds == fold, np.inf, data.squared_norms)  # infinite: no vote
        searcher = Searcher(data.metric, data.features, squared_norms, data.ids)
        for row, nearest in zip(tested.tolist(), searcher.nearest(data.features[tested], k), strict=True):
            votes = vote([(data.labels[i],) for i in nearest.positions.tolist()])
            for place, result in enumerate(votes):
                shares[row, numbers[result.label]] = result.share + (0.0 if place else 1e-12)
    return shares
