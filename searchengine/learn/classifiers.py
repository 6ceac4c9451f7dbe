"""Labels for images: predicted by a classifier, which is kept with its index, or by a vote of the nearest images.

A classifier is a set of arrays and a report of its accuracy. Predicting needs NumPy only.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
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

# -- accuracy ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The score of one class: ``right`` of its ``images`` held-out images were given its label."""

    label: str
    images: int
    right: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """The number of images with one label that were given another."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of predictions for held-out images, each made by a model that had not seen the image.

    Attributes:
        images: the number of predictions.
        accuracy: the share of right predictions.
        low: lower bound of the 95 % interval of the accuracy (Wilson 1927).
        high: its upper bound.
        calibration_error: the expected calibration error (Guo et al. 2017; 15 bins of the winner's probability): how
            far, on average, the share of right predictions is from their probability.
        brier: the mean over images of the sum over classes of (probability - truth)^2 (Brier 1950), from 0, perfect, to
            2.
        by_class: the score of each class. With ``confused``, this is the whole confusion matrix.
        confused: the confusions, the most frequent first.
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
    """The data that a classifier was fitted on, and its accuracy.

    Attributes:
        fitted: ISO 8601 in UTC.
        images: the number of labelled images.
        unlabelled: the number of images without a label.
        regularization: C, the inverse strength of the L2 penalty.
        folds: the number of folds; 0 if nothing could be held out.
        neighbours: the number of neighbours in the vote.
        logistic: the scores of the logistic regression; None if nothing could be held out.
        vote: the scores of the vote; None if nothing could be held out.
        notes: sentences for the user.
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
        """The accuracy of the logistic regression on held-out images; NaN if nothing could be held out."""
        return math.nan if self.logistic is None else self.logistic.accuracy


# -- the classifier ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label with its probability, from 0 to 1; over all labels they sum to 1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Multinomial logistic regression on standardised features.

    ``P(c | x) = softmax(W ((x - mean) / scale) + b)_c`` (Bishop 2006, section 4.3.4). Two classes have two rows as
    well, of which one is zero; this equals the logistic function of the other. Immutable, so threads may share it.
    """

    classes: tuple[str, ...]
    coefficients: NDArray[np.float64]  # (c, d), W
    intercepts: NDArray[np.float64]  # (c,), b
    mean: NDArray[np.float64]  # (d,), of the features it was fitted on
    scale: NDArray[np.float64]  # (d,), their standard deviation; 1 where that is 0
    fingerprint: str  # of the extractor that computed the features
    version: str  # of the images and labels that it was fitted on
    report: FitReport
    stale: bool = False  # whether images or labels have changed since

    def probabilities(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of all classes, in the order of ``classes``.

        Args:
            features: (n, d) float32, or (d,) for a single feature, computed by the extractor of the index.

        Returns:
            (n, c) float64; each row sums to 1.

        Raises:
            QueryError: a wrong shape, NaN or infinity.
        """
        block = np.atleast_2d(np.asarray(features, dtype=np.float64))  # (d,) -> (1, d)
        if block.ndim != 2 or block.shape[1] != len(self.mean):
            raise QueryError(f"Features have the shape {block.shape}; this classifier needs (n, {len(self.mean)}).")
        if not np.isfinite(block).all():
            raise QueryError("A feature contains NaN or infinity, so its label cannot be predicted.")
        return softmax(((block - self.mean) / self.scale) @ self.coefficients.T + self.intercepts)  # (n, d) -> (n, c)

    def predict(self, feature: ArrayLike) -> list[Prediction]:
        """Return all labels for one feature, (d,) or (1, d), the most probable first. Raises QueryError.

        Labels with equal probability are in alphabetical order.
        """
        rows = self.probabilities(feature)
        if len(rows) != 1:
            raise QueryError(f"predict() takes one feature, not {len(rows)}; probabilities() takes several.")
        order = np.argsort(-rows[0], kind="stable")
        return [Prediction(self.classes[i], float(rows[0, i])) for i in order.tolist()]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax of each row, (n, c) -> (n, c), without overflow for logits of any size."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


