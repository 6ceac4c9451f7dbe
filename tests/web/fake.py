"""A search engine whose results can be worked out by hand.

The feature of a picture is its average colour, scaled to length one: a red picture is (1, 0, 0), a yellow one
(0.71, 0.71, 0). The cosine of red and yellow is 0.71, of red and green 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from searchengine import images
from searchengine.derived import Cached
from searchengine.errors import QueryError, SearchEngineError, UnknownImageError
from searchengine.extractors import ExtractorSpec
from searchengine.images import DecodedImage
from searchengine.index.columns import facet
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.metrics import score
from searchengine.index.protocol import Order
from searchengine.index.types import Hit, ImageRecord, IndexStatus, RunProgress
from searchengine.learn import Classifier, FitReport, HeldOut
from searchengine.text.words import Tag
from searchengine.web.engines import ServedEngine
from searchengine.web.overview import LatestEvaluation, Overview

INPUT_SIZE = (16, 16)

COLOURS = {
    "red": (255, 0, 0),
    "orange": (255, 128, 0),
    "yellow": (255, 255, 0),
    "green": (0, 255, 0),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "purple": (128, 0, 255),
    "white": (255, 255, 255),
}
SIZES = ((320, 240), (240, 320), (300, 300), (480, 270), (640, 200))


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return 1 - float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y))


DISTANCES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "euclidean": lambda x, y: float(np.linalg.norm(x - y)),
    "cosine": _cosine,
    "manhattan": lambda x, y: float(np.abs(x - y).sum()),
    "inner-product": lambda x, y: -float(x @ y),
}


class FakeIndex:
    """An index of the images in a folder; ids count from 1 in the order of the paths."""

    metric = "euclidean"
    fingerprint = "0123456789abcdef"
    dimension = 3

    def __init__(self, folder: Path, *, normalized: bool = True) -> None:
        self.address = folder
        self.normalized = normalized
        self.run: RunProgress | None = None
        self.images: dict[int, ImageRecord] = {}
        self._features: dict[int, NDArray[np.float64]] = {}
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        for number, file in enumerate(files, 1):
            self.images[number], mean = _described(number, file, folder, file.stat().st_mtime_ns)
            self._features[number] = self.feature_of(mean)

    def feature_of(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the feature of an average colour."""
        return mean / max(float(np.linalg.norm(mean)), 1e-12) if self.normalized else mean

    def forget(self, image_id: int) -> None:
        """Remove an image, as a concurrent indexing run would."""
        del self.images[image_id], self._features[image_id]

    def change(self, image_id: int, **fields: Any) -> None:
        """Change fields of an image's record."""
        self.images[image_id] = replace(self.images[image_id], **fields)

    def count_backwards(self) -> None:
        """Number the images in reverse order."""
        last = len(self.images) + 1
        self.images = {last - id_: replace(record, id=last - id_) for id_, record in sorted(self.images.items())}
        self._features = {last - id_: feature for id_, feature in self._features.items()}

    def search_remark(self, metric: str) -> None:
        """Return None: there is nothing to remark."""

    def search(
        self,
        queries: ArrayLike,
        k: int = 20,
        metric: str | None = None,
        *,
        filter: Filter = EVERYTHING,
        after: Cursor | None = None,
    ) -> list[list[Hit]]:
        found = [
            self._nearest(query, filter, metric or self.metric) for query in np.atleast_2d(np.asarray(queries, float))
        ]
        if after is not None:
            found = [[hit for hit in hits if (hit.distance, hit.id) > (after.distance, after.id)] for hits in found]
        return [[replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], 1)] for hits in found]

    @property
    def typical_length(self) -> float:
        return float(np.sqrt(np.mean([feature @ feature for feature in self._features.values()])))

    @property
    def newest(self) -> int:
        return max(self.images, default=-1)

    def feature(self, image_id: int) -> NDArray[np.float32]:
        self.records([image_id])
        return self._features[image_id].astype(np.float32)

    def record(self, image_id: int) -> ImageRecord:
        return self.records([image_id])[0]

    def records(self, ids: Sequence[int]) -> list[ImageRecord]:
        for image_id in ids:
            if image_id not in self.images:
                raise UnknownImageError(f"The index holds no image {image_id}.")
        return self.known(ids)

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        return [self.images[image_id] for image_id in ids if image_id in self.images]

    def find(self, other: ImageRecord) -> int | None:
        same = (record.id for record in self.images.values() if record.content_hash == other.content_hash)
        return next(same, None)

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        return list(self.images.values())[skip : skip + n]

    def count(self, filter: Filter = EVERYTHING) -> int:
        return len(self._passing(filter))

    def named(self, text: str) -> list[int]:
        return []

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        return [record for record in self._passing(filter) if after_id is None or record.id > after_id][:n]

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        labels = Counter(label for record in self._passing(replace(filter, labels=())) for label in record.labels)
        formats = Counter(record.format for record in self._passing(replace(filter, formats=())) if record.format)
        return Facets(label=facet(labels), format=facet(formats))

    def _passing(self, filter: Filter) -> list[ImageRecord]:
        """Filter by label, format and id; other fields are ignored."""
        return [
            record
            for id_, record in sorted(self.images.items())
            if (not filter.labels or set(filter.labels) & set(record.labels))
            and (not filter.formats or record.format in filter.formats)
            and (filter.ids is None or id_ in filter.ids)
        ]

    def manifest(self, key: str) -> str | None:
        return "Average colour, L2-normalised" if key == "extractor" else None

    @property
    def spec(self) -> str:
        normalize = "l2" if self.normalized else "none"
        return ExtractorSpec("average", None, "none", normalize, "none", INPUT_SIZE, full_decode=True).to_json()

    def status(self) -> IndexStatus:
        return IndexStatus(
            images=len(self),
            skipped=0,
            dimension=3,
            extractor="Average colour, L2-normalised",
            fingerprint=self.fingerprint,
            bytes=1000,
            updated="2026-01-02T03:04:05Z",
            run=self.run,
        )

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        ids = [record.id for record in self.sample(1000) if record.id not in without]
        return np.stack([self.feature(id_) for id_ in ids])

    def _nearest(self, query: NDArray[np.float64], filter: Filter, metric: str) -> list[Hit]:
        distances = sorted(
            (DISTANCES[metric](self._features[record.id], query), record.id) for record in self._passing(filter)
        )
        return [
            Hit(
                rank=rank,
                id=number,
                path=self.images[number].path,
                distance=distance,
                score=score(metric, distance, normalized=self.normalized),
                label=self.images[number].label,
                record=self.images[number],
            )
            for rank, (distance, number) in enumerate(distances, 1)
        ]


