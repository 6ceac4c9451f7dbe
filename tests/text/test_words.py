"""A text becomes a feature through the classification head of the index's network."""

from __future__ import annotations

import math
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from scripts.class_vectors import class_names, compute
from searchengine import update_index
from searchengine.errors import ExtractorError, QueryError, SearchEngineError
from searchengine.extractors import ExtractorSpec, make_spec
from searchengine.extractors.models import PACKAGED
from searchengine.extractors.source import Head
from searchengine.index.filters import EVERYTHING, Cursor
from searchengine.index.local import LocalIndex
from searchengine.text import search, words
from searchengine.text.encoder import TextEncoder
from searchengine.text.search import DirectionWords
from searchengine.text.words import HEAD, Words, class_titles, class_vectors, head_of
from tests.fakes import SPEC
from tests.text.conftest import LITE, IdealExtractor, ideal

CLASSES = {"strawberry": 949, "laptop": 620, "goldfish": 1, "volcano": 980}


def test_the_head_is_kept_with_the_index_and_read_from_there(
    folder: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, LITE.model, None)  # so a search for the weights would fail
    kept = head_of(folder, LITE)
    assert np.array_equal(kept.weights, head.weights)
    assert np.array_equal(kept.bias, head.bias)


def test_a_head_of_another_network_is_not_used(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(folder, copy)
    larger = make_spec("efficientnet-lite0", input_size=256)
    head_of(copy, larger)
    kept = HEAD.load(copy)
    assert kept is not None
    assert kept.sheet.fingerprint == larger.fingerprint


def test_a_damaged_head_does_not_fail_a_run_and_is_named_in_a_search(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(folder, copy)
    (copy / HEAD.file).write_bytes(b"nothing")
    update_index(folder.parent / "images", copy, extractor=IdealExtractor())
    with pytest.raises(SearchEngineError, match=r"words\.npz cannot be read.*searchengine words"):
        Words.of(LocalIndex.open(copy))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (ExtractorSpec("efficientnet-lite0", "top_conv", "avg", "l2", "imagenet", (224, 224), False), "layer avg_pool"),
        (ExtractorSpec("vgg16", "fc1", "none", "l2", "imagenet", (224, 224), True), "layer fc2"),
        (ExtractorSpec("own", None, "none", "l2", "sha256:00", (9, 9), True, "none"), "custom model"),
        (ExtractorSpec("imported", None, "none", "none", "none", (1, 1), True), "imported"),
        (SPEC, "no model 'fake'"),
    ],
)
def test_models_without_words_say_why(spec: ExtractorSpec, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=reason):
        head_of(tmp_path, spec)
    search.keep_words(tmp_path, spec, None)
    assert list(tmp_path.iterdir()) == []


def test_a_text_is_the_mean_of_similar_classes(head: Head) -> None:
    text = "a ripe strawberry"
    (query,) = TextEncoder().embed([text])
    likeness = [float(vector @ query) for vector in class_vectors()]
    weights = [math.exp(value / words.TEMPERATURE) for value in likeness]
    mean = head.weights.mean(axis=0)
    direction = sum(w * (row - mean) for w, row in zip(weights, head.weights, strict=True))
    feature = Words(head).feature(f"  {text}\n")
    assert feature.shape == (1, 1280)
    assert feature[0] == pytest.approx(direction / np.linalg.norm(direction), abs=1e-5)


def test_probabilities_are_a_softmax(head: Head) -> None:
    known = Words(head)
    features = np.stack([ideal(head, number) for number in CLASSES.values()])
    probabilities = known.probabilities(3.0 * features)  # their length makes no difference
    assert probabilities.shape == (4, 1000)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities.argmax(axis=1).tolist() == list(CLASSES.values())
    assert known.probabilities(features[:1]) == pytest.approx(probabilities[:1], rel=1e-3)  # each by itself
    assert known.probabilities(features[:0]).shape == (0, 1000)


def test_what_the_network_sees(head: Head) -> None:
    nothing = np.full(1280, 1 / math.sqrt(1280), dtype=np.float32)
    features = np.stack([ideal(head, 949), nothing, ideal(head, 0) + ideal(head, 620)])
    known = Words(head)
    rows, classes, probabilities = known.recognised(features)
    expected = [
        (row, number)
        for row, each in enumerate(known.probabilities(features))
        for number in np.argsort(-each, kind="stable")[: words.MOST_TAGS]
        if each[number] >= words.LEAST_TAG
    ]
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == expected
    assert expected[0] == (0, 949)
    assert 1 not in rows
    assert probabilities == pytest.approx([known.probabilities(features)[place] for place in expected])
    assert [len(each) for each in known.recognised(features[:0])] == [0, 0, 0]


def test_a_missing_subject_is_reported(head: Head) -> None:
    known = Words(head)
    strawberry = ideal(head, 949)
    assert known.doubt("strawberries", strawberry) is None
    assert known.doubt("volcano", strawberry) == "No image seems to show “volcano”. These come nearest."
    assert "knows nothing like “quarterly tax report”" in str(known.doubt("quarterly tax report", strawberry))


@pytest.mark.parametrize("text", ["giraffe", "animal", "furniture", "bird"])
def test_a_picture_that_shows_a_little_of_everything_shows_no_text(head: Head, text: str) -> None:
    """The small probabilities of many animals add up, so that a photo of tissue once passed for a giraffe."""
    nothing = np.mean([ideal(head, number) for number in range(1000)], axis=0, dtype=np.float32)
    assert "No image seems to show" in str(Words(head).doubt(text, nothing))


@pytest.mark.parametrize("text", ["", " \n", "x" * 501])
def test_a_text_without_words_or_with_too_many(text: str, head: Head) -> None:
    with pytest.raises(QueryError, match="Search for a few words"):
        Words(head).feature(text)


def test_the_shipped_vectors_are_those_of_the_names() -> None:
    some = range(0, 1000, 100)
    expected = compute(TextEncoder(), some)
    assert class_vectors()[list(some)] == pytest.approx(expected, abs=1e-3)  # float16
    assert len(class_titles()) == 1000
    assert class_names()[388][0] == "giant panda"


def test_an_index_that_searches_by_vectors_is_searched_by_one_direction(folder: Path, head: Head) -> None:
    with closing(LocalIndex.open(folder)) as index:
        words = DirectionWords(Words(head), index)
        hits = words.order("laptop")(4, EVERYTHING, None)
        assert Path(hits[0].path).stem == "computer"
        rest = words.order("laptop")(4, EVERYTHING, Cursor(hits[1].distance, hits[1].id))
        assert [hit.id for hit in rest] == [hit.id for hit in hits[2:]]
        fish = ideal(head, 0)
        both = words.order("laptop", 3 * fish)(4, EVERYTHING, None)
        halfway = index.search(words.feature("laptop")[0] + fish, 4, "cosine")[0]
        assert [hit.id for hit in both] == [hit.id for hit in halfway]
        assert [hit.distance for hit in both] == pytest.approx([hit.distance for hit in halfway], abs=1e-6)