# -- the classifier kept with an index ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassifierSheet:
    """The metadata stored with a classifier."""

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
    """Store a classifier with its index. Raises IndexingError if the folder is not writable."""
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
    """Load the classifier of an index, or None; it is ``stale`` if images or labels have changed since it was fitted.

    Raises:
        ExtractorMismatchError: it was fitted on features of another extractor.
        IndexDamagedError: its file is damaged, or is not a classifier.
    """
    stored = CLASSIFIER.load(index.folder)
    if stored is None:
        return None
    if stored.sheet.fingerprint != index.fingerprint:
        raise ExtractorMismatchError(
            f"The classifier in {index.folder} was fitted on features of another extractor. Fit it again with: "
            f"{with_index_dir(CLASSIFIER.command, index.address)}"
        )
    fault = _fault(stored.arrays, index.dimension)
    if fault:
        raise IndexDamagedError(
            f"{CLASSIFIER.path(index.folder)} cannot be used: {fault}. Fit it again with: "
            f"{with_index_dir(CLASSIFIER.command, index.address)}"
        )
    arrays = {name: stored.arrays[name] for name in CLASSIFIER.arrays}
    return Classifier(
        classes=tuple(arrays.pop("classes").tolist()),
        **arrays,
        fingerprint=stored.sheet.fingerprint,
        version=stored.sheet.version,
        report=stored.sheet.report,
        stale=stored.sheet.version != labels_version(index),
    )


def latest_classifier(index: Index) -> Cached[Any, Classifier | None]:
    """Return a cache for servers, which calls ``load_classifier`` again whenever the file or the index has changed.

    To tell whether the classifier is stale, all labels are read. This happens in the background, because the state of a
    growing index changes every second. After a change of extractor or file, nothing old is served.
    """

    def key() -> tuple[object, ...]:
        state = index.state()
        return (state.fingerprint, CLASSIFIER.identity(index.folder), state.generation)

    return Cached(key, lambda: load_classifier(index), in_background=lambda old, new: old[:2] == new[:2])


def _fault(arrays: Arrays, dimension: int) -> str:
    """Return a description of what is wrong with the arrays, or an empty string."""
    classes = arrays["classes"]
    if classes.ndim != 1 or classes.dtype.kind != "U" or not 2 <= len(classes) == len(set(classes.tolist())):
        return "its classes are not a list of distinct names"
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
    """A label with its votes: ``count`` of the labelled neighbours carry it, which is a ``share`` of them."""

    label: str
    count: int
    share: float


def vote(neighbours: Sequence[Sequence[str]]) -> list[Vote]:
    """Count the labels of neighbours, given nearest first, and return every label with its share, the winner first.

    Each neighbour has one vote for each of its labels; a neighbour without labels has none. Of labels with equal votes,
    the label of the nearer neighbour comes first. Empty if no neighbour has a label.
    """
    voters = [tuple(dict.fromkeys(labels)) for labels in neighbours if labels]
    # most_common keeps the order in which labels first appear among those with equal counts
    counts = Counter(itertools.chain.from_iterable(voters)).most_common()
    return [Vote(label, count, count / len(voters)) for label, count in counts]


def predict_by_vote(
    data: TrainingSet, feature: NDArray[np.float32], k: int = NEIGHBOURS, *, without: int | None = None
) -> list[Prediction]:
    """Predict labels by the share of the k nearest labelled images that carry them, the winner first.

    Args:
        data: the images that may vote, compared by the metric of their index.
        feature: (d,) or (1, d) float32.
        k: the number of voters.
        without: the id of an image that has no vote, such as the query itself.
    """
    squared_norms = data.squared_norms if without is None else np.where(data.ids == without, np.inf, data.squared_norms)
    searcher = Searcher(data.metric, data.features, squared_norms, data.ids)
    positions = searcher.nearest(np.atleast_2d(feature), k)[0].positions
    return [Prediction(result.label, result.share) for result in vote([(data.labels[i],) for i in positions.tolist()])]


def held_out_shares(data: TrainingSet, folds: NDArray[np.int64], classes: Sequence[str], k: int) -> NDArray[np.float64]:
    """Return the shares of the vote for the images of each fold, with the images of the other folds as voters.

    Args:
        data: the n images that may vote.
        folds: (n,) int64, the fold of each image; negative for an image that is never held out.
        classes: every label of the images.
        k: the number of voters.

    Returns:
        (n, classes) float64, zero for images that are not held out. As in ``vote``, the nearer neighbour decides
        between equal shares: the share of the winner is raised by 1e-12.
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
