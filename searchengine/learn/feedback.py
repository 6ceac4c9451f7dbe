"""Relevance feedback: liked and disliked images -> a direction to search along.

Both rules work on features of length 1 and end in a direction w; the images are then ranked by their cosine with w.

Rocchio (1971): ``w = alpha q + beta mean(liked) - gamma mean(disliked)``, with the weights that have become usual,
alpha 1, beta 0.75 and gamma 0.15 (Manning, Raghavan and Schuetze 2008, section 9.1.1). q is the query, if there is one.

Exemplar SVM (Malisiewicz, Gupta and Efros 2011): w is the normal of a linear support vector machine that parts the
query and the liked images from the disliked ones and from images of the index drawn at random, nearly all of which are
something else; these weigh little each, since a few are not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import QueryError
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE, rank_alike
from searchengine.index.types import Hit
from searchengine.learn.svm import linear_svm

if TYPE_CHECKING:
    from PIL.Image import Image

    from searchengine.engine import SearchEngine

    Example: TypeAlias = int | bytes | str | os.PathLike[str] | Image | NDArray[np.uint8] | NDArray[np.float32]

ROCCHIO: Final = "rocchio"
EXEMPLAR_SVM: Final = "exemplar-svm"
RULES: Final = (EXEMPLAR_SVM, ROCCHIO)
DEFAULT_RULE: Final = EXEMPLAR_SVM  # the better one: benchmarks/feedback.py

ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15
RANDOM_NEGATIVES = 200
COST_JUDGED, COST_RANDOM = 10.0, 0.1  # of an example on the wrong side of its margin; chosen on photos of clothes

_SMALLEST = 1e-6  # a direction shorter than this is rounding
_TITLES = {ROCCHIO: "Rocchio", EXEMPLAR_SVM: "exemplar SVM"}

Rows = NDArray[np.floating]
Direction = NDArray[np.float32]


def check_rule(rule: str) -> str:
    """The rule itself; QueryError if there is none of that name."""
    if rule not in RULES:
        raise QueryError(f"There is no rule {rule!r}. There are: {', '.join(RULES)}.")
    return rule


def rule_title(rule: str) -> str:
    """As people say it, e.g. "exemplar SVM"."""
    return _TITLES[check_rule(rule)]


def recommend(
    index: LocalIndex,
    liked: Rows,
    disliked: Rows,
    k: int = 20,
    *,
    rule: str = DEFAULT_RULE,
    query: Rows | None = None,
    without: Collection[int] = (),
    without_contents: Collection[str] = (),
    seed: int = 0,
) -> list[Hit]:
    """The k images of an index that are like those liked and unlike those disliked.

    Args:
        index: what is searched.
        liked: (p, d) float, p at least 1 unless there is a query.
        disliked: (m, d) float, m may be 0.
        k: at least 1; more than there are gives all.
        rule: one of ``RULES``.
        query: (d,) or (1, d) float: the image with which the search began, if there is one.
        without: ids of images that are left out: those that were judged.
        without_contents: content hashes of images that are left out.
        seed: of the choice of random negatives.

    Returns:
        Hits by (distance, id); distance and score compare with w, in the metric of the index where that ranks as the
        cosine does, else as cosine. They tell an order, and are not to be compared with those of a plain search.

    Raises:
        QueryError: nothing liked, likes and dislikes cancel out, an unknown rule, a wrong shape, k below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k must be a whole number of at least 1, not {k!r}.")
    asked = None if query is None else np.atleast_2d(query)
    if check_rule(rule) == ROCCHIO:
        w = rocchio(liked, disliked, asked)
    else:
        judged = liked if asked is None else np.concatenate([asked, np.atleast_2d(liked)])
        w = exemplar_svm(judged, disliked, random_rows(index, without, seed))
    metric = index.metric if rank_alike(index.metric, COSINE, normalized=index.normalized) else COSINE
    wanted, everything = k + len(without) + len(without_contents), len(index)
    while True:
        found = index.search(w, wanted, metric)[0]
        kept = _without(index, found, without, without_contents)
        if len(kept) >= k or wanted >= everything:  # there may be many copies of what is left out
            break
        wanted *= 2
    return [replace(hit, rank=rank) for rank, hit in enumerate(kept[:k], start=1)]


