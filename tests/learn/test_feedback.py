"""Rocchio and the exemplar SVM against written-out formulas, and the images left out of the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.engine import SearchEngine, open_index
from searchengine.errors import QueryError, UnknownImageError
from searchengine.exchange import ImportOptions, import_features
from searchengine.feedback import exemplar_svm, linear_svm, rocchio
from searchengine.index.types import Hit
from searchengine.indexing import update_index
from searchengine.query import EXEMPLAR_SVM, ROCCHIO, RULES, Query
from tests.fakes import FakeExtractor, write_pictures
from tests.learn.conftest import Indexed, clouds


def test_rocchio_by_hand() -> None:
    liked, disliked, query = np.array([[2.0, 0.0], [0.0, 5.0]]), np.array([[0.0, 3.0]]), np.array([[1.0, 0.0]])
    # 1 (1, 0) + 0.75 (0.5, 0.5) - 0.15 (0, 1)
    expected = np.array([1.375, 0.225])
    np.testing.assert_allclose(rocchio(liked, disliked, query), expected / np.hypot(*expected), rtol=1e-6)
    np.testing.assert_allclose(rocchio(liked[:1], liked[:0]), [1.0, 0.0])
    with pytest.raises(QueryError, match="cancel out"):
        rocchio(np.concatenate([liked[:1], -liked[:1]]), liked[:0])


@pytest.mark.parametrize("rule", RULES)
def test_recommend_equals_a_loop(rule: str, indexed: Indexed) -> None:
    features, labels = clouds((20, 20))
    features[31] = features[5]  # a tie
    index = indexed(features, labels)
    liked, disliked = [4, 9, 1], [33]
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if rule == ROCCHIO:
        w = 0.75 * rows[[3, 8, 0]].mean(axis=0) - 0.15 * rows[32]
    else:
        rest = [i for i in range(40) if i + 1 not in (*liked, *disliked)]
        w = exemplar_svm(rows[[3, 8, 0]], rows[[32]], rows[rest]).astype(np.float64)
    cosines = rows @ (w / np.linalg.norm(w))
    expected = sorted((-round(float(cosines[i]), 6), i + 1) for i in range(40) if i + 1 not in (*liked, *disliked))
    engine = SearchEngine(index)

    def recommend(start: int | None = None, **rest: Any) -> list[Hit]:
        query = Query.of(start, **{"liked": liked, "disliked": disliked, "k": 100, "rule": rule, **rest})
        return list(engine.search(query))

    hits = recommend()
    assert [(-round(hit.score, 6), hit.id) for hit in hits] == expected
    assert [hit.rank for hit in hits] == list(range(1, 37))
    assert [hit.id for hit in recommend(k=3)] == [id_ for _, id_ in expected[:3]]
    assert 7 not in [hit.id for hit in recommend(7)]
    again = recommend(liked=[*liked, 4])
    assert [hit.id for hit in again] == [hit.id for hit in hits]  # liking an image twice changes nothing


@pytest.mark.parametrize(
    ("metric", "normalize", "distance"),
    [
        ("euclidean", "l2", lambda cosine: (2 - 2 * cosine) ** 0.5),
        ("inner-product", "l2", lambda cosine: -cosine),
        ("cosine", "l2", lambda cosine: 1 - cosine),
        ("manhattan", "l2", lambda cosine: 1 - cosine),
        ("euclidean", "none", lambda cosine: 1 - cosine),
        ("inner-product", "none", lambda cosine: 1 - cosine),
    ],
)
def test_distances_are_those_of_the_index_where_it_ranks_by_direction(
    metric: str, normalize: str, distance: Callable[[float], float], tmp_path: Path
) -> None:
    features = clouds((6, 6))[0]
    np.save(tmp_path / "a.npy", features)
    import_features(tmp_path / "a.npy", tmp_path / "index", ImportOptions(metric=metric, normalize=normalize))
    index = open_index(tmp_path / "index")
    hits = SearchEngine(index).search(Query.of(liked=[features[0]], k=12, rule=ROCCHIO))
    assert len(hits) == 12
    for hit in hits:
        row, liked = features[hit.id - 1], features[0]
        cosine = float(row @ liked / np.linalg.norm(row) / np.linalg.norm(liked))
        assert hit.score == pytest.approx(cosine, abs=1e-6)
        assert hit.distance == pytest.approx(distance(min(cosine, 1.0)), abs=1e-3)
    index.close()


def test_svm_equals_scikit_learn() -> None:
    svm = pytest.importorskip("sklearn.svm")
    features, labels = clouds((30, 25), seed=3)
    signs = np.where(np.array(labels) == "a", 1.0, -1.0)
    costs = np.where(signs > 0, 2.0, 0.3)
    w = linear_svm(features.astype(np.float64), signs, costs)
    theirs = svm.LinearSVC(loss="hinge", C=1.0, dual=True, tol=1e-6, max_iter=200_000)
    theirs.fit(features.astype(np.float64), signs, sample_weight=costs)
    np.testing.assert_allclose(w, theirs.coef_[0], atol=2e-3)


def test_what_is_refused(indexed: Indexed) -> None:
    features, labels = clouds((5, 5))
    engine = SearchEngine(indexed(features, labels))
    for liked, disliked in (([], [1]), ([], []), ([1, 2], [2])):
        with pytest.raises(QueryError):
            engine.search(Query.of(liked=liked, disliked=disliked))
    for rule in RULES:
        with pytest.raises(QueryError):
            engine.search(Query.of(disliked=[1], rule=rule))
    with pytest.raises(QueryError, match="cancel out"):
        engine.search(Query.of(liked=[np.zeros(features.shape[1], dtype=np.float32)], rule=ROCCHIO))
    with pytest.raises(UnknownImageError):
        engine.search(Query.of(liked=[77]))
    with pytest.raises(QueryError, match="exemplar-svm"):
        Query.of(liked=[1], rule="magic")
    for k in (0, -1, True, 1.5):
        with pytest.raises(QueryError):
            Query.of(liked=[1], k=k)
    assert list(engine.search(Query.of(liked=range(1, 11)))) == []  # all of them liked: nothing is left


def test_contents_are_left_out_however_many_copies(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", **{f"copy{number:02}": 90 for number in range(25)})
    write_pictures(tmp_path / "in", black=0, grey=60, white=255)
    update_index([tmp_path / "in"], tmp_path / "index", extractor=FakeExtractor())
    engine = SearchEngine(open_index(tmp_path / "index"))
    engine._extractor = FakeExtractor()
    for liked in (tmp_path / "in" / "copy00.png", (tmp_path / "in" / "copy00.png").read_bytes()):
        hits = engine.search(Query.of(liked=[liked], k=2, rule=EXEMPLAR_SVM))
        assert len(hits) == 2
        assert not any("copy" in hit.path for hit in hits)
    engine.close()
