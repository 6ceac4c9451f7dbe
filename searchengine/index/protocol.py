"""What every index can do, whatever holds it: the seam between the pages and the storage.

``LocalIndex`` and ``IndexWriter`` implement it in a folder; ``tests/index/contract`` holds for every implementation.
The pages and ``ranking`` take an ``Index``. Whatever reads the matrix itself or keeps files beside it takes a
``LocalIndex``: ``SearchEngine``, feedback, the classifier, the map, the groups, evaluation and export. Runs and imports
take an ``IndexWriter``, which compacts, adopts and backs up too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.types import Batch, Hit, ImageRecord, IndexedImage, IndexStatus, Place, Skipped, Twin


class Index(Protocol):
    """A collection, open for reading; safe to share between threads. It sees what a running writer commits."""

    def search(
        self,
        queries: ArrayLike,
        k: int = 20,
        metric: str | None = None,
        *,
        filter: Filter = EVERYTHING,
        after: Cursor | None = None,
    ) -> list[list[Hit]]:
        """(m, d) or (d,) -> m lists of at most k hits, ordered by (distance, id); QueryError, UnknownNameError.

        Only images that pass the filter are ranked, and only what comes after the cursor is answered.
        """
        ...

    def search_remark(self, metric: str) -> str | None:
        """For people, where searches by a metric are approximate, or take long; None where they are as usual."""
        return None

    def count(self, filter: Filter = EVERYTHING) -> int:
        """How many images pass a filter."""
        ...

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        """The first n images that pass a filter, by id, from that id on, which is left out."""
        ...

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """What the images that pass a filter have, with counts."""
        ...

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """The (d,) float32 feature of one image; UnknownImageError."""
        ...

    def records(self, ids: Sequence[int]) -> list[ImageRecord]:
        """What is known of each image, in the order of the ids; UnknownImageError."""
        ...

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        """The same of those that exist."""
        ...

    def find(self, other: ImageRecord) -> int | None:
        """The id of the image that is the same picture as one of another index, by its content or its path."""
        ...

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        """At most n images spread evenly over the collection, by id; the same each time while it does not change.

        ``skip`` leaves out those of a sample of that size, so that sample after sample shows each image once.
        """
        ...

    def status(self) -> IndexStatus:
        """The index in numbers."""
        ...

    def skipped(self) -> list[tuple[str, str]]:
        """Every file that could not be used: path and reason."""
        ...

    def manifest(self, key: str) -> str | None:
        """One entry of the manifest."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features."""
        ...

    @property
    def spec(self) -> str:
        """The extractor's spec, as JSON."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a feature."""
        ...

    @property
    def normalized(self) -> bool:
        """Whether the features have length 1."""
        ...

    @property
    def metric(self) -> str:
        """What distances are measured in, unless a search names another metric."""
        ...

    @property
    def typical_length(self) -> float:
        """The root mean square of the lengths of all features."""
        ...

    @property
    def newest(self) -> int:
        """The largest id; -1 where there is no image."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class Writer(Protocol):
    """A collection, open for one run that changes it."""

    def known(self) -> dict[Place, IndexedImage]:
        """Every image that has a file, by image folder and path."""
        ...

    def skipped(self) -> dict[Place, Skipped]:
        """Every file that was skipped, by image folder and path."""
        ...

    def roots(self) -> list[tuple[int, bytes, str]]:
        """The image folders: id, path, name."""
        ...

    def manifest(self, key: str) -> str | None:
        """One entry of the manifest."""
        ...

    def count(self) -> int:
        """Images in the index."""
        ...

    def twin(self, content_hash: bytes) -> Twin | None:
        """An image of that very content, if there is one."""
        ...

    def set_roots(self, roots: Iterable[tuple[int, bytes, str]]) -> None:
        """Record the image folders; ids that are in use keep their meaning."""
        ...

    def set(self, values: dict[str, str | None]) -> None:
        """Write entries of the manifest, or remove those with None."""
        ...

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> int:
        """Make one batch part of the index: all of it or, if anything fails, nothing; IndexingError."""
        ...

    def forget_skipped(self, files: Iterable[Place]) -> None:
        """Remove skipped files that are gone from the list."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...