def recommend_examples(
    engine: SearchEngine,
    liked: Sequence[Example],
    disliked: Sequence[Example],
    k: int,
    *,
    query: Example | None = None,
    rule: str | None = None,
    max_pixels: int | None = None,
) -> list[Hit]:
    """``recommend`` for ids, images and features: those that are none are looked up, or made."""
    if rule is not None:
        check_rule(rule)
    both = {id_ for id_ in liked if isinstance(id_, int)} & {id_ for id_ in disliked if isinstance(id_, int)}
    if both:
        raise QueryError(f"Image {min(both)} is both liked and disliked. Leave one of them out.")
    wanted = [
        _Wanted(engine, examples, max_pixels) for examples in (liked, disliked, () if query is None else (query,))
    ]
    likes, dislikes, asked = (one.rows for one in wanted)
    return recommend(
        engine.index,
        likes,
        dislikes,
        k,
        rule=rule or DEFAULT_RULE,
        query=asked if len(asked) else None,
        without=frozenset().union(*(one.ids for one in wanted)),
        without_contents=frozenset().union(*(one.contents for one in wanted)),
    )


class _Wanted:
    """The features of examples, (n, d) float32, each example once, and by what its image is known in the index."""

    def __init__(self, engine: SearchEngine, examples: Sequence[Example], max_pixels: int | None) -> None:
        from searchengine.images import read_image

        self.ids: set[int] = set()
        self.contents: set[str] = set()
        rows = [np.empty((0, engine.index.dimension), dtype=np.float32)]
        for example in examples:
            if isinstance(example, int | np.integer):
                if int(example) not in self.ids:
                    self.ids.add(int(example))
                    rows.append(engine.index.feature(int(example))[None])  # (d,) -> (1, d)
                continue
            if isinstance(example, np.ndarray) and example.dtype != np.uint8:
                rows.append(np.atleast_2d(example).astype(np.float32))  # (d,) -> (1, d)
                continue
            if isinstance(example, str | os.PathLike):
                example = read_image(example)
            if isinstance(example, bytes):
                content = hashlib.blake2b(example, digest_size=16).hexdigest()
                if content in self.contents:
                    continue
                self.contents.add(content)
            rows.append(engine.embed(cast("bytes | Image | NDArray[np.uint8]", example), max_pixels=max_pixels))
        self.rows = np.concatenate(rows)


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


def random_rows(index: LocalIndex, without: Collection[int], seed: int, count: int = RANDOM_NEGATIVES) -> Rows:
    """At most (count, d) float32 features of images drawn at random; the same each time while the index stays."""
    state = index.state()
    live = state.live[~np.isin(state.ids[state.live], list(without))]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(live))[:count])
    return np.asarray(state.rows[live[chosen]])


def unit(rows: Rows) -> NDArray[np.float64]:
    """Rows of length 1, float64; a row of zeros stays."""
    wide = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    result: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1.0)
    return result


def _direction(w: NDArray[np.float64]) -> Direction:
    length = float(np.linalg.norm(w))
    if not length > _SMALLEST:
        raise QueryError("What is liked and what is disliked cancel out. Take one of them back, or like another image.")
    return (w / length).astype(np.float32)


def _without(index: LocalIndex, hits: list[Hit], ids: Collection[int], contents: Collection[str]) -> list[Hit]:
    kept = [hit for hit in hits if hit.id not in ids]
    if not contents:
        return kept
    known = {record.id: record.content_hash for record in index.known([hit.id for hit in kept])}
    return [hit for hit in kept if known.get(hit.id) not in contents]
