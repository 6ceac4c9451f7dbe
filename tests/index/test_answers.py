"""A search by an image of the index: itself first; and copies among the hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.engine import SearchEngine
from searchengine.exchange import import_features
from searchengine.index.answers import copies_sentence, count_copies, search_by_id
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import METRICS
from searchengine.index.types import Hit, ImageRecord


def index_of(features: NDArray[np.float32], folder: Path) -> LocalIndex:
    np.save(folder / "features.npy", features)
    import_features(folder / "features.npy", folder / "index")
    return LocalIndex.open(folder / "index")


@pytest.mark.parametrize("metric", METRICS)
def test_an_image_comes_before_its_copies_and_a_feature_of_zeros_before_all(tmp_path: Path, metric: str) -> None:
    features = np.random.default_rng(0).random((60, 8), dtype=np.float32)
    features[:40] = features[0] * 2  # the longest, so that the inner product ranks them first, too
    features[50] = 0
    index = index_of(features, tmp_path)
    for id_ in (1, 20, 40):
        hits = search_by_id(index, id_, 5, metric)
        assert [hit.id for hit in hits] == [id_, *[other for other in range(1, 6) if other != id_][:4]]
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        assert len({hit.distance for hit in hits}) == 1
        assert hits[0].path == hits[0].record.path == f"#{id_}"
    assert search_by_id(index, 51, 3, metric)[0].id == 51
    assert SearchEngine(index).search_id(40, 1, metric=metric)[0].id == 40


def test_what_is_nearer_by_the_inner_product_stays_first(tmp_path: Path) -> None:
    index = index_of(np.array([[1, 0], [3, 0], [2, 0]], dtype=np.float32), tmp_path)
    assert [hit.id for hit in search_by_id(index, 1, 3, "inner-product")] == [2, 3, 1]
    assert [hit.id for hit in search_by_id(index, 1, 2, "inner-product")] == [2, 3]


def hit(number: int, content: str | None) -> Hit:
    record = ImageRecord(number, f"{number}.jpg", None, (), None, None, None, None, None, content)
    return Hit(number, number, record.path, 0.0, 1.0, None, record)


def test_copies_are_counted_and_said_where_they_are_most() -> None:
    assert count_copies([]) == 0
    assert copies_sentence([]) == ""
    assert count_copies([hit(1, None), hit(2, None)]) == 0
    most = [hit(number, "a") for number in range(4)] + [hit(9, "b")]
    assert count_copies(most) == 3
    assert copies_sentence(most).startswith("3 of these 5 are copies")
    assert copies_sentence([hit(1, "a"), hit(2, "a"), hit(3, "b"), hit(4, "c")]) == ""
