"""Pages of a ranking against naive loops: no repetition, no gap, copies and near-duplicates folded."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.engine import SearchEngine, open_index
from searchengine.errors import FileGoneError, QueryError
from searchengine.exchange import import_features
from searchengine.exchange.importing import ImportOptions
from searchengine.images import decode
from searchengine.index.filters import Cursor, Filter
from searchengine.index.metrics import METRICS
from searchengine.index.types import Batch, Hit
from searchengine.index.writer import IndexWriter
from searchengine.indexing import update_index
from searchengine.query import RULES, Box, Example, Query
from searchengine.ranking import Ranking
from tests.fakes import FakeExtractor, picture, write_pictures


def engine_of(features: NDArray[np.float32], folder: Path, **options: str) -> SearchEngine:
    folder.mkdir(exist_ok=True)
    np.save(folder / "features.npy", features)
    import_features(folder / "features.npy", folder / "index", ImportOptions(**options))
    return SearchEngine(open_index(folder / "index"))


def pages(engine: SearchEngine, query: Query) -> list[list[int]]:
    """Return the ids of every page, following the cursors as text."""
    ids = []
    while True:
        results = engine.search(query)
        ids.append([hit.id for hit in results])
        first = 0 if query.cursor is None else query.cursor.rank
        assert [hit.rank for hit in results] == list(range(first + 1, first + 1 + len(results)))
        if results.cursor is None:
            return ids
        query = replace(query, cursor=Cursor.parse(str(results.cursor)))


def ids_of_pages(engine: SearchEngine, query: Query) -> list[int]:
    return list(chain.from_iterable(pages(engine, query)))


def tied_features() -> NDArray[np.float32]:
    features = np.random.default_rng(0).random((60, 8), dtype=np.float32)
    features[:30] = features[0] * 2  # the longest, so that the inner product ranks them first too
    features[50] = 0
    return features


@pytest.mark.parametrize("metric", METRICS)
def test_pages_together_are_the_whole_ranking(tmp_path: Path, metric: str) -> None:
    engine = engine_of(tied_features(), tmp_path)
    sizes = (1, 7, 59, 60, 100)
    for id_ in (1, 20, 40, 51):
        whole = [hit.id for hit in engine.search(id_, 100, metric=metric)]
        assert sorted(whole) == list(range(1, 61))
        plain = [hit.id for hit in engine.index.search(engine.index.feature(id_), 100, metric)[0]]
        assert [other for other in whole if other != id_] == [other for other in plain if other != id_]
        for k in sizes:
            assert ids_of_pages(engine, Query.of(id_, k=k, metric=metric)) == whole
        if id_ in (1, 20, 51):
            assert whole[0] == id_  # before its copies, and a feature of zeros before all
    vector = engine.index.feature(33)
    plain = [hit.id for hit in engine.index.search(vector, 100, metric)[0]]
    for k in sizes:
        assert ids_of_pages(engine, Query.of(vector, k=k, metric=metric)) == plain


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("filter", [Filter(), Filter(ids=(2, 3, 31, 40, 45, 51))])
def test_first_images_are_searched_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int, filter: Filter
) -> None:
    index = engine_of(tied_features(), tmp_path).index
    vector = index.feature(33)
    whole = [(hit.id, hit.distance) for hit in index.search(vector, 100, "cosine", filter=filter)[0]]
    first = frozenset(range(2, 60, 3))
    expected = [id_ for id_, _ in sorted(whole, key=lambda each: (each[0] not in first, each[1], each[0]))]
    search, asked = index.search, []

    def recorded(queries: Any, k: int, *arguments: Any, **options: Any) -> list[list[Hit]]:
        asked.append(k)
        return search(queries, k, *arguments, **options)

    monkeypatch.setattr(index, "search", recorded)
    ranking = Ranking(index, vector, "cosine", filter, first=first)
    place, ids = None, []
    while True:
        hits, place = ranking.page(k, place)
        ids += [hit.id for hit in hits]
        if place is None:
            break
    assert ids == expected
    ranking.page(1)
    assert asked[-1] < len(first)


def test_images_nearer_by_the_inner_product_stay_first(tmp_path: Path) -> None:
    engine = engine_of(np.array([[1, 0], [3, 0], [2, 0]], dtype=np.float32), tmp_path)
    assert [hit.id for hit in engine.search(1, 3, metric="inner-product")] == [2, 3, 1]
    assert pages(engine, Query.of(1, k=1, metric="inner-product")) == [[2], [3], [1]]


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_pages_fit_together_while_the_index_grows(tmp_path: Path, judged: bool, rule: str) -> None:
    features = np.random.default_rng(1).random((300, 6), dtype=np.float32)
    engine = engine_of(features[:250], tmp_path)
    query = Query.of(7, liked=[3, 9] if judged else [], disliked=[4] if judged else [], rule=rule, k=40)
    (whole,) = pages(engine, replace(query, k=300))
    first = engine.search(query)
    np.save(tmp_path / "more.npy", features[250:])
    import_features(tmp_path / "more.npy", tmp_path / "index", ImportOptions(append=True))
    assert len(engine.index) == 300
    seen = [hit.id for hit in first] + ids_of_pages(engine, replace(query, cursor=first.cursor))
    assert len(set(seen)) == len(seen)
    assert [id_ for id_ in seen if id_ <= 250] == whole


def copies(folder: Path) -> SearchEngine:
    """Make an index with several sets of files with the same content; two contents share a feature."""
    levels = {"a": 10, "b": 90, "c": 200}
    for name, count in {"a": 12, "b": 5, "c": 1}.items():
        write_pictures(folder / "in", **{f"{name}{number:02}": levels[name] for number in range(count)})
    for number in range(3):  # as grey as a, in another file
        (folder / "in" / f"aa{number}.png").write_bytes(picture((10, 10, 10), size=(16, 12)))
    update_index([folder / "in"], folder / "index", extractor=FakeExtractor())
    engine = SearchEngine(open_index(folder / "index"))
    engine._extractor = FakeExtractor()
    return engine


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_one_file_stands_for_all_of_its_content(tmp_path: Path, k: int) -> None:
    engine = copies(tmp_path)
    contents = Counter(record.content_hash for record in engine.index.sample(100))
    for source in (tmp_path / "in" / "a03.png", 4, 20):
        hits = []
        query = Query.of(source, k=k)
        while True:
            results = engine.search(query)
            hits += results.hits
            if results.cursor is None:
                break
            query = replace(query, cursor=results.cursor)
        assert {hit.record.content_hash: hit.stands_for for hit in hits} == contents
        assert len(hits) == len(contents) == 4
        assert results.total == 21
        if isinstance(source, int):
            assert hits[0].id == source
        every = engine.search(Query.of(source, k=100, copies=True))
        assert len(every) == 21
        assert {hit.stands_for for hit in every} == {1}


def near_duplicates(features: NDArray[np.float32], ranked: list[int], limit: float) -> dict[int, int]:
    """Fold near-duplicates by a naive loop: id of each image kept -> the number of images near it."""
    kept = {}
    for at, id_ in enumerate(ranked):
        gaps = np.linalg.norm(features[np.array(ranked) - 1] - features[id_ - 1], axis=1)
        if not (gaps[:at] <= limit).any():
            kept[id_] = int((gaps <= limit).sum())
    return kept


@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize("normalize", ["none", "l2"])
def test_near_duplicates_equal_a_naive_loop(tmp_path: Path, k: int, normalize: str) -> None:
    random = np.random.default_rng(2)
    centres = random.standard_normal((12, 6))
    features = (centres[random.integers(0, 12, 80)] + 0.08 * random.standard_normal((80, 6))).astype(np.float32)
    engine = engine_of(features, tmp_path, normalize=normalize)
    rows = engine.index.features.astype(np.float64)
    limit = 0.2 * np.sqrt((rows**2).sum(axis=1).mean())
    only = tuple(range(1, 70))
    for query in (Query.of(5), Query.of(engine.index.feature(8), filter=Filter(ids=only))):
        whole = [hit.id for hit in engine.search(Query(query.examples, filter=query.filter, k=100))]
        expected = near_duplicates(rows, whole, limit)
        hits, cursor = [], None
        while True:
            results = engine.search(Query(query.examples, filter=query.filter, k=k, distinct=True, cursor=cursor))
            hits += results.hits
            cursor = results.cursor
            if cursor is None:
                break
        assert {hit.id: hit.stands_for for hit in hits} == expected
        assert len(hits) < 40


def test_a_burst_of_photos_costs_one_search_for_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    features = random.standard_normal((640, 6)).astype(np.float32)
    features[:600] = features[0] + 1e-3 * features[:600]
    engine = engine_of(features, tmp_path)
    search, answered = engine.index.search, [0]

    def counted(*args: Any, **options: Any) -> list[list[Hit]]:
        answers = search(*args, **options)
        answered[0] += sum(map(len, answers))
        return answers

    monkeypatch.setattr(engine.index, "search", counted)
    results = engine.search(Query.of(1, k=10, distinct=True))
    assert [hit.stands_for for hit in results][:2] == [600, 1]
    assert answered[0] < 8 * len(features)


def test_images_removed_while_near_duplicates_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(np.eye(9, dtype=np.float32), tmp_path)
    search = engine.index.search

    def overtaken(*args: Any, **options: Any) -> list[list[Hit]]:
        answers = search(*args, **options)
        monkeypatch.undo()
        with closing(IndexWriter.open(tmp_path / "index")) as writer:
            writer.commit(Batch(removed=[4]))
        return answers

    monkeypatch.setattr(engine.index, "search", overtaken)
    assert [hit.id for hit in engine.search(Query.of(1, distinct=True))] == [1, 2, 3, 5, 6, 7, 8, 9]


def test_the_query_image_is_not_shown_if_the_filter_excludes_it(tmp_path: Path) -> None:
    engine = engine_of(tied_features(), tmp_path)
    results = engine.search(Query.of(1, filter=Filter(ids=(2, 3, 4, 40)), k=2))
    assert ([hit.id for hit in results], results.total) == ([2, 3], 4)
    results = engine.search(Query.of(1, filter=Filter(ids=(1, 40))))
    assert [hit.id for hit in results] == [1, 40]
    judged = engine.search(Query.of(1, liked=[2], filter=Filter(ids=(1, 3, 40))))
    assert (sorted(hit.id for hit in judged), judged.total) == ([3, 40], 2)


# -- boxes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def halves(tmp_path: Path) -> SearchEngine:
    """Make an index of a black picture, a white one, and one that is black on the left and white on the right."""
    write_pictures(tmp_path / "in", black=0, white=255)
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:, 40:] = 255
    Image.fromarray(pixels).save(tmp_path / "in" / "halves.png")
    update_index([tmp_path / "in"], tmp_path / "index", extractor=FakeExtractor())
    engine = SearchEngine(open_index(tmp_path / "index"))
    engine._extractor = FakeExtractor()
    return engine


def test_boxes_of_every_kind_of_source(halves: SearchEngine, tmp_path: Path) -> None:
    file = tmp_path / "in" / "halves.png"
    (id_,) = (record.id for record in halves.index.sample(9) if record.path == "halves.png")
    pixels = decode(file.read_bytes()).pixels
    for source in (id_, file, str(file), file.read_bytes(), pixels, Image.open(file)):
        for box, name in ((Box(0.05, 0, 0.4, 1), "black.png"), (Box(0.55, 0.2, 0.45, 0.5), "white.png")):
            results = halves.search(Query((Example(source, box),), k=1))  # type: ignore[arg-type]
            assert results[0].path == name
            assert results[0].distance == pytest.approx(0, abs=1)


def test_a_loaded_extractor_does_not_wait_for_another_to_load(halves: SearchEngine) -> None:
    with ThreadPoolExecutor(1) as pool, halves._loading:  # as while another index of the server loads its model
        assert pool.submit(halves.extractor).result(timeout=30) is halves._extractor


def test_boxes_of_missing_photos(halves: SearchEngine, tmp_path: Path) -> None:
    (tmp_path / "in" / "black.png").unlink()
    box = Box(0, 0, 0.5, 0.5)
    (id_,) = (record.id for record in halves.index.sample(9) if record.path == "black.png")
    with pytest.raises(FileGoneError, match=r"black.png.*no longer there.*SEARCHENGINE_IMAGES_DIR"):
        halves.search(Query((Example(id_, box),)))
    rows = engine_of(tied_features(), tmp_path / "rows")
    with pytest.raises(FileGoneError, match="no picture"):
        rows.search(Query((Example(3, box),)))
    with pytest.raises(QueryError, match="less than a pixel"):
        halves.search(Query((Example(picture((1, 1, 1), size=(8, 6)), Box(0, 0, 0.02, 1)),)))
