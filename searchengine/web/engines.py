"""The search engines of a server: what the pages ask of one, and how several share what is large."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from searchengine.engine import SearchEngine, open_index
from searchengine.extractors import Extractor, ExtractorSpec
from searchengine.images import DecodedImage
from searchengine.index.local import LocalIndex
from searchengine.index.types import Hit, ImageRecord, IndexStatus
from searchengine.learn import Classifier, latest_classifier
from searchengine.settings import Settings


class QueryReader(Protocol):
    """The part of an extractor that reads an image file as the index did."""

    def preprocess(self, data: bytes, max_pixels: int, /) -> tuple[DecodedImage, NDArray[np.uint8]]:
        """An image file -> the decoded image, and (h, w, 3) uint8 pixels of the extractor's input size; ImageError."""
        ...


class Engine(Protocol):
    """What the pages ask of a search engine. ``ServedEngine`` is one; tests have their own."""

    @property
    def index(self) -> LocalIndex | None:
        """The index in a folder, which may hold a map, groups and an evaluation; None where there is no folder."""
        ...

    @property
    def extractor_title(self) -> str:
        """The extractor in words, e.g. "VGG16 fc2, ImageNet weights, L2-normalised"."""
        ...

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor as a value; it ``embeds`` unless the features were imported."""
        ...

    @property
    def normalized(self) -> bool:
        """Whether features are L2-normalised, so that a score is a cosine."""
        ...

    @property
    def metric(self) -> str:
        """The metric of the index, e.g. "euclidean"."""
        ...

    def extractor(self) -> QueryReader:
        """The extractor that made the index; ExtractorError, or QueryError where the features were imported."""
        ...

    def embed(self, image: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """(h, w, 3) uint8 RGB -> (1, d) float32; ExtractorError."""
        ...

    def search_feature(self, feature: NDArray[np.float32], k: int, *, metric: str | None = None) -> list[Hit]:
        """(1, d) float32 -> at most k hits, by another metric than the index's if one is named; ExtractorError."""
        ...

    def search_id(self, image_id: int, k: int, *, metric: str | None = None) -> list[Hit]:
        """At most k hits, the image itself among them; UnknownImageError."""
        ...

    def search_ids(self, image_ids: Sequence[int], k: int) -> list[list[Hit]]:
        """``search_id`` for several at once, in one pass; UnknownImageError."""
        ...

    def recommend(
        self,
        liked: Sequence[int],
        disliked: Sequence[int],
        k: int,
        *,
        query: int | NDArray[np.float32] | None = None,
        rule: str | None = None,
    ) -> list[Hit]:
        """At most k hits like the query and what is liked, without these; QueryError, UnknownImageError."""
        ...

    def classifier(self) -> Classifier | None:
        """The classifier that lives with the index, as it stands now; IndexError_ where it cannot be used."""
        ...

    def find(self, other: ImageRecord) -> int | None:
        """The id of the same image as one of another index, if this index holds it."""
        ...

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """The feature of one image, (d,) float32; UnknownImageError."""
        ...

    def record(self, image_id: int) -> ImageRecord:
        """What is known of one image; UnknownImageError."""
        ...

    def records(self, ids: list[int]) -> list[ImageRecord]:
        """What is known of each id, in that order; UnknownImageError."""
        ...

    def sample(self, n: int) -> list[ImageRecord]:
        """At most n images spread evenly over the collection; those of a smaller n are among those of a larger one."""
        ...

    def status(self) -> IndexStatus:
        """The index in numbers, as it stands now."""
        ...

    def warm(self) -> None:
        """Load the extractor, so that the first search is not the slow one."""
        ...


class SharedExtractors:
    """Loaded extractors by fingerprint: two indexes of one extractor hold a single copy of it.

    An extractor is let go when no index needs it any more.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one is loaded at a time, so that memory is not needed twice
        self.loaded: WeakValueDictionary[str, Extractor] = WeakValueDictionary()


class ServedEngine(SearchEngine):
    """A search engine among others in one process. Its extractor is loaded by the first search by an upload."""

    def __init__(
        self,
        index: LocalIndex,
        shared: SharedExtractors | None = None,
        *,
        precision: str = "auto",
        runtime: str = "auto",
    ) -> None:
        super().__init__(index, precision=precision, runtime=runtime)
        self._shared = shared or SharedExtractors()
        self._classifier = latest_classifier(index)

    def classifier(self) -> Classifier | None:
        """The classifier that is kept with the index; see ``latest_classifier``."""
        return self._classifier.get()

    def extractor(self) -> Extractor:
        """The extractor that made the index; another index's, if that was made by the same."""
        fingerprint = self.index.fingerprint
        current = self._extractor
        if current is not None and current[0] == fingerprint:
            return current[1]
        with self._shared.lock:
            extractor = self._shared.loaded.get(fingerprint)
            if extractor is None:
                extractor = super().extractor()
                fingerprint = extractor.spec.fingerprint  # the index may have been rebuilt just now
                self._shared.loaded[fingerprint] = extractor
            self._extractor = (fingerprint, extractor)
            return extractor


def open_engines(settings: Settings) -> list[ServedEngine]:
    """A search engine over each index that the settings name, in their order; IndexError_."""
    shared = SharedExtractors()
    return [
        ServedEngine(
            open_index(folder, images_dir=settings.images_dir),
            shared,
            precision=settings.precision,
            runtime=settings.runtime,
        )
        for folder in settings.index_dir
    ]
