"""Miners choose the triplets of a batch by the distances of its embeddings. They work on NumPy arrays alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Triplets = NDArray[np.int64]  # (t, 3): rows of anchor, positive, negative


def squared_distances(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """(b, d) -> (b, b) squared Euclidean distances, at least 0, and 0 on the diagonal."""
    rows = embeddings.astype(np.float64)
    products = rows @ rows.T
    norms = np.diagonal(products)
    distances = np.maximum(norms[:, None] + norms[None, :] - 2.0 * products, 0.0)
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances, dtype=np.float64)


def semihard(distances: NDArray[np.float64], labels: NDArray[np.int64], margin: float) -> Triplets:
    """For each anchor and positive, the nearest semi-hard negative: farther than the positive, by less than the margin
    (Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, section 3.2).

    Args:
        distances: (b, b) float64, squared as in the loss.
        labels: (b,) int64.
        margin: that of the loss.

    Returns:
        (t, 3) int64 in the order of anchor and positive. A pair without a semi-hard negative has no triplet; of equally
        near negatives the first counts.
    """
    same = labels[:, None] == labels[None, :]
    anchors, positives = np.nonzero(same & ~np.eye(len(labels), dtype=np.bool_))
    near = distances[anchors, positives][:, None]  # (t, 1)
    candidates = distances[anchors]  # (t, b)
    fitting = ~same[anchors] & (candidates > near) & (candidates < near + margin)
    return _nearest(anchors, positives, np.where(fitting, candidates, np.inf))


def hard(distances: NDArray[np.float64], labels: NDArray[np.int64]) -> Triplets:
    """For each anchor, the farthest positive and the nearest negative of the batch: "batch hard" (Hermans, Beyer and
    Leibe 2017, https://arxiv.org/abs/1703.07737).

    Args:
        distances: (b, b) float64.
        labels: (b,) int64.

    Returns:
        (t, 3) int64 in the order of anchors. An anchor without a positive or a negative has no triplet; of equally far
        positives, and of equally near negatives, the first counts.
    """
    same = labels[:, None] == labels[None, :]
    positive = same & ~np.eye(len(labels), dtype=np.bool_)
    anchors = np.flatnonzero(positive.any(axis=1))
    positives = np.where(positive, distances, -np.inf)[anchors].argmax(axis=1) if len(anchors) else anchors
    return _nearest(anchors, positives, np.where(same, np.inf, distances)[anchors])


def _nearest(anchors: NDArray[np.int64], positives: NDArray[np.int64], candidates: NDArray[np.float64]) -> Triplets:
    """Add the nearest candidate to each pair, and drop pairs without any; ``candidates`` (t, b) are inf elsewhere."""
    if not candidates.size:
        return np.empty((0, 3), dtype=np.int64)
    negatives = candidates.argmin(axis=1)
    exists = np.isfinite(candidates[np.arange(len(candidates)), negatives])
    triplets: Triplets = np.stack([anchors, positives, negatives], axis=1)[exists].astype(np.int64)
    return triplets
