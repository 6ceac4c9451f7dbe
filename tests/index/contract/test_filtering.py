"""Filters, cursors and facets of every index, compared with simple loops."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchengine.errors import QueryError
from searchengine.images.metadata import Shot
from searchengine.index.filters import EVERYTHING, Cursor, FacetValue, Filter
from searchengine.index.metrics import METRICS
from searchengine.index.protocol import Index, Writer
from searchengine.index.types import Batch, FileState, ImageRow, ImageUpdate
from tests.index.contract.implementations import IMPLEMENTATIONS, Implementation
from tests.index.contract.test_contract import DIMENSION, MANIFEST, distance

LABELS = ("cat", "dog", "grey horse", "dög")
FOLDERS = ("", "trips", "trips/2024", "trips/2024/rome", "tripsy", "a/b")
FORMATS = ("JPEG", "PNG", None)
CAMERAS = ("Canon EOS 5D", "Apple iPhone 12", "")
DAYS = ("2023-12-31", "2024-01-01", "2024-02-29", "2025-07-01")
SIDES = (None, 100, 640, 4000)


@dataclass(frozen=True)
class Photo:
    """The properties of an image; ``day`` is in its EXIF data if ``in_exif``, else it is that of its file."""

    labels: tuple[str, ...]
    folder: str
    format: str | None
    camera: str
    day: str
    in_exif: bool
    width: int | None
    height: int | None

    def row(self, number: int) -> ImageRow:
        noon = datetime.fromisoformat(f"{self.day}T12:00:00")
        mtime = datetime(2001, 1, 1) if self.in_exif else noon
        return ImageRow(
            id=None,
            root=1,
            path=f"{self.folder}/{number}.jpg".lstrip("/").encode(),
            labels=self.labels,
            state=FileState(10, int(mtime.timestamp() * 10**9), settled=True),
            width=self.width,
            height=self.height,
            format=self.format,
            shot=Shot(noon.isoformat() if self.in_exif else None, self.camera),
        )

    def passes(self, filter: Filter, id_: int) -> bool:
        day = date.fromisoformat(self.day)
        width, height = self.width, self.height
        return all(
            [
                not filter.labels or any(label in filter.labels for label in self.labels),
                not filter.folders or any(f"{self.folder}/".startswith(f"{folder}/") for folder in filter.folders),
                not filter.formats or (self.format or "none").upper() in filter.formats,
                not filter.cameras or self.camera in filter.cameras,
                filter.after is None or day >= filter.after,
                filter.before is None or day <= filter.before,
                filter.min_width is None or (width is not None and width >= filter.min_width),
                filter.max_width is None or (width is not None and width <= filter.max_width),
                filter.min_height is None or (height is not None and height >= filter.min_height),
                filter.max_height is None or (height is not None and height <= filter.max_height),
                filter.ids is None or id_ in filter.ids,
            ]
        )


def up_to_two(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


PHOTOS = st.builds(
    Photo,
    labels=st.lists(st.sampled_from(LABELS), max_size=3).map(tuple),  # a label may occur twice
    folder=st.sampled_from(FOLDERS),
    format=st.sampled_from(FORMATS),
    camera=st.sampled_from(CAMERAS),
    day=st.sampled_from(DAYS),
    in_exif=st.booleans(),
    width=st.sampled_from(SIDES),
    height=st.sampled_from(SIDES),
)
BOUNDS = st.none() | st.sampled_from((1, 100, 641, 2**62))
PERIODS = st.none() | st.sampled_from([date.fromisoformat(day) for day in (*DAYS, "0001-01-01", "9999-12-31")])
FILTERS = st.builds(
    Filter,
    labels=up_to_two((*LABELS, "unicorn")),
    folders=up_to_two((*FOLDERS[1:], "nowhere", "trip")),
    after=PERIODS,
    before=PERIODS,
    formats=up_to_two(("jpeg", "PNG", "GIF")),
    cameras=up_to_two((*CAMERAS[:2], "Nikon")),
    min_width=BOUNDS,
    max_width=BOUNDS,
    min_height=BOUNDS,
    max_height=BOUNDS,
    ids=st.none() | st.lists(st.integers(0, 30) | st.just(2**63 - 1), max_size=9).map(tuple),
) | st.one_of(st.builds(Filter, labels=up_to_two(LABELS), folders=up_to_two(FOLDERS[1:])), st.just(Filter(ids=())))


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.name, scope="module")
def implementation(request: pytest.FixtureRequest) -> Implementation:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def opened(implementation: Implementation, tmp_path: Path) -> Iterator[tuple[Writer, Index]]:
    with ExitStack() as stack:
        yield _opened(implementation, tmp_path, stack)


def _opened(implementation: Implementation, folder: Path, stack: ExitStack) -> tuple[Writer, Index]:
    writer = stack.enter_context(closing(implementation.create(folder / "index", MANIFEST, DIMENSION)))
    writer.set_roots([(1, bytes(folder / "photos"), "photos")])
    return writer, stack.enter_context(closing(implementation.open(folder / "index")))


def add(writer: Writer, photos: Sequence[Photo], features: NDArray[np.float32], first: int = 1) -> None:
    rows = [photo.row(number) for number, photo in enumerate(photos, first)]
    writer.commit(Batch(stored=rows, features=list(features.astype(np.float32))))


def features_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return (n, d) features with few distinct values, so that many distances are equal."""
    return np.random.default_rng(seed).integers(-1, 2, (count, DIMENSION)).astype(np.float32)


