"""How good embeddings are on a validation part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import evaluate_features
from searchengine.learn.triplets.batches import draw_triplets, with_partner
from searchengine.learn.triplets.miners import Triplets

_TRIPLETS = 5000


@dataclass(frozen=True, slots=True)
class Scores:
    """``triplet_accuracy`` is the share of random triplets with D(a, p) < D(a, n); ``precision`` is P@1."""

    triplet_accuracy: float
    precision: float
    mean_average_precision: float


def validation_triplets(labels: NDArray[np.int64], seed: int) -> Triplets:
    """(n,) int64 -> (5000, 3) int64 rows; always the same of a seed."""
    random = np.random.default_rng(seed)
    return draw_triplets(labels, random.choice(with_partner(labels), _TRIPLETS), random)


def triplet_accuracy(embeddings: NDArray[np.float32], triplets: Triplets) -> float:
    """The share of triplets whose positive is nearer than the negative; a tie is none of these."""
    anchors, positives, negatives = (embeddings[triplets[:, i]].astype(np.float64) for i in range(3))  # (t, d) each
    near = np.square(anchors - positives).sum(axis=1)
    far = np.square(anchors - negatives).sum(axis=1)
    return float(np.mean(near < far))


def score(embeddings: NDArray[np.float32], labels: NDArray[np.int64], triplets: Triplets) -> Scores:
    """(n, d) float32 rows of length one and their (n,) labels -> leave-one-out scores, by distance."""
    names: Sequence[str] = [str(label) for label in labels.tolist()]
    found = evaluate_features(embeddings, names)
    return Scores(triplet_accuracy(embeddings, triplets), found["P@1"], found["mAP"])
