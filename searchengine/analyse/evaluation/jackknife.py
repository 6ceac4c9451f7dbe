"""What would have been measured without some of the photos: how much a difference owes to the photos at hand.

A photo is a query and, for all other queries, a result, so queries are not independent of one another, and a test over
queries is too sure of itself for photos that were not there. Here the photos fall into groups; each group is taken out
in turn, of the queries and of the collection alike, and everything is measured again. How much the figures move says
how much they would with other photos of the same kind: the delete-a-group jackknife (Efron and Tibshirani 1993,
chapter 11; Kott 2001).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation.metrics import NDCG_AT, PRECISION_AT

GROUPS: Final = 25
# of Student's t with 1 to GROUPS - 1 degrees of freedom
_T_95: Final = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788,
    2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
)  # fmt: skip

Values = NDArray[np.float64]


def groups_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """(n,) int64: the group of each photo, by its path, so that it is the same in every index."""
    return np.array(
        [int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()) % GROUPS for key in keys],
        dtype=np.int64,
    )


def without_each_group(
    groups: NDArray[np.int64], hits: NDArray[np.int64], gains: Values, recall_ks: Sequence[int]
) -> Values:
    """The measures of one query with each group taken out of its ranking.

    Args:
        groups: (n,) int64, of each image in the order of the ranking.
        hits: (r,) int64, where the relevant ones stand, from 0.
        gains: (r,) float64, what they are worth.
        recall_ks: the k of recall@k.

    Returns:
        (GROUPS, m) float64, as ``metrics.names`` has them; NaN where nothing relevant is left.
    """
    count = len(hits)
    until = np.repeat(np.arange(count), np.diff(hits, prepend=-1))  # (last hit + 1,): which hit comes next
    gone = np.bincount(until * GROUPS + groups[: len(until)], minlength=count * GROUPS)
    gone = gone.reshape(count, GROUPS).cumsum(axis=0)  # (r, g): taken out at or before each hit
    kept = groups[hits][:, None] != np.arange(GROUPS)
    places = np.where(kept, (hits + 1)[:, None] - gone, np.iinfo(np.int64).max)  # (r, g), ranks from 1
    left = kept.sum(axis=0)  # (g,)
    worth = gains[:, None] * kept
    best = -np.sort(-worth, axis=0)[:NDCG_AT]
    discount = np.log2(np.arange(2, len(best) + 2))[:, None]
    gained = np.where(places <= NDCG_AT, worth / np.log2(places + 1.0), 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [
            *((places <= k).sum(axis=0) / k for k in PRECISION_AT),
            *((places <= k).sum(axis=0) / left for k in recall_ks),
            (kept.cumsum(axis=0) / places * kept).sum(axis=0) / left,
            gained / (best / discount).sum(axis=0),
        ]
    found = np.stack(columns, axis=1)
    found[left == 0] = np.nan
    return found


def held(replicates: Values, of_query: NDArray[np.int64]) -> int:
    """How many groups there are to tell a spread by: those that hold a query, and without which others still ask.

    Takes what ``spread`` takes. Few photos leave groups empty, and what is taken out with an empty group is nothing.
    """
    able = np.flatnonzero(_asking(replicates, of_query).any(axis=0))
    return len(np.intersect1d(of_query, able))


def spread(replicates: Values, of_query: NDArray[np.int64]) -> Values:
    """(q, GROUPS, m) values without each group, and the (q,) group of each query -> (m,) standard errors of the mean.

    In a replicate the queries of the group are left out too, and those that have nothing relevant left. With fewer
    than two groups ``held`` nothing can be told, and the errors are 0.
    """
    asking = _asking(replicates, of_query)
    count = asking.sum(axis=0)
    sums = np.where(asking[:, :, None], replicates, 0.0).sum(axis=0)  # (g, m)
    means = sums[count > 0] / count[count > 0, None]
    groups = max(held(replicates, of_query), 1)
    return np.asarray(np.sqrt((groups - 1) / groups * ((means - means.mean(axis=0)) ** 2).sum(axis=0)))


def _asking(replicates: Values, of_query: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(q, GROUPS): which queries there are without each group."""
    asking: NDArray[np.bool_] = of_query[:, None] != np.arange(GROUPS)
    asking &= ~np.isnan(replicates).any(axis=2)
    return asking


def margin(error: float, groups: int) -> float:
    """Half the width of the 95 % interval, told by so many groups ``held``; infinite with fewer than two."""
    return _T_95[groups - 2] * error if groups > 1 else math.inf


def t_p(difference: float, error: float, groups: int) -> float:
    """Two-sided p-value of Student's t with ``groups`` - 1 degrees of freedom; 1 with fewer than two groups.

    Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    if groups < 2:
        return 1.0
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    freedom = groups - 1
    odd = freedom % 2
    angle = math.atan(abs(difference) / error / math.sqrt(freedom))
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):  # of the cosine
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    within = math.sin(angle) * total
    return max(0.0, 1.0 - (2.0 / math.pi * (angle + within) if odd else within))