def facet(values: Counter[str]) -> tuple[FacetValue, ...]:
    return tuple(FacetValue(*each) for each in sorted(values.items(), key=lambda each: (-each[1], each[0])))


def folders_of(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def test_all_results_equal_naive_loops(implementation: Implementation) -> None:
    @settings(max_examples=implementation.examples)
    @given(st.lists(PHOTOS, max_size=25), st.lists(FILTERS, min_size=1, max_size=4), st.data())
    def equal(photos: list[Photo], filters: list[Filter], data: st.DataObject) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            writer, index = _opened(implementation, folder, stack)
            features = features_of(len(photos))
            at = data.draw(st.integers(0, len(photos)), "added first")
            held: dict[int, Photo] = {}
            for first, last in ((0, at), (at, len(photos))):
                if first < last:
                    add(writer, photos[first:last], features[first:last], first + 1)
                held |= dict(enumerate(photos[first:last], first + 1))
                for filter in filters:
                    check(index, held, features, filter)
            gone = data.draw(st.sets(st.sampled_from(sorted(held)), max_size=3), "removed") if held else set()
            writer.commit(Batch(removed=sorted(gone)))
            held = {id_: photo for id_, photo in held.items() if id_ not in gone}
            for filter in filters:
                check(index, held, features, filter)

    equal()


def check(index: Index, held: dict[int, Photo], features: NDArray[np.float32], filter: Filter) -> None:
    passing = {id_: photo for id_, photo in held.items() if photo.passes(filter, id_)}
    assert index.count(filter) == len(passing)
    assert [record.id for record in index.page(filter, None, 5)] == sorted(passing)[:5]
    assert [record.id for record in index.page(filter, 7, 100)] == [id_ for id_ in sorted(passing) if id_ > 7]
    query = np.array([0.5, 0.25, -1], dtype=np.float32)
    for metric in METRICS:
        expected = sorted((distance(metric, query, features[id_ - 1]), id_) for id_ in passing)
        hits = index.search(query, 100, metric, filter=filter)[0]
        np.testing.assert_allclose([hit.distance for hit in hits], [each for each, _ in expected], atol=1e-6)
        assert {hit.id for hit in hits} == set(passing)
        assert [(hit.distance, hit.id) for hit in hits] == sorted((hit.distance, hit.id) for hit in hits)
        assert [hit.id for hit in paged(index, query, metric, filter, 9)] == [hit.id for hit in hits]

    def of(**without: object) -> list[Photo]:
        rest = replace(filter, **without)
        return [photo for id_, photo in held.items() if photo.passes(rest, id_)]

    facets = index.facets(filter)
    assert facets.label == facet(Counter(label for photo in of(labels=()) for label in set(photo.labels)))
    assert facets.folder == facet(Counter(name for photo in of(folders=()) for name in folders_of(photo.folder)))
    assert facets.format == facet(Counter(photo.format for photo in of(formats=()) if photo.format))
    assert facets.camera == facet(Counter(photo.camera for photo in of(cameras=()) if photo.camera))
    assert facets.year == facet(Counter(photo.day[:4] for photo in of(after=None, before=None)))


def paged(index: Index, query: NDArray[np.float32], metric: str, filter: Filter, k: int):  # type: ignore[no-untyped-def]
    """Yield all hits, k at a time."""
    after: Cursor | None = None
    while hits := index.search(query, k, metric, filter=filter, after=after)[0]:
        yield from hits
        after = Cursor.parse(str(Cursor(hits[-1].distance, hits[-1].id)))


def test_pages_lose_and_repeat_nothing(opened: tuple[Writer, Index]) -> None:
    """There are enough images for rough values to select candidates, and copies and near-copies at every distance."""
    writer, index = opened
    random = np.random.default_rng(3)
    features = random.standard_normal((3000, DIMENSION)).astype(np.float32)
    features[1000:1500] = features[:500]
    features[1500:2000] = np.nextafter(features[:500], np.float32(9))
    shares = {"most": 0.6, "few": 0.05}
    chosen = [tuple(name for name, share in shares.items() if random.random() < share) for _ in features]
    add(writer, [Photo(labels, "", "JPEG", "", "2024-01-01", True, 4, 3) for labels in chosen], features)
    query = features[7]
    for metric in METRICS:
        for filter in (EVERYTHING, *(Filter(labels=(name,)) for name in shares)):
            whole = [(hit.distance, hit.id) for hit in index.search(query, 3000, metric, filter=filter)[0]]
            assert [(hit.distance, hit.id) for hit in paged(index, query, metric, filter, 97)] == whole
            assert len(whole) == sum(set(filter.labels) <= set(labels) for labels in chosen)
            for distance_, id_ in whole[:: len(whole) // 9]:
                (hit,) = index.search(query, 1, metric, filter=Filter(ids=(id_,)))[0]
                assert hit.distance == distance_  # to the last digit, although it is measured alone


def test_pages_continue_while_the_index_grows(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    photo = Photo((), "", "JPEG", "", "2024-01-01", True, 4, 3)
    add(writer, [photo] * 40, features_of(40))
    seen: list[int] = []
    after = None
    for step in range(100):
        hits = index.search(np.ones(DIMENSION), 3, after=after)[0]
        if not hits:
            break
        seen += [hit.id for hit in hits]
        after = Cursor(hits[-1].distance, hits[-1].id)
        if step < 20:
            add(writer, [photo], features_of(1, seed=step), 41 + step)
    assert len(seen) == len(set(seen))
    assert set(range(1, 41)) <= set(seen)


def test_cursors_that_are_not_at_a_hit(opened: tuple[Writer, Index]) -> None:
    writer, index = opened
    add(writer, [Photo((), "", "JPEG", "", "2024-01-01", True, 4, 3)] * 20, features_of(20))
    for metric in METRICS:
        whole = index.search(np.ones(DIMENSION), 99, metric)[0]
        for far in (-1e300, -1.0, 1e9, 1e200, 1e308):
            hits = index.search(np.ones(DIMENSION), 99, metric, after=Cursor(far, 3))[0]
            expected = [hit.id for hit in whole if (hit.distance, hit.id) > (far, 3)]
            assert [hit.id for hit in hits] == expected, (metric, far)


def test_a_cursor_is_for_one_query(opened: tuple[Writer, Index]) -> None:
    with pytest.raises(QueryError, match="one query"):
        opened[1].search(np.ones((2, DIMENSION)), after=Cursor(0.0, 1))


def test_readers_see_changed_labels_folders_and_dates(opened: tuple[Writer, Index]) -> None:
    """They do so even for rows whose columns they have already read."""
    writer, index = opened
    photo = Photo(("cat",), "trips", "JPEG", "", "2024-01-01", True, 4, 3)
    add(writer, [photo, photo], features_of(2))
    assert index.count(Filter(labels=("cat",))) == 2
    state = FileState(10, int(datetime(2020, 5, 5, 12).timestamp() * 10**9), settled=True)
    writer.commit(Batch(seen=[ImageUpdate(1, 1, b"home/1.jpg", state, ("dog",))]))
    assert [index.count(Filter(labels=(label,))) for label in ("cat", "dog")] == [1, 1]
    assert [value.value for value in index.facets(EVERYTHING).folder] == ["home", "trips"]
    assert [value.value for value in index.facets(EVERYTHING).year] == ["2024"]
    writer.commit(Batch(shots=[(1, Shot(None, "Leica"))]))
    assert index.facets(EVERYTHING).camera == (FacetValue("Leica", 1),)
    assert {value.value for value in index.facets(EVERYTHING).year} == {"2020", "2024"}
    writer.set_roots([(1, b"/one", "one"), (2, b"/two", "two")])  # paths now begin with the name of their folder
    assert [(value.value, value.count) for value in index.facets(EVERYTHING).folder] == [
        ("one", 2), ("one/home", 1), ("one/trips", 1),
    ]  # fmt: skip
    assert index.count(Filter(folders=("one/home", "trips"))) == 1


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process cannot be changed here")
@pytest.mark.parametrize(("zone", "day"), [("UTC0", date(2024, 6, 30)), ("AAA-5:45", date(2024, 7, 1))])
def test_the_time_of_a_file_is_a_local_day(
    opened: tuple[Writer, Index], monkeypatch: pytest.MonkeyPatch, zone: str, day: date
) -> None:
    writer, index = opened
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        row = Photo((), "", None, "", "2024-01-01", False, None, None).row(1)
        written = FileState(
            1, int(datetime.fromisoformat("2024-06-30T19:00:00+00:00").timestamp() * 10**9), settled=True
        )
        writer.commit(Batch(stored=[replace(row, state=written)], features=list(features_of(1))))
        assert index.count(Filter(after=day, before=day)) == 1
    finally:
        os.environ.pop("TZ")
        monkeypatch.undo()
        time.tzset()
