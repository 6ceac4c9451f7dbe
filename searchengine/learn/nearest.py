"""The labels of the nearest labelled images vote, and their shares stand for probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchengine.index.exact import Searcher
from searchengine.learn.classifiers import Prediction
from searchengine.learn.folds import ALWAYS
from searchengine.learn.training_set import TrainingSet
from searchengine.voting import vote

NEIGHBOURS = 10


def predict_by_vote(
    data: TrainingSet, feature: NDArray[np.float32], k: int = NEIGHBOURS, *, without: int | None = None
) -> list[Prediction]:
    """Labels by the share of the k nearest labelled images that carry them (Cover and Hart 1967), the winner first.

    Args:
        data: the images that may vote, compared by the metric of their index.
        feature: (d,) or (1, d) float32.
        k: how many vote.
        without: the id of an image that has no vote: the one that is asked about.
    """
    norm2 = data.norm2 if without is None else np.where(data.ids == without, np.inf, data.norm2)
    searcher = Searcher(data.metric, data.features, norm2, data.ids)
    positions = searcher.nearest(np.atleast_2d(feature), k)[0].positions
    return [Prediction(one.label, one.share) for one in vote([(data.labels[i],) for i in positions.tolist()])]


def held_out_shares(
    data: TrainingSet,
    truth: NDArray[np.int64],
    used: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    k: int,
) -> NDArray[np.float64]:
    """Shares of the vote for the images of each fold, by those of the others: (n, classes), zero where not held out.

    Only the images ``used`` have a vote, (u,) positions: among the rest there may be copies of one that is held out.
    Shares that are equal are told apart as ``vote`` does, in favour of the nearer neighbour: the winner's share is
    raised by next to nothing.
    """
    shares = np.zeros((len(truth), classes))
    norm2 = np.full(len(truth), np.inf)
    norm2[used] = data.norm2[used]
    for fold in range(int(folds.max()) + 1):
        tested = np.flatnonzero(folds == fold)
        searcher = Searcher(data.metric, data.features, np.where(folds == fold, np.inf, norm2), data.ids)
        for row, found in zip(tested.tolist(), searcher.nearest(data.features[tested], k), strict=True):
            votes = vote([(str(truth[i]),) for i in found.positions.tolist()])
            for one in votes:
                shares[row, int(one.label)] = one.share
            if votes:
                shares[row, int(votes[0].label)] += 1e-12
    assert not shares[folds == ALWAYS].any()
    return shares
