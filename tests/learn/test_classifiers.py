"""Logistic regression against scikit-learn, the vote against a loop, and sets with hardly any labels."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from searchengine.errors import LearningError, QueryError
from searchengine.learn import (
    Classifier,
    FitReport,
    TrainingSet,
    fit_classifier,
    predict_by_vote,
    training_set,
)
from tests.learn.conftest import Indexed, clouds

REPORT = FitReport("2026-01-01T00:00:00+00:00", 4, 0, 1.0, 0, 10, None, None, ())


def by_hand() -> Classifier:
    return Classifier(
        classes=("cat", "dog"),
        coefficients=np.array([[0.0, 0.0], [np.log(3.0), 0.0]]),
        intercepts=np.array([0.0, 0.0]),
        mean=np.array([10.0, 0.0]),
        scale=np.array([2.0, 1.0]),
        fingerprint="f" * 16,
        version="v" * 16,
        report=REPORT,
    )


def test_worked_by_hand() -> None:
    classifier = by_hand()
    # (12 - 10) / 2 = 1, so the odds of a dog are 3 to 1
    assert [(p.label, round(p.probability, 9)) for p in classifier.predict([12.0, 5.0])] == [
        ("dog", 0.75),
        ("cat", 0.25),
    ]
    assert [p.label for p in classifier.predict([10.0, 0.0])] == ["cat", "dog"]  # a tie
    assert classifier.predict([1e6, 0.0])[0].probability == 1.0  # no overflow
    for wrong in ([1.0], [[1.0, 2.0], [3.0, 4.0]], [float("nan"), 0.0]):
        with pytest.raises(QueryError):
            classifier.predict(wrong)


@pytest.mark.parametrize("sizes", [(40, 30), (30, 25, 40, 12)])
def test_equals_scikit_learn(sizes: tuple[int, ...], indexed: Indexed) -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = clouds(sizes)
    features[:, 2] = 7.0  # carries no information, and has no spread
    classifier = fit_classifier(training_set(indexed(features, labels)))
    c = classifier.report.regularization
    theirs: Any = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    theirs.fit(features.astype(np.float64), labels)
    assert list(theirs.classes_) == list(classifier.classes)
    queries = clouds((20,), seed=5)[0].astype(np.float64)
    queries[:, 2] = 7.0
    np.testing.assert_allclose(classifier.probabilities(queries), theirs.predict_proba(queries), atol=1e-6)


def test_what_is_reported(indexed: Indexed) -> None:
    pytest.importorskip("sklearn")
    features, labels = clouds((60, 50, 40), dimension=6)
    labels[-1] = ""
    data = training_set(indexed(features, labels))
    report = fit_classifier(data).report
    assert (report.images, report.unlabelled, report.folds) == (149, 1, 5)
    assert report.logistic is not None
    assert report.vote is not None
    assert report.logistic.images == report.vote.images == 149
    assert report.accuracy == report.logistic.accuracy
    assert 0.5 < report.logistic.low < report.logistic.accuracy < report.logistic.high < 1
    assert sum(one.images for one in report.logistic.by_class) == 149
    wrong = sum(one.images - one.right for one in report.logistic.by_class)
    assert sum(one.count for one in report.logistic.confused) == wrong
    assert fit_classifier(data).report.logistic == report.logistic  # repeatable
    random = np.random.default_rng(0)
    shuffled = [str(label) for label in random.permutation(labels[:-1])]
    guessed = fit_classifier(training_set(indexed(features[:-1], shuffled, "shuffled"))).report
    assert guessed.logistic is not None
    assert guessed.logistic.low < 60 / 149 + 0.05  # nothing can be learnt, so no accuracy is claimed


def test_vote_equals_a_loop(indexed: Indexed) -> None:
    features, labels = clouds((20, 15, 10))
    labels[3] = labels[30] = ""
    data = training_set(indexed(features, labels))
    known = [i for i in range(45) if labels[i]]
    for query in (0, 25, 44):
        nearest = sorted(
            (float(((features[i].astype(float) - features[query]) ** 2).sum()), i) for i in known if i != query
        )[:7]
        predictions = predict_by_vote(data, features[query], 7, without=query + 1)
        assert {p.label: round(p.probability * 7) for p in predictions} == {
            name: count for name in "abc" if (count := sum(labels[i] == name for _, i in nearest))
        }
        assert sum(p.probability for p in predictions) == pytest.approx(1.0)


def test_hardly_any_labels(indexed: Indexed) -> None:
    features, _ = clouds((8,))
    with pytest.raises(LearningError, match=r"has a label.*searchengine import --labels"):
        training_set(indexed(features, name="none"))
    with pytest.raises(LearningError, match="same label, 'cat'"):
        fit_classifier(training_set(indexed(features, ["cat"] * 8, "one")))
    pytest.importorskip("sklearn")
    report = fit_classifier(training_set(indexed(features, list("abcdefgh"), "singles"))).report
    assert report.logistic is None
    assert np.isnan(report.accuracy)
    assert "nothing could be held out" in report.notes[0]
    report = fit_classifier(training_set(indexed(features, list("aabbccdd"), "pairs"))).report
    assert (report.folds, report.regularization) == (2, 0.1)
    assert "too few to choose C" in report.notes[0]
    fitted = fit_classifier(training_set(indexed(features, list("aaaaaaab"), "lonely")))
    assert fitted.classes == ("a", "b")
    assert fitted.report.logistic is not None
    assert fitted.report.logistic.images == 7
    assert "single image (b)" in fitted.report.notes[0]


def test_large_sets_are_sampled_and_only_sampled_images_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    from searchengine.learn import fitting

    random = np.random.default_rng(0)
    features = np.tile(random.standard_normal((600, 8)).astype(np.float32), (2, 1))  # every picture twice
    labels = tuple(random.choice(list("abcd"), 600).tolist() * 2)  # from which nothing can be learnt
    ids, groups = np.arange(1, 1201), np.tile(np.arange(600), 2)
    squared_norms = np.square(features.astype(np.float64)).sum(axis=1)
    data = TrainingSet(ids, labels, groups, features, squared_norms, "euclidean", "", "", 0, 0)
    monkeypatch.setattr(fitting, "_MAX_CROSS_VALIDATED", 300)
    report = fit_classifier(data, neighbours=1).report
    assert report.logistic is not None
    assert report.vote is not None
    assert report.images == 1200
    assert report.logistic.images == report.vote.images == 300
    assert "on 300 of the 1200 images" in report.notes[0]
    assert report.vote.low < 0.25 < report.vote.high


def test_prediction_needs_no_scikit_learn() -> None:
    code = (
        "import sys\n"
        "for name in ('sklearn', 'scipy', 'threadpoolctl'): sys.modules[name] = None\n"
        "from tests.learn.test_classifiers import by_hand\n"
        "assert by_hand().predict([12.0, 5.0])[0].label == 'dog'\n"
        "import numpy as np\n"
        "from searchengine.learn import TrainingSet, fit_classifier\n"
        "from searchengine.errors import MissingPackageError\n"
        "x = np.eye(4, dtype=np.float32)\n"
        "n = np.arange(4)\n"
        "data = TrainingSet(n, ('a', 'a', 'b', 'b'), n, x, np.ones(4), 'euclidean', '', '', 0, 0)\n"
        "try:\n"
        "    fit_classifier(data)\n"
        "except MissingPackageError as error:\n"
        "    assert 'searchengine[learn]' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
