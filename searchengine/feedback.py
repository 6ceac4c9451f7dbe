"""Relevance feedback: liked and disliked images -> a direction to search along.

Both rules work on features of length 1 and give a direction w; images are ranked by their cosine with w.

Rocchio (1971): ``w = alpha q + beta mean(liked) - gamma mean(disliked)`` with the customary weights alpha 1, beta 0.75
and gamma 0.15 (Manning, Raghavan and Schuetze 2008, section 9.1.1). q is the query, if there is one.

Exemplar SVM (Malisiewicz, Gupta and Efros 2011): w is the normal of a linear support vector machine that separates the
query and the liked images from the disliked ones and from random images of the index. Nearly all of the random images
show something else; each has little weight, because a few do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import QueryError
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE, rank_alike
from searchengine.index.types import Hit

ROCCHIO: Final = "rocchio"
EXEMPLAR_SVM: Final = "exemplar-svm"
RULES: Final = (EXEMPLAR_SVM, ROCCHIO)
DEFAULT_RULE: Final = EXEMPLAR_SVM  # the better one: benchmarks/feedback.py

ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15
RANDOM_NEGATIVES = 200
COST_JUDGED, COST_RANDOM = 10.0, 0.1  # of an example on the wrong side of its margin; chosen on photos of clothes

_MIN_LENGTH = 1e-6  # a direction shorter than this is rounding error
_TITLES = {ROCCHIO: "Rocchio", EXEMPLAR_SVM: "exemplar SVM"}
_SVM_TOLERANCE = 1e-4
_SVM_PASSES = 300

Rows = NDArray[np.floating]
Direction = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Features of liked or disliked images, and what identifies these images among the results.

    ``features`` is (n, d) float, n may be 0. Hits with one of ``ids`` or ``content_hashes`` are left out.
    """

    features: Rows
    ids: frozenset[int] = frozenset()
    content_hashes: frozenset[str] = frozenset()


def check_rule(rule: str) -> str:
    """The rule itself; QueryError if there is none of that name."""
    if rule not in RULES:
        raise QueryError(f"There is no rule {rule!r}. There are: {', '.join(RULES)}.")
    return rule


def rule_title(rule: str) -> str:
    """The name of a rule for people, such as "exemplar SVM"."""
    return _TITLES[check_rule(rule)]


