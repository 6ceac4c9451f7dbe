"""The interfaces of an index, for reading and for writing: the seam between the storage and everything else.

``LocalIndex`` and ``IndexWriter`` implement it in a folder, ``MilvusIndex`` and ``MilvusWriter`` in a collection of a
Milvus server; the tests in ``tests/index/contract`` run on every implementation. ``storage`` opens an index. Code that
needs all features takes the ``state`` of an index, and keeps results in its ``folder``. Only imports, rebuilds and
checks of the files use an ``IndexWriter`` directly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.address import Address
from searchengine.errors import UnknownImageError
from searchengine.index.approximate import ApproximateSearcher
from searchengine.index.exact import Searcher
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.state import State
from searchengine.index.structure import StructureSheet
from searchengine.index.types import Batch, Hit, ImageRecord, IndexedImage, IndexStatus, Place, Skipped, Twin
from searchengine.progress import QUIET, Progress

Order: TypeAlias = Callable[[int, Filter, Cursor | None], list[Hit]]
"""A ranking of the images of an index: how many, the filter that they pass, after which hit they come -> the hits."""


class Index(Protocol):
    """A collection, open for reading; safe to share between threads. It sees what a running writer commits.

    Attributes:
        address: its place, for messages and commands.
        folder: where this machine keeps data computed from it; it may be missing.
    """

    address: Address
    folder: Path

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

    def approximation(self, metric: str | None = None) -> StructureSheet | None:
        """The sheet of the structure that searches by a metric use; None if they use none."""
        ...

    def search_remark(self, metric: str) -> str | None:
        """A sentence for people if searches by a metric are approximate or slow; else None."""
        return None

    def count(self, filter: Filter = EVERYTHING) -> int:
        """How many images pass a filter."""
        ...

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        """The first n images that pass a filter and have a larger id, by id."""
        ...

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """The labels, tags, folders, formats, cameras and years of the images that pass a filter, with counts."""
        ...

    @property
    def generation(self) -> object:
        """Differs whenever what the index holds has changed."""
        ...

    def state(self) -> State:
        """All features at this moment; QueryError if they are too many to be loaded."""
        ...

    def whole_set_searcher(
        self, now: State, metric: str, k: int, progress: Progress = QUIET
    ) -> Searcher | ApproximateSearcher:
        """What finds the k nearest rows of each row of a state by a metric; where that is not exact, it is said."""
        ...

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """(at most n, d) features of random images with ids up to ``newest``, except some.

        The same each time, even if images are added, so that the pages of one ranking fit together.
        """
        ...

    def named(self, text: str, /) -> list[int]:
        """The ids of images with a text as their name, ascending: see the implementations."""
        ...

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """The (d,) float32 feature of one image; UnknownImageError."""
        ...

    def records(self, ids: Sequence[int]) -> list[ImageRecord]:
        """The records of images, in the order of the ids; UnknownImageError."""
        known = {record.id: record for record in self.known(ids)}
        for id_ in ids:
            if id_ not in known:
                raise self.unknown(id_)
        return [known[id_] for id_ in ids]

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        """The same, without the images that do not exist."""
        ...

    def unknown(self, image_id: int) -> UnknownImageError:
        """The error for an id that no image has."""
        return UnknownImageError(f"The index holds no image {image_id}.")

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


def images_by_row(index: Index, state: State) -> dict[int, ImageRecord]:
    """The row of each image of a state -> its record, in the order of the ids; without those removed since."""
    rows = state.live_by_id
    ids = state.ids[rows].tolist()
    known = {record.id: record for record in index.known(ids)}
    return {row: known[id_] for row, id_ in zip(rows.tolist(), ids, strict=True) if id_ in known}


class Writer(Protocol):
    """A collection, open for one run that changes it.

    Attributes:
        address: its place, for messages and commands.
    """

    address: Address

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
        """An image with that content, if there is one."""
        ...

    def set_roots(self, roots: Iterable[tuple[int, bytes, str]]) -> None:
        """Record the image folders; ids that are in use keep their meaning."""
        ...

    def set(self, values: dict[str, str | None]) -> None:
        """Write entries of the manifest, or remove those with None."""
        ...

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> None:
        """Add a batch to the index: all of it or, if anything fails, nothing; IndexingError."""
        ...

    def forget_skipped(self, files: Iterable[Place]) -> None:
        """Remove files that are gone from the list of skipped files."""
        ...

    def compact_if_sparse(self) -> bool:
        """Free the space of removed images, if that pays; IndexingError."""
        ...

    def back_up(self) -> None:
        """Called once, at the end of a run."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...
