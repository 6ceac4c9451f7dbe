"""The search engines of a server: what the pages need of one, and how several share an extractor."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from searchengine.address import Address
from searchengine.engine import FeatureOf, Results, SearchEngine, open_index
from searchengine.extractors import Extractor, ExtractorSpec
from searchengine.images import DecodedImage, Part, Pixels
from searchengine.index.protocol import Index
from searchengine.learn import Classifier, latest_classifier
from searchengine.query import Example, Query
from searchengine.settings import Settings
from searchengine.text.tags import Tag
from searchengine.web.overview import LatestEvaluation, Overview, cached_evaluation, cached_overview


class QueryReader(Protocol):
    """The part of an extractor that a search by an upload needs."""

    def preprocess(self, data: bytes, max_pixels: int, preview: int | None, part: Part | None, /) -> DecodedImage:
        """An image file, or a part -> pixels of the input size; with a preview of at most that side. ImageError."""
        ...

    def embed(self, images: Sequence[Pixels], /) -> NDArray[np.float32]:
        """n times (h, w, 3) uint8 RGB -> (n, d) float32; ExtractorError."""
        ...


class Engine(Protocol):
    """What the pages need: an index, the extractor that made it, and what is kept beside it.

    ``ServedEngine`` implements it; tests have their own.
    """

    @property
    def index(self) -> Index:
        """The collection."""
        ...

    @property
    def address(self) -> Address | None:
        """Where commands find the index; None for one that lies nowhere."""
        ...

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor as a value; it ``embeds`` unless the features were imported."""
        ...

    def extractor(self) -> QueryReader:
        """The extractor that made the index; ExtractorError, or QueryError where the features were imported."""
        ...

    def search(self, query: Query, *, feature_of: FeatureOf | None = None) -> Results:
        """The answer to a query; QueryError, UnknownImageError, ImageError."""
        ...

    def feature_of(self, example: Example) -> NDArray[np.float32]:
        """An example -> (1, d) float32; QueryError, UnknownImageError, ImageError."""
        ...

    @property
    def knows_words(self) -> bool:
        """Whether the index can be searched by words."""
        ...

    def tags(self, image_id: int) -> list[Tag]:
        """What the network of the index sees in an image, right or wrong; empty where it knows no classes."""
        ...

    def classifier(self) -> Classifier | None:
        """The classifier of the index, as it is now; IndexError_ where it cannot be used."""
        ...

    def overview(self) -> Overview:
        """The map and the groups, as they are now."""
        ...

    def evaluation(self) -> LatestEvaluation:
        """The evaluation, as it is now."""
        ...

    def warm(self) -> None:
        """Load the extractor, so that the first search is not the slow one."""
        ...


class SharedExtractors:
    """Loaded extractors by fingerprint: indexes of the same extractor share one copy.

    An extractor is released when no index uses it any more.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one is loaded at a time, which bounds the memory
        self.loaded: WeakValueDictionary[str, Extractor] = WeakValueDictionary()


class ServedEngine(SearchEngine):
    """A search engine that shares its extractor with others. It is loaded at the first search by an upload."""

    def __init__(
        self,
        index: Index,
        shared: SharedExtractors | None = None,
        *,
        precision: str = "auto",
        runtime: str = "auto",
    ) -> None:
        super().__init__(index, precision=precision, runtime=runtime)
        self._shared = shared or SharedExtractors()
        self._classifier = latest_classifier(index)
        self._overview = cached_overview(index)
        self._evaluation = cached_evaluation(index)

    @property
    def address(self) -> Address | None:
        """The folder of the index, or its collection of a Milvus server."""
        return self.index.address

    def classifier(self) -> Classifier | None:
        """The classifier of the index; see ``latest_classifier``."""
        return self._classifier.get()

    def overview(self) -> Overview:
        """The map and the groups of the index."""
        return self._overview.get()

    def evaluation(self) -> LatestEvaluation:
        """The evaluation of the index."""
        return self._evaluation.get()

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
            open_index(folder, images_dir=settings.images_dir, exact=settings.ann == "off"),
            shared,
            precision=settings.precision,
            runtime=settings.runtime,
        )
        for folder in settings.index_dir
    ]
