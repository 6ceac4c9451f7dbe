"""The page agrees with the rules and the classifier of a real index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from searchengine.engine import SearchEngine
from searchengine.index.local import LocalIndex
from searchengine.learn import fit_classifier, load_classifier, save_classifier, training_set
from searchengine.query import Query
from tests.analyse.filled import fill
from tests.waiting import wait_until
from tests.web.conftest import JSON
from tests.web.mapped import app_of, fill_index


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return fill_index(tmp_path, 30)


@pytest.fixture
def client(index: LocalIndex, tmp_path: Path) -> FlaskClient:
    return app_of(index, tmp_path / "cache").test_client()


@pytest.mark.parametrize("rule", ["exemplar-svm", "rocchio"])
def test_the_ranking_is_that_of_the_rule(client: FlaskClient, index: LocalIndex, rule: str) -> None:
    engine = SearchEngine(index)
    judged = {"liked": [4, 5], "disliked": [2], "k": 12, "rule": rule}
    expected = engine.search(Query.of(1, **judged))
    body = client.get(f"/search?id=1&like=4&like=5&dislike=2&rule={rule}&k=12", headers=JSON).get_json()
    assert [hit["id"] for hit in body["hits"]] == [hit.id for hit in expected]
    assert body["rule"] == rule
    # A query by feature, as for an upload, ranks like the same query by id.
    by_feature = engine.search(Query.of(index.feature(1), **judged))
    assert [hit.id for hit in by_feature if hit.id != 1][:11] == [hit.id for hit in expected][:11]


def test_the_label_is_that_of_the_classifier(client: FlaskClient, index: LocalIndex, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    assert "predicted" not in client.get("/search?id=1", headers=JSON).get_json()
    save_classifier(index, fit_classifier(training_set(index)))
    classifier = load_classifier(index)
    assert classifier is not None
    best = classifier.predict(index.feature(1))[0]
    predicted = client.get("/search?id=1", headers=JSON).get_json()["predicted"]
    assert predicted["labels"][0] == {"label": best.label, "probability": best.probability}
    assert best.label == "red"
    assert predicted["stale"] is False
    fill(tmp_path / "index", np.empty((0, 6), np.float32), gone=[30])
    # It is checked in the background.
    wait_until(lambda: client.get("/search?id=1", headers=JSON).get_json()["predicted"]["stale"])
    assert "have changed since the classifier was trained" in client.get("/search?id=1").text
