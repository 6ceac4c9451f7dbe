"""The contract of every index, compared with simple loops."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import QueryError, SearchEngineError, UnknownImageError, UnknownNameError
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import INNER_PRODUCT, METRICS
from searchengine.index.milvus import MilvusIndex, MilvusWriter
from searchengine.index.protocol import Index, Writer
from searchengine.index.types import Batch, FileState, ImageRecord, ImageRow, ImageUpdate, Skipped
from searchengine.index.writer import IndexWriter
from tests.fakes import SPEC
from tests.index.contract.implementations import IMPLEMENTATIONS, Implementation

MANIFEST = {
    "spec": SPEC.to_json(),
    "fingerprint": SPEC.fingerprint,
    "extractor": "Fake",
    "metric": "euclidean",
    "normalized": "0",
}
DIMENSION = 3
Vector = NDArray[np.float32]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.name)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def opened(implementation: Implementation, tmp_path: Path) -> Iterator[tuple[Writer, Index]]:
    """An empty index, open for writing and for reading."""
    with ExitStack() as stack:
        writer = stack.enter_context(closing(implementation.create(tmp_path / "index", MANIFEST, DIMENSION)))
        writer.set_roots([(1, bytes(tmp_path / "photos"), "photos")])
        yield writer, stack.enter_context(closing(implementation.open(tmp_path / "index")))


def row(path: str, *labels: str, content: str = "", id_: int | None = None, replaces: bool = False) -> ImageRow:
    return ImageRow(
        id=id_,
        root=1,
        path=path.encode(),
        labels=labels,
        content_hash=(content or path).encode().ljust(16, b"\0"),
        state=FileState(10, 1, settled=True),
        width=4,
        height=3,
        colour="#102030",
        format="JPEG",
        replaces=replaces,
    )


def add(writer: Writer, features: Vector, *rows: ImageRow) -> None:
    writer.commit(Batch(stored=list(rows), features=list(features.astype(np.float32))))


def numbered(count: int) -> list[ImageRow]:
    return [row(f"{number:04}.jpg") for number in range(count)]


def distance(metric: str, query: Vector, vector: Vector) -> float:
    q, x = [float(value) for value in query], [float(value) for value in vector]
    dot = sum(a * b for a, b in zip(q, x, strict=True))
    lengths = math.hypot(*q) * math.hypot(*x)
    return {
        "euclidean": math.dist(q, x),
        "manhattan": sum(abs(a - b) for a, b in zip(q, x, strict=True)),
        "cosine": 1 - dot / lengths if lengths else 1.0,
        INNER_PRODUCT: -dot,
    }[metric]


@pytest.mark.parametrize(
    ("protocol", "implementation"),
    [(Index, LocalIndex), (Index, MilvusIndex), (Writer, IndexWriter), (Writer, MilvusWriter)],
)
def test_every_member_of_the_protocol_is_implemented(protocol: type, implementation: type) -> None:
    """An inherited stub would always return None; only a few methods have a body in the protocol."""
    members = {name for name in vars(protocol) if not name.startswith("_") or name == "__len__"}
    stubs = {name for name in members if inspect.getattr_static(implementation, name) is vars(protocol)[name]}
    assert len(members) > 10
    assert stubs <= {"records", "unknown"}


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_search_equals_the_naive_loop(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    random = np.random.default_rng(7)
    features = random.standard_normal((60, DIMENSION)).astype(np.float32)
    add(writer, features[:50], *numbered(50))
    writer.commit(Batch(removed=[3, 17]))
    add(writer, features[50:], *[row(f"more/{number}.jpg") for number in range(10)])
    held = {id_: feature for id_, feature in enumerate(features, 1) if id_ not in (3, 17)}
    queries = random.standard_normal((4, DIMENSION)).astype(np.float32)
    for metric, k in product(METRICS, (1, 7, 1000)):
        for query, hits in zip(queries, index.search(queries, k, metric), strict=True):
            expected = sorted((distance(metric, query, feature), id_) for id_, feature in held.items())[:k]
            assert [hit.id for hit in hits] == [id_ for _, id_ in expected], (metric, k)
            np.testing.assert_allclose([hit.distance for hit in hits], [d for d, _ in expected], atol=1e-6)
            assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
            assert [hit.record for hit in hits] == index.records([hit.id for hit in hits])


def test_equal_distances_are_ordered_by_id(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    rows = [replace(image, id=id_) for image, id_ in zip(numbered(4), (40, 7, 23, 0), strict=True)]
    add(writer, np.ones((4, DIMENSION)), *rows)
    assert [hit.id for hit in index.search(np.ones(DIMENSION), 3)[0]] == [0, 7, 23]


def test_an_empty_index(opened: tuple[Writer, Index]) -> None:
    _, index = opened
    assert len(index) == 0
    assert index.search(np.zeros((2, DIMENSION)), 5) == [[], []]
    assert index.sample(3) == index.known([1]) == index.skipped() == []
    assert (index.status().images, index.dimension, index.normalized, index.metric) == (0, 3, False, "euclidean")
    assert (index.spec, index.fingerprint) == (SPEC.to_json(), SPEC.fingerprint)


def test_invalid_queries_are_refused(opened: tuple[Writer, Index]) -> None:
    for wrong in (np.zeros(DIMENSION + 1), *(np.full(DIMENSION, value) for value in (np.nan, np.inf, 1e300))):
        with pytest.raises(QueryError):
            opened[1].search(wrong, 1)
    for k in (0, -1, True):
        with pytest.raises(QueryError):
            opened[1].search(np.zeros(DIMENSION), k)
    with pytest.raises(UnknownNameError):
        opened[1].search(np.zeros(DIMENSION), 1, "chess")


def test_records_and_features(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION), row("a/1.jpg", "cat", "dog"), row("a/2.jpg"), row("b/3.jpg", "dog"))
    first, second = index.records([3, 1])
    assert (first.id, first.path, first.label, second.labels) == (3, "b/3.jpg", "dog", ("cat", "dog"))
    assert (second.width, second.height, second.colour, second.size, second.format) == (4, 3, "#102030", 10, "JPEG")
    np.testing.assert_array_equal(index.feature(2), [0, 1, 0])
    assert [record.id for record in index.known([9, 2, -1])] == [2]
    for unknown in (0, 9, -1, 2**63):
        with pytest.raises(UnknownImageError):
            index.records([1, unknown])
        with pytest.raises(UnknownImageError, match=f"no image {unknown}"):
            index.feature(unknown)


def test_an_image_of_another_index_is_found_by_content_or_path(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    bare, nameless = ImageRow(None, None, b"b.jpg", ()), ImageRow(None, None, None, ())
    add(writer, np.eye(DIMENSION), row("a.jpg", content="A"), bare, nameless)

    def other(path: str, digest: str | None) -> ImageRecord:
        return ImageRecord(1, path, None, (), None, None, None, None, None, digest)

    assert index.find(other("elsewhere.jpg", b"A".ljust(16, b"\0").hex())) == 1
    assert index.find(other("b.jpg", "00" * 16)) == 2
    assert index.find(other("a.jpg", "00" * 16)) is None  # the content differs
    assert index.find(other("a.jpg", None)) == 1
    assert index.find(other("none.jpg", None)) is None
    assert index.find(other("#3", None)) == 3
    assert index.find(other("#1", None)) is None  # that image has a path


def test_a_sample_is_even_by_id_and_part_of_a_larger_one(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    for count in (1, 2, 3, 64, 65, 100):
        add(writer, np.zeros((count - len(index), DIMENSION)), *numbered(count)[len(index) :])
        before: set[int] = set()
        for n in (0, 1, 2, 3, 5, 10, 50, 64, 100, 200):
            ids = [record.id for record in index.sample(n)]
            assert len(ids) == min(n, count)
            assert ids == sorted(ids)
            assert before <= set(ids)
            gaps = [following - id_ for id_, following in pairwise([0, *ids, count + 1])]
            assert max(gaps) <= 4 * count / max(len(ids), 1) + 1
            before = set(ids)
    writer.commit(Batch(removed=[*range(1, 81)]))
    assert [record.id for record in index.sample(50)] == [*range(81, 101)]
    writer.commit(Batch(removed=[*range(81, 101)]))
    assert index.sample(5) == []


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_reader_sees_each_commit(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION)[:1], row("a.jpg"))
    assert len(index) == 1
    add(writer, np.eye(DIMENSION)[1:], row("b.jpg"), row("c.jpg"))
    assert [hit.path for hit in index.search(np.eye(DIMENSION)[1], 1)[0]] == ["b.jpg"]
    writer.commit(Batch(removed=[2]))
    assert [record.path for record in index.sample(9)] == ["a.jpg", "c.jpg"]
    writer.set({"metric": "cosine", "run": None})
    assert (index.metric, index.manifest("metric"), index.manifest("run")) == ("cosine", "cosine", None)


def test_a_batch_changes_everything_at_once(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION), row("a.jpg", "x"), row("b.jpg"), row("c.jpg"))
    assert len(index) == 3  # the reader knows the rows that change
    state = FileState(11, 2, settled=True)
    writer.commit(
        Batch(
            stored=[row("a.jpg", "y", content="other", id_=1, replaces=True), row("d.jpg")],
            features=[np.full(DIMENSION, 5, dtype=np.float32), np.full(DIMENSION, 6, dtype=np.float32)],
            seen=[ImageUpdate(2, 1, b"moved/b.jpg", state, ("z",))],
            skipped=[Skipped(1, b"no.jpg", "is not an image", 3, 4)],
            removed=[3],
        )
    )
    assert [(record.id, record.path, record.labels) for record in index.sample(9)] == [
        (1, "a.jpg", ("y",)),
        (2, "moved/b.jpg", ("z",)),
        (4, "d.jpg", ()),
    ]
    np.testing.assert_array_equal(index.feature(1), [5, 5, 5])
    np.testing.assert_array_equal(index.feature(2), [0, 1, 0])
    assert index.skipped() == [("no.jpg", "is not an image")]
    assert (index.status().images, index.status().skipped) == (3, 1)
    known = writer.known()
    assert set(known) == {(1, b"a.jpg"), (1, b"moved/b.jpg"), (1, b"d.jpg")}
    assert known[1, b"moved/b.jpg"].state == state
    assert writer.count() == 3
    writer.forget_skipped(writer.skipped())
    assert index.skipped() == []


def test_two_files_that_swapped_names(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION)[:2], row("a.jpg"), row("b.jpg"))
    state = FileState(10, 1, settled=True)
    writer.commit(Batch(seen=[ImageUpdate(1, 1, b"b.jpg", state, ()), ImageUpdate(2, 1, b"a.jpg", state, ())]))
    assert [record.path for record in index.records([1, 2])] == ["b.jpg", "a.jpg"]


def test_two_files_that_swapped_contents(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION)[:2], row("a.jpg", content="A"), row("b.jpg", content="B"))
    swapped = [row("a.jpg", content="B", id_=1, replaces=True), row("b.jpg", content="A", id_=2, replaces=True)]
    add(writer, np.eye(DIMENSION)[[1, 0]], *swapped)
    np.testing.assert_array_equal([index.feature(1), index.feature(2)], np.eye(DIMENSION)[[1, 0]])
    for content, feature in zip("AB", np.eye(DIMENSION), strict=False):
        twin = writer.twin(content.encode().ljust(16, b"\0"))
        assert twin is not None
        np.testing.assert_array_equal(twin.feature, feature)


def test_a_batch_that_fails_leaves_nothing(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION)[:1], row("a.jpg"))
    with pytest.raises(SearchEngineError):
        add(writer, np.eye(DIMENSION)[:2], row("b.jpg"), row("c.jpg", id_=1))  # the id 1 is taken
    assert [record.path for record in index.sample(9)] == ["a.jpg"]
    add(writer, np.eye(DIMENSION)[2:], row("c.jpg"))
    np.testing.assert_array_equal(index.feature(index.search(np.eye(DIMENSION)[2], 1)[0][0].id), [0, 0, 1])


def test_an_id_is_never_given_twice(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, np.eye(DIMENSION)[:1], replace(row("a.jpg"), id=9))
    writer.commit(Batch(removed=[9]))
    add(writer, np.eye(DIMENSION)[:1], row("a.jpg"))
    assert [record.id for record in index.sample(9)] == [10]


def test_known_content_has_a_twin(opened: tuple[Writer, Index]) -> None:
    writer, _ = opened
    add(writer, np.eye(DIMENSION)[1:2], row("a.jpg", content="A"))
    twin = writer.twin(b"A".ljust(16, b"\0"))
    assert twin is not None
    np.testing.assert_array_equal(twin.feature, [0, 1, 0])
    assert (twin.width, twin.height, twin.colour, twin.format) == (4, 3, "#102030", "JPEG")
    assert writer.twin(b"B".ljust(16, b"\0")) is None


def test_image_folders_keep_their_ids(opened: tuple[Writer, Index], tmp_path: Path) -> None:
    writer, index = opened
    one, other = bytes(tmp_path / "one"), bytes(tmp_path / "other")
    writer.set_roots([(1, one, "one"), (2, other, "other")])
    add(writer, np.eye(DIMENSION)[:1], row("a.jpg"))
    writer.set_roots([(1, other, "one"), (2, one, "other")])  # their paths are swapped
    assert writer.roots() == [(1, other, "one"), (2, one, "other")]
    assert index.records([1])[0].file == tmp_path / "other" / "a.jpg"