class FakeWords:
    """A text search that knows only the names of the colours."""

    def __init__(self, index: FakeIndex) -> None:
        self._index = index

    def feature(self, text: str) -> NDArray[np.float32]:
        if text not in COLOURS:
            raise QueryError(f"“{text}” is no colour.")
        return self._index.feature_of(np.array(COLOURS[text], float)).astype(np.float32)[None]

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        vector = self.feature(text) + (0 if pictures is None else pictures / np.linalg.norm(pictures))
        return lambda k, filter, after: self._index.search(vector, k, "cosine", filter=filter, after=after)[0]

    def doubt(self, text: str, features: NDArray[np.float32]) -> str | None:
        return None if float((features @ self.feature(text).T).max()) > 0.9 else f"Nothing here seems to be {text}."

    def tags(self, features: NDArray[np.float32]) -> list[list[Tag]]:
        likeness = {name: features @ self.feature(name)[0] for name in COLOURS}
        return [[Tag(name, 1.0) for name in COLOURS if likeness[name][i] > 0.99] for i in range(len(features))]


class FakeEngine(ServedEngine):
    """A search engine over a ``FakeIndex``. It is its own extractor, and has no map, groups or evaluation."""

    def __init__(self, folder: Path, *, name: str = "index", normalized: bool = True) -> None:
        super().__init__(FakeIndex(folder, normalized=normalized), name=name)
        self.classified_by: Classifier | SearchEngineError | None = None
        self.classifier = SimpleNamespace(get=self._classifier)  # type: ignore[assignment]
        self.overview = Cached(lambda: None, Overview)
        self.evaluation = Cached(lambda: None, lambda: LatestEvaluation(None))
        self.queries: list[NDArray[np.uint8]] = []
        self.previews: list[int | None] = []  # requested sizes

    def extractor(self) -> FakeEngine:
        return self

    def preprocess(
        self, data: bytes, max_pixels: int, preview: int | None, part: images.Part | None = None
    ) -> DecodedImage:
        self.previews.append(preview)
        return images.decode(data, size=INPUT_SIZE, preview=preview, max_pixels=max_pixels, part=part)

    def embed(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.queries += pictures
        features = [self.index.feature_of(picture.reshape(-1, 3).mean(axis=0)) for picture in pictures]
        return np.stack(features).astype(np.float32)

    knows_words = True

    def tags(self, image_id: int) -> list[Tag]:
        return self.words().tags(self.index.feature(image_id)[None])[0]

    def _classifier(self) -> Classifier | None:
        if isinstance(self.classified_by, SearchEngineError):
            raise self.classified_by
        return self.classified_by

    def words(self) -> Any:
        return FakeWords(self.index)


def colour_classifier(*, stale: bool = False) -> Classifier:
    """Return a classifier of red, green and blue pictures, which is certain about pure colours."""
    held_out = HeldOut(
        images=40, accuracy=0.9, low=0.8, high=0.96, calibration_error=0.1, brier=0.2, by_class=(), confused=()
    )
    report = FitReport(
        fitted="2026-01-02T03:04:05Z",
        images=40,
        unlabelled=0,
        regularization=0.1,
        folds=5,
        neighbours=10,
        logistic=held_out,
        vote=None,
        notes=(),
    )
    return Classifier(
        classes=("red", "green", "blue"),
        coefficients=np.eye(3) * 3,
        intercepts=np.zeros(3),
        mean=np.zeros(3),
        scale=np.ones(3),
        fingerprint="0123456789abcdef",
        version="1",
        report=report,
        stale=stale,
    )


def draw(colour: tuple[int, int, int], size: tuple[int, int] = (320, 240), number: int = 0) -> Image.Image:
    """Return a picture of one colour, with its number in the corner so that all files differ."""
    image = Image.new("RGB", size, colour)
    ImageDraw.Draw(image).text((4, 4), str(number), fill=tuple(255 - part for part in colour))
    return image


def draw_collection(folder: Path, count: int) -> Path:
    """Write ``count`` pictures in all colours and several shapes, with a subfolder for each colour."""
    names = list(COLOURS)
    for number in range(count):
        name = names[number % len(names)]
        file = folder / name / f"{name} {number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(COLOURS[name], SIZES[number % len(SIZES)], number).save(file)
    return folder


@cache
def _described(number: int, file: Path, folder: Path, mtime_ns: int) -> tuple[ImageRecord, NDArray[np.float64]]:
    data = file.read_bytes()
    decoded = images.decode(data)
    record = ImageRecord(
        id=number,
        path=file.relative_to(folder).as_posix(),
        file=file,
        labels=(file.parent.name,) if file.parent != folder else (),
        width=decoded.width,
        height=decoded.height,
        colour=images.average_colour(decoded.pixels),
        size=len(data),
        format=decoded.format,
        content_hash=blake2b(data, digest_size=16).hexdigest(),
    )
    return record, decoded.pixels.reshape(-1, 3).mean(axis=0)
