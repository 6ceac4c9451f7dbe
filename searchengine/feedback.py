"""Relevance feedback: liked and disliked images give a direction to search along.

Both rules work on features of length 1 and compute a direction w. Images are ranked by their cosine with w.

Rocchio (1971): ``w = alpha q + beta mean(liked) - gamma mean(disliked)`` with the customary weights alpha 1, beta 0.75
and gamma 0.15 (Manning, Raghavan and Schuetze 2008, section 9.1.1). q is the query, if there is one.

Exemplar SVM (Malisiewicz, Gupta and Efros 2011): w is the normal of a linear support vector machine that separates the
query and the liked images from the disliked ones and from random images of the index. Nearly all random images show
something else; because a few do not, each has little weight.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import QueryError
from searchengine.query import EXEMPLAR_SVM, ROCCHIO

ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15
RANDOM_NEGATIVES = 200
COST_JUDGED, COST_RANDOM = 10.0, 0.1  # cost of violating the margin; chosen on photos of clothes

_MIN_LENGTH = 1e-6  # a direction shorter than this is rounding error
_TITLES = {ROCCHIO: "Rocchio", EXEMPLAR_SVM: "exemplar SVM"}
_SVM_TOLERANCE = 1e-4
_SVM_PASSES = 300

Rows = NDArray[np.floating]
Direction = NDArray[np.float32]


def rule_title(rule: str) -> str:
    """Return the display name of a rule, such as "exemplar SVM"."""
    return _TITLES[rule]


def direction(rule: str, liked: Rows, disliked: Rows, start: Rows | None, negatives: Callable[[], Rows]) -> Direction:
    """Compute the direction to search along by one of ``query.RULES``: (d,) float32 of length 1.

    Args:
        rule: the name of the rule.
        liked: (p, d); at least one, unless there is a start.
        disliked: (m, d); may be empty.
        start: the (1, d) feature that the search started from, if any.
        negatives: returns (r, d) features of random images; called by the rule that needs them.

    Raises:
        QueryError: nothing is liked, or likes and dislikes cancel out.
    """
    if start is None and not len(liked):
        raise QueryError("Like at least one image: dislikes alone are not enough to search by.")
    if rule == ROCCHIO:
        return rocchio(liked, disliked, start)
    return exemplar_svm(liked if start is None else np.concatenate([start, liked]), disliked, negatives())


def rocchio(liked: Rows, disliked: Rows, query: Rows | None = None) -> Direction:
    """Return the direction for (p, d) liked, (m, d) disliked and perhaps a (1, d) query: (d,) float32 of length 1.

    Raises QueryError if they cancel out.
    """
    parts = [(ALPHA, query), (BETA, liked), (-GAMMA, disliked)]
    terms = [(weight, unit(rows)) for weight, rows in parts if rows is not None and len(rows)]
    return _direction(np.sum([weight * rows.mean(axis=0) for weight, rows in terms], axis=0))


def exemplar_svm(
    liked: Rows,
    disliked: Rows,
    negatives: Rows,
    *,
    judged_cost: float = COST_JUDGED,
    random_cost: float = COST_RANDOM,
) -> Direction:
    """Return the direction that separates liked images from disliked and random ones: (d,) float32 of length 1.

    ``liked`` is (p, d) with p > 0, ``disliked`` (m, d) and ``negatives`` (r, d). Raises QueryError if they cancel out.
    """
    examples = [(liked, 1.0, judged_cost), (disliked, -1.0, judged_cost), (negatives, -1.0, random_cost)]
    parts = [(rows, sign, cost) for rows, sign, cost in examples if len(rows)]
    rows = np.concatenate([unit(part) for part, _, _ in parts])  # (p + m + r, d)
    signs = np.concatenate([np.full(len(part), sign) for part, sign, _ in parts])
    costs = np.concatenate([np.full(len(part), cost) for part, _, cost in parts])
    return _direction(linear_svm(rows, signs, costs))


def linear_svm(
    rows: NDArray[np.float64], signs: NDArray[np.float64], costs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minimise ``(|w|^2 + b^2) / 2 + sum of costs_i max(0, 1 - signs_i (w . rows_i + b))``; return w, (d,) float64.

    Uses dual coordinate descent (Hsieh et al. 2008) on the Gram matrix, so an update costs n whatever the dimension. It
    is fast enough for interactive use, needs no scikit-learn to serve, and visits the examples in a fixed order, so
    that the result is always the same.

    Args:
        rows: (n, d) float64, a few hundred rows.
        signs: (n,) +1 or -1.
        costs: (n,) above 0.
    """
    gram = rows @ rows.T + 1.0  # (n, n); the bias is an additional feature that is always 1
    signed = signs[:, None] * gram * signs[None, :]
    weights = np.zeros(len(rows))  # the dual variables, between 0 and costs
    gradient = np.full(len(rows), -1.0)  # the gradient of the dual: signed @ weights - 1
    bounds, diagonal = costs.tolist(), np.diag(signed).tolist()
    for _ in range(_SVM_PASSES):
        worst = 0.0
        for i, (bound, curvature) in enumerate(zip(bounds, diagonal, strict=True)):
            old, slope = float(weights[i]), float(gradient[i])
            new = min(max(old - slope / curvature, 0.0), bound)
            if new != old:
                worst = max(worst, abs(slope))
                weights[i] = new
                gradient += (new - old) * signed[i]
        if worst < _SVM_TOLERANCE:
            break
    w: NDArray[np.float64] = (weights * signs) @ rows
    return w


def unit(rows: Rows) -> NDArray[np.float64]:
    """Normalise rows to length 1, float64; a row of zeros stays zero."""
    wide = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    result: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1.0)
    return result


def _direction(w: NDArray[np.float64]) -> Direction:
    length = float(np.linalg.norm(w))
    if not length > _MIN_LENGTH:
        raise QueryError("Likes and dislikes cancel out. Take one of them back, or like another image.")
    return (w / length).astype(np.float32)
