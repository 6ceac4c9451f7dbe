"""The labels of the nearest images vote: k-nearest-neighbours classification (Cover and Hart 1967)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.index.exact import Searcher
from searchengine.learn.classifiers import Prediction
from searchengine.learn.training_set import TrainingSet

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
