"""Relevance, and the measures of a ranking, which are computed from the places of the relevant images.

``places`` are the ranks of all images that are relevant to a query, ascending from 1. A ranking holds the whole
collection, so none is missing. ``gains`` says how relevant each of them is.

    P@k         relevant images among the first k, divided by k
    recall@k    relevant images among the first k, divided by all relevant images
    AP          mean of P@r over the ranks r of all relevant images; its mean over queries is mAP
    NDCG@k      sum of gain / log2(rank + 1) over the first k, divided by that of the best possible order

Manning, Raghavan and Schuetze, Introduction to Information Retrieval (2008), chapter 8; NDCG: Jarvelin and Kekalainen,
ACM TOIS 20 (2002), with the gain itself rather than 2^gain - 1 in the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

PRECISION_AT: Final = (1, 5, 10)
RECALL_AT: Final = (10, 100)
NDCG_AT: Final = 10
MAIN: Final = "mAP"  # the measure that orders classes and compares indexes
LEVELS: Final = 21  # levels of recall of a curve: 0, 0.05, ..., 1
LEFT_OUT: Final = np.iinfo(np.int64).max  # the place of an image that is not in a ranking


# -- measures ---------------------------------------------------------------------------------------------------------


def names(recall_at: Sequence[int] = RECALL_AT) -> tuple[str, ...]:
    """Return the names of all measures, in the order of ``measured``."""
    precision = tuple(f"P@{k}" for k in PRECISION_AT)
    return (*precision, *(f"recall@{k}" for k in recall_at), MAIN, f"NDCG@{NDCG_AT}")


def measured(
    places: NDArray[np.int64], gains: NDArray[np.float64], recall_ks: Sequence[int] = RECALL_AT
) -> NDArray[np.float64]:
    """Compute all measures of a query in one or more rankings of the same images.

    Args:
        places: (r, ...) int64, the places of the r relevant images in each ranking, ascending; ``LEFT_OUT`` for an
            image that a ranking lacks.
        gains: (r,) float64, positive: the gain of each relevant image.
        recall_ks: the k of recall@k.

    Returns:
        (..., m) float64, in the order of ``names``; NaN for a ranking without relevant images.
    """
    kept = places < LEFT_OUT
    relevant = kept.sum(axis=0)
    kept_gains = (gains * kept.T).T
    best = -np.sort(-kept_gains, axis=0)[:NDCG_AT]
    discounts = np.log2(np.arange(2, len(best) + 2))
    gained = np.where(places <= NDCG_AT, kept_gains / np.log2(places + 1.0), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [
            *((places <= k).sum(axis=0) / k for k in PRECISION_AT),
            *((places <= k).sum(axis=0) / relevant for k in recall_ks),
            (kept.cumsum(axis=0) / places * kept).sum(axis=0) / relevant,
            gained.sum(axis=0) / (best.T / discounts).sum(axis=-1),
        ]
    measures = np.stack(columns, axis=-1)
    measures[relevant == 0] = np.nan
    return measures


def ceilings(relevant: int, recall_ks: Sequence[int] = RECALL_AT) -> list[float]:
    """Return the measures of a perfect ranking: with three ``relevant`` images, P@10 is 0.3 at best."""
    return [
        *(min(relevant, k) / k for k in PRECISION_AT),
        *(min(relevant, k) / relevant for k in recall_ks),
        1.0,
        1.0,
    ]


def precision_by_recall(places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (LEVELS,) float64 interpolated precision at levels of recall from 0 to 1.

    As TREC defines it, this is the greatest precision at any recall of at least that level.
    """
    precision = np.arange(1, len(places) + 1) / places
    best = np.maximum.accumulate(precision[::-1])[::-1]  # (r,): from each relevant image on
    needed = np.ceil(np.linspace(0.0, 1.0, LEVELS) * len(places) - 1e-9).astype(np.int64)
    return np.asarray(best[np.maximum(needed, 1) - 1])


# -- relevance --------------------------------------------------------------------------------------------------------


class Relevance:
    """The images of each label. The gain of an image is the number of labels it shares with the query."""

    def __init__(self, labels: Sequence[Sequence[str]]) -> None:
        """``labels`` are the labels of each image of the collection; an empty label does not count."""
        self.of_images = [distinct(image_labels) for image_labels in labels]
        self.labelled = sum(map(bool, self.of_images))
        self._members = members(labels)

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return list(self._members)

    def size(self, label: str) -> int:
        """Return the number of images with a label."""
        return len(self._members.get(label, ()))

    def gains(self, labels: Iterable[str], left_out: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Count how many of these labels each image has: (n,) uint16, 0 for the images in ``left_out``."""
        shared = np.zeros(len(self.of_images), dtype=np.uint16)
        for label in distinct(labels):
            positions = self._members.get(label)
            if positions is not None:
                shared[positions] += 1
        shared[left_out] = 0
        return shared


def members(labels: Sequence[Iterable[str]]) -> dict[str, NDArray[np.int64]]:
    """Return each label, sorted, with the (m,) int64 positions of its images, given the labels of each image."""
    positions: dict[str, list[int]] = {}
    for position, image_labels in enumerate(labels):
        for label in distinct(image_labels):
            positions.setdefault(label, []).append(position)
    return {label: np.array(positions[label], dtype=np.int64) for label in sorted(positions)}


def distinct(labels: Iterable[str]) -> tuple[str, ...]:
    """Drop empty and repeated labels; keep the order."""
    return tuple(dict.fromkeys(label for label in labels if label.strip()))