def search_by_feedback(
    index: LocalIndex,
    liked: Examples,
    disliked: Examples,
    k: int = 20,
    *,
    query: Examples | None = None,
    rule: str = DEFAULT_RULE,
) -> list[Hit]:
    """The k images of an index that are like the liked ones and unlike the disliked ones; all of these are left out.

    Args:
        index: what is searched.
        liked: at least one, unless there is a query.
        disliked: may be empty.
        k: at least 1; more than there are gives all.
        query: the image with which the search began, if there is one.
        rule: one of ``RULES``.

    Returns:
        Hits by (distance, id). Distances and scores compare images with w, in the metric of the index where that ranks
        like the cosine, and as cosine otherwise. They are not comparable with those of a plain search.

    Raises:
        QueryError: nothing is liked, likes and dislikes cancel out, an unknown rule, a wrong shape, k below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k must be a whole number of at least 1, not {k!r}.")
    judged = [liked, disliked] if query is None else [liked, disliked, query]
    ids = frozenset[int]().union(*(examples.ids for examples in judged))
    hashes = frozenset[str]().union(*(examples.content_hashes for examples in judged))
    asked = None if query is None else np.atleast_2d(query.features)
    if check_rule(rule) == ROCCHIO:
        w = rocchio(liked.features, disliked.features, asked)
    else:
        positive = liked.features if asked is None else np.concatenate([asked, np.atleast_2d(liked.features)])
        w = exemplar_svm(positive, disliked.features, _random_negatives(index, ids))
    metric = index.metric if rank_alike(index.metric, COSINE, normalized=index.normalized) else COSINE
    depth, total = k + len(ids) + len(hashes), len(index)
    while True:
        hits = _without(index, index.search(w, depth, metric)[0], ids, hashes)
        if len(hits) >= k or depth >= total:  # there may be many copies of what is left out
            break
        depth *= 2
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], start=1)]


def rocchio(
    liked: Rows,
    disliked: Rows,
    query: Rows | None = None,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> Direction:
    """(p, d) liked, (m, d) disliked, perhaps a (1, d) query -> the direction, (d,) float32 of length 1; QueryError."""
    parts = [(alpha, query), (beta, liked), (-gamma, disliked)]
    given = [(weight, unit(rows)) for weight, rows in parts if rows is not None and len(rows)]
    if not any(weight > 0 for weight, _ in given):
        raise QueryError("Name at least one liked image: nothing can be recommended from dislikes alone.")
    return _direction(np.sum([weight * rows.mean(axis=0) for weight, rows in given], axis=0))


def exemplar_svm(
    liked: Rows,
    disliked: Rows,
    negatives: Rows,
    *,
    judged_cost: float = COST_JUDGED,
    random_cost: float = COST_RANDOM,
) -> Direction:
    """(p, d) liked, (m, d) disliked, (r, d) random images -> the (d,) float32 normal, of length 1; QueryError."""
    if not len(liked):
        raise QueryError("Name at least one liked image: nothing can be recommended from dislikes alone.")
    examples = [(liked, 1.0, judged_cost), (disliked, -1.0, judged_cost), (negatives, -1.0, random_cost)]
    parts = [(rows, sign, cost) for rows, sign, cost in examples if len(rows)]
    rows = np.concatenate([unit(part) for part, _, _ in parts])  # (p + m + r, d)
    signs = np.concatenate([np.full(len(part), sign) for part, sign, _ in parts])
    costs = np.concatenate([np.full(len(part), cost) for part, _, cost in parts])
    return _direction(linear_svm(rows, signs, costs)[0])


def linear_svm(
    rows: NDArray[np.float64], signs: NDArray[np.float64], costs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Minimise ``(|w|^2 + b^2) / 2 + sum of costs_i max(0, 1 - signs_i (w . rows_i + b))``.

    By dual coordinate descent (Hsieh et al. 2008) over the Gram matrix: an update costs n, whatever the dimension. It
    is fast enough to run while somebody waits, needs no scikit-learn to serve, and visits the examples in a fixed
    order, so that the result is always the same.

    Args:
        rows: (n, d) float64, a few hundred.
        signs: (n,) +1 or -1.
        costs: (n,) above 0.

    Returns:
        w, (d,) float64, and b.
    """
    gram = rows @ rows.T + 1.0  # the bias is one more feature that is always 1: (n, n)
    signed = signs[:, None] * gram * signs[None, :]
    weights = np.zeros(len(rows))  # of the dual: between 0 and costs
    gradient = np.full(len(rows), -1.0)  # of the dual: signed @ weights - 1
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
    combined = weights * signs
    return combined @ rows, float(combined.sum())


def unit(rows: Rows) -> NDArray[np.float64]:
    """Rows of length 1, float64; a row of zeros stays."""
    wide = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    result: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1.0)
    return result


def _random_negatives(index: LocalIndex, without: frozenset[int]) -> Rows:
    """At most (200, d) float32 features of random images; the same each time while the index stays as it is."""
    state = index.state()
    live = state.live[~np.isin(state.ids[state.live], list(without))]
    chosen = np.sort(np.random.default_rng(0).permutation(len(live))[:RANDOM_NEGATIVES])
    return np.asarray(state.rows[live[chosen]])


def _direction(w: NDArray[np.float64]) -> Direction:
    length = float(np.linalg.norm(w))
    if not length > _MIN_LENGTH:
        raise QueryError("What is liked and what is disliked cancel out. Take one of them back, or like another image.")
    return (w / length).astype(np.float32)


def _without(index: LocalIndex, hits: list[Hit], ids: frozenset[int], hashes: frozenset[str]) -> list[Hit]:
    kept = [hit for hit in hits if hit.id not in ids]
    if not hashes:
        return kept
    known = {record.id: record.content_hash for record in index.known([hit.id for hit in kept])}
    return [hit for hit in kept if known.get(hit.id) not in hashes]
