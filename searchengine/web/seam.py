"""The part of the search engine that the pages stand on, so that tests can hand in their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.extractors import ExtractorSpec
from searchengine.images import DecodedImage
from searchengine.index.types import Hit, ImageRecord, IndexStatus
from searchengine.learn.classifiers import Classifier


class QueryReader(Protocol):
    """The part of an extractor that reads an image file as the index did."""

    def preprocess(self, data: bytes, max_pixels: int, /) -> tuple[DecodedImage, NDArray[np.uint8]]:
        """An image file -> the decoded image, and (h, w, 3) uint8 pixels of the extractor's input size; ImageError."""
        ...


class Engine(Protocol):
    """What the pages ask of a search engine; ``searchengine.engine.SearchEngine`` is one."""

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
        """At most k hits that are like those liked and the query, without these; QueryError, UnknownImageError."""
        ...

    def classifier(self) -> Classifier | None:
        """The classifier that lives with the index, as it stands now; IndexError_ where it cannot be used."""
        ...

    def find(self, other: ImageRecord) -> int | None:
        """The image here that is the same picture as one of another index, if there is one."""
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
        """Loads the extractor, so that the first search is not the slow one."""
        ...
