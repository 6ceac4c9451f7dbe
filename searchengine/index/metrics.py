"""The metrics by name, their scores, and which of them give the same ranking.

A smaller distance is nearer, and a larger score is better:

    metric          distance                              score
    euclidean       |q - x|                               cosine where both have length 1, else 1 / (1 + distance)
    cosine          1 - cos(q, x)                         cos(q, x)
    manhattan       sum of |q_i - x_i|                    1 / (1 + distance)
    inner-product   minus the inner product: -(q . x)     q . x

A vector of zeros has no direction: its cosine with anything, itself included, counts as 0.
"""

from __future__ import annotations

from typing import Final

from searchengine.errors import check_name

EUCLIDEAN: Final = "euclidean"
COSINE: Final = "cosine"
MANHATTAN: Final = "manhattan"
INNER_PRODUCT: Final = "inner-product"
NEAR_DUPLICATE: Final = 0.2  # maximum distance of near-duplicates, as a share of the typical length of a feature
METRICS: Final = (EUCLIDEAN, COSINE, MANHATTAN, INNER_PRODUCT)

_ALIKE_WHEN_NORMALIZED = (EUCLIDEAN, COSINE, INNER_PRODUCT)
_TITLES = {
    EUCLIDEAN: "Euclidean distance",
    COSINE: "cosine distance",
    MANHATTAN: "Manhattan distance",
    INNER_PRODUCT: "inner product",
}


def check_metric(metric: str) -> str:
    """Return a metric's name; UnknownNameError if there is no such metric."""
    return check_name("metric", metric, METRICS)


def metric_title(metric: str) -> str:
    """Return a metric's name for display, such as "Euclidean distance"."""
    return _TITLES[check_metric(metric)]


def score(metric: str, distance: float, *, normalized: bool) -> float:
    """Return the score of a distance; ``normalized`` says that the features and the query have length 1."""
    if metric == EUCLIDEAN and normalized:
        return 1.0 - distance * distance / 2.0  # d^2 = 2 - 2 cos
    if metric == COSINE:
        return 1.0 - distance
    if metric == INNER_PRODUCT:
        return 0.0 - distance  # never -0.0
    return 1.0 / (1.0 + distance)


def rank_alike(metric: str, other: str, *, normalized: bool) -> bool:
    """Return whether two metrics give the same order for every query.

    If all features have length 1, then |q - x|^2 = 2 - 2 q.x, and q.x is the cosine. So Euclidean distance, cosine and
    inner product rank alike, up to the rounding of the features themselves.
    """
    check_metric(metric)
    check_metric(other)
    return metric == other or (normalized and metric in _ALIKE_WHEN_NORMALIZED and other in _ALIKE_WHEN_NORMALIZED)


def alike_sentence(metric: str, *, normalized: bool) -> str:
    """Return a sentence that names the metrics with the same order, or "" if there are none."""
    alike = (other for other in METRICS if other != metric and rank_alike(metric, other, normalized=normalized))
    others = [metric_title(other) for other in alike]
    if not others:
        return ""
    return f"These features have length 1, so {' and '.join(others)} give the same order."
