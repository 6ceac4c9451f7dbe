"""Images are ranked by words through the classes seen in each image, which are kept with the index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine import update_index
from searchengine.engine import SearchEngine, open_index
from searchengine.extractors.source import Head
from searchengine.index.columns import TAGS
from searchengine.index.filters import EVERYTHING, Filter
from searchengine.index.local import LocalIndex
from searchengine.index.types import Batch, Hit
from searchengine.index.writer import IndexWriter
from searchengine.query import LIKED, START, Example, Query
from searchengine.text import search, words
from searchengine.text.encoder import TextEncoder
from searchengine.text.search import SEEN, text_search
from searchengine.text.words import FLATNESS, RANKING_TEMPERATURE, SHOWN, Words, class_vectors
from tests.fakes import write_pictures
from tests.text.conftest import IdealExtractor, ideal


@pytest.fixture
def engine(copy: Path) -> Iterator[SearchEngine]:
    with closing(SearchEngine.open(copy / "index")) as engine:
        yield engine


def ranked(engine: SearchEngine, text: str) -> list[tuple[str, float]]:
    return [(Path(hit.path).stem, hit.distance) for hit in engine.search(Query(text=text))]


def test_a_picture_fits_a_text_as_far_as_its_classes_are_meant(engine: SearchEngine, head: Head) -> None:
    text, words = "a mountain", Words(head)
    (query,) = TextEncoder().embed([text])
    likeness = class_vectors() @ query
    distances = dict(ranked(engine, text))
    for stem, number in (("apple", 948), ("computer", 620), ("fish", 0), ("strawberry", 980)):
        probabilities = words.probabilities(ideal(head, number)[None], FLATNESS)[0]
        best = sorted(range(1000), key=lambda i: -probabilities[i])[:SHOWN]
        length = np.linalg.norm(sum(probabilities[i] * class_vectors()[i] for i in best))
        fit = sum(
            probabilities[i] / length * np.exp((likeness[i] - likeness.max()) / RANKING_TEMPERATURE) for i in best
        )
        assert distances[stem] == pytest.approx(1 - fit, abs=2e-3)  # weights are stored as float16


@pytest.mark.parametrize("sign", [START, LIKED])
def test_words_and_a_picture_multiply(engine: SearchEngine, head: Head, sign: str) -> None:
    ids = {Path(record.path).stem: record.id for record in engine.index.sample(9)}
    fits = {stem: 1 - distance for stem, distance in ranked(engine, "a mountain")}
    query = Query((Example(ids["fish"], sign=sign),), text="a mountain", rule="rocchio" if sign == LIKED else None)
    distances = {Path(hit.path).stem: hit.distance for hit in engine.search(query)}
    assert len(distances) == (4 if sign == START else 3)  # what is liked is left out
    for stem, distance in distances.items():
        cosine = float(engine.index.feature(ids[stem]) @ ideal(head, 0))
        assert distance == pytest.approx(1 - cosine - np.log((fits[stem] + 0.01) / 1.01) / 8, abs=1e-5)
    assert list(distances.values()) == sorted(distances.values())
    few = engine.search(replace(query, filter=Filter(ids=(ids["apple"], ids["computer"]))))
    assert [hit.distance for hit in few] == [distances[Path(hit.path).stem] for hit in few]


def test_a_broad_word_finds_every_kind(tmp_path: Path) -> None:
    """One direction among the features, such as the mean of a hundred breeds of dogs, is unlike any one of them."""
    dogs = {f"breed{level}": level for level in (47, 50, 63)}  # two terriers and the Affenpinscher
    others = {"fish": 0, "apple": 237, "computer": 155, "volcano": 245, "ship": 121, "cat": 71}
    write_pictures(tmp_path / "images", **dogs, **others)
    update_index(tmp_path / "images", tmp_path / "index", extractor=IdealExtractor())
    with closing(SearchEngine.open(tmp_path / "index")) as engine:
        assert {stem for stem, _ in ranked(engine, "dog")[:3]} == set(dogs)
        pages, cursor = [], None
        while True:
            page = engine.search(Query(text="dog", k=2, cursor=cursor))
            pages += [(Path(hit.path).stem, hit.distance) for hit in page]
            if (cursor := page.cursor) is None:
                break
        assert pages == ranked(engine, "dog")


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_missing_classes_are_computed_when_needed(engine: SearchEngine, content: bytes | None) -> None:
    before = ranked(engine, "a fish")
    file = SEEN.path(engine.index.folder)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with closing(SearchEngine.open(engine.index.folder)) as other:
        assert ranked(other, "a fish") == [(stem, pytest.approx(distance, abs=2e-3)) for stem, distance in before]


def test_only_what_is_new_is_looked_at(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    shown = Words.shown

    def counted(self: Words, features: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        looked_at.append(len(features))
        return shown(self, features)

    with closing(SearchEngine.open(copy / "index")) as engine:
        ranked(engine, "a fish")
        monkeypatch.setattr(Words, "shown", counted)
        write_pictures(copy / "images", new=1)  # goldfish, number 4
        update_index(copy / "images", copy / "index", extractor=IdealExtractor(), relocate=True)
        assert looked_at == [1]  # by the run
        assert {"fish", "new"} == {
            stem for stem, _ in ranked(engine, "a fish")[:2]
        }  # by the server, whose rows were read before
        assert looked_at[1:-1] == [1]  # the last one is the best picture, which the warning is about
        (copy / "images" / "things" / "fish.png").unlink()
        update_index(copy / "images", copy / "index", extractor=IdealExtractor(), prune=True, relocate=True)
        assert "fish" not in dict(ranked(engine, "a fish"))


def test_what_is_kept_does_not_depend_on_the_rows_processed_at_a_time(
    copy: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = (SEEN, TAGS)
    whole = [kind.load(copy / "index") for kind in kinds]
    for kind in kinds:
        kind.path(copy / "index").unlink()
    for module in (search, words):
        monkeypatch.setattr(module, "ROWS", 3)  # of four pictures
    with closing(open_index(copy / "index")) as index:
        search.keep_seen(Words(head), index)
        words.keep_tags(Words(head), index)
    for kind, before in zip(kinds, whole, strict=True):
        after = kind.load(copy / "index")
        assert before is not None
        assert after is not None
        for name, array in before.arrays.items():
            assert len(array)
            np.testing.assert_array_equal(after.arrays[name], array)


def test_others_are_found_if_the_best_are_removed_meanwhile(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SearchEngine.open(copy / "index")) as engine:
        best, second, *_ = engine.search(Query(text="a mountain"))
        hits = LocalIndex.hits

        def hits_after_a_removal(*arguments: Any) -> list[Hit]:
            monkeypatch.setattr(LocalIndex, "hits", hits)
            with IndexWriter.open(copy / "index") as writer:
                writer.commit(Batch(removed=[best.id]))
            return hits(*arguments)

        monkeypatch.setattr(LocalIndex, "hits", hits_after_a_removal)
        order = text_search(engine.index).order("a mountain")
        assert [hit.id for hit in order(1, EVERYTHING, None)] == [second.id]
