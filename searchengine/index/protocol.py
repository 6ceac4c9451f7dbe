"""The interfaces of an index, ``Index`` for reading and ``Writer`` for writing: the seam between storage and the rest.

``LocalIndex`` and ``IndexWriter`` implement them in a folder, ``MilvusIndex`` and ``MilvusWriter`` in a collection of a
Milvus server. The tests in ``tests/index/contract`` run on every implementation, and ``storage.storage_of`` opens one.
Code that needs all features takes the ``state`` of an index, and stores what it computes in the index's ``folder``.
Only imports, rebuilds and ``verify`` use an ``IndexWriter`` directly, because they work on the files themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.address import Address
from searchengine.errors import UnknownImageError
from searchengine.index.approximate import ApproximateSearcher, StructureSheet
from searchengine.index.exact import Searcher
from searchengine.index.filters import EVERYTHING, Cursor, Facets, Filter
from searchengine.index.state import State
from searchengine.index.types import (
    Batch,
    Hit,
    ImageFolder,
    ImageRecord,
    IndexedImage,
    IndexStatus,
    Place,
    Skipped,
    Twin,
)
from searchengine.progress import QUIET, Progress

Order: TypeAlias = Callable[[int, Filter, Cursor | None], list[Hit]]
"""A ranking of an index's images, as a function: (k, filter, cursor to continue after) -> at most k hits."""


class Index(Protocol):
    """An index, open for reading. It is safe to share between threads, and sees what a running writer commits.

    Attributes:
        address: where it is, for messages and commands.
        folder: where this machine keeps data computed from it; the folder may not exist yet.
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
        """Return the k nearest images of each query.

        Args:
            queries: (m, d) float32, or (d,) for a single query; made by the extractor of this index.
            k: at least 1; there are at most as many hits as images.
            metric: None for the metric of the index. See ``metrics`` for distances and scores.
            filter: only images that pass it are ranked.
            after: return only hits that come after this one; for a single query. Pages that continue in this way repeat
                nothing while images are added, and leave out none of the images that existed from the beginning.

        Returns:
            m lists of hits, ordered by (distance, id).

        Raises:
            QueryError: a wrong shape, NaN or infinity, k below 1, or a cursor for several queries.
            UnknownNameError: there is no such metric.
        """
        ...

    def approximation(self, metric: str | None = None) -> StructureSheet | None:
        """Return the sheet of the structure that searches by a metric use, or None if they use none."""
        ...

    def search_remark(self, metric: str) -> str | None:
        """Return a sentence for users if searches by a metric are approximate or slow, else None."""
        ...

    def count(self, filter: Filter = EVERYTHING) -> int:
        """Return the number of images that pass a filter."""
        ...

    def page(self, filter: Filter = EVERYTHING, after_id: int | None = None, n: int = 60) -> list[ImageRecord]:
        """Return the first n images, by id, that pass a filter and have an id larger than ``after_id``."""
        ...

    def facets(self, filter: Filter = EVERYTHING) -> Facets:
        """Return the labels, tags, folders, formats, cameras and years of images that pass a filter, with counts."""
        ...

    @property
    def generation(self) -> object:
        """A value that differs whenever the content of the index has changed."""
        ...

    def state(self) -> State:
        """Return all features as of now, in an object that never changes; QueryError if they are too many to load."""
        ...

    def whole_set_searcher(
        self, state: State, metric: str, k: int, progress: Progress = QUIET
    ) -> Searcher | ApproximateSearcher:
        """Return a searcher for the k nearest rows of every row of a state; it reports whether it is approximate."""
        ...

    def draw(self, n: int, newest: int, without: Collection[int]) -> NDArray[np.float32]:
        """Return the features, at most (n, d), of random images with ids up to ``newest`` that are not in ``without``.

        The same images are drawn each time, even after others are added, so that pages of one ranking fit together.
        """
        ...

    def named(self, text: str, /) -> list[int]:
        """Return the ids, ascending, of images whose label is a text; a folder also compares file and folder names."""
        ...

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """Return a copy of the (d,) float32 feature of one image; UnknownImageError."""
        ...

    def records(self, ids: Sequence[int]) -> list[ImageRecord]:
        """Return the records of images, in the order of the ids; UnknownImageError."""
        known = {record.id: record for record in self.known(ids)}
        for id_ in ids:
            if id_ not in known:
                raise self.unknown(id_)
        return [known[id_] for id_ in ids]

    def known(self, ids: Sequence[int]) -> list[ImageRecord]:
        """Return the records of those images that exist, in the order of the ids."""
        ...

    def unknown(self, image_id: int) -> UnknownImageError:
        """Return the error for an id that no image has."""
        return UnknownImageError(f"The index holds no image {image_id}.")

    def find(self, other: ImageRecord) -> int | None:
        """Return the id of the image that matches a record of another index, by its content or else by its path.

        Paths are compared only if one of the two has no content hash, as is the case for imported features.
        """
        ...

    def sample(self, n: int, skip: int = 0) -> list[ImageRecord]:
        """Return at most n images spread evenly over the index, by id; the same ones while the index does not change.

        ``skip`` leaves out the images of ``sample(skip)``, so that successive samples show every image once.
        """
        ...

    def status(self) -> IndexStatus:
        """Return the index in numbers, as of now."""
        ...

    def skipped(self) -> list[tuple[str, str]]:
        """Return (path, reason) of every file that could not be used."""
        ...

    def manifest(self, key: str) -> str | None:
        """Return one entry of the manifest, as of now."""
        ...

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the extractor that made the features."""
        ...

    @property
    def spec(self) -> str:
        """The spec of that extractor, as JSON."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a feature vector."""
        ...

    @property
    def normalized(self) -> bool:
        """Whether all features have norm 1."""
        ...

    @property
    def metric(self) -> str:
        """The metric of searches that do not name one."""
        ...

    @property
    def typical_length(self) -> float:
        """The root mean square of the norms of all features."""
        ...

    @property
    def newest(self) -> int:
        """The largest id; -1 if there is no image."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Release connections and files."""
        ...


def images_by_row(index: Index, state: State) -> dict[int, ImageRecord]:
    """Return row -> record for the images of a state, in the order of their ids; images removed since are left out."""
    rows = state.live_by_id
    ids = state.ids[rows].tolist()
    known = {record.id: record for record in index.known(ids)}
    return {row: known[id_] for row, id_ in zip(rows.tolist(), ids, strict=True) if id_ in known}


class Writer(Protocol):
    """An index, open for one run that changes it.

    Attributes:
        address: where it is, for messages and commands.
    """

    address: Address

    def known(self) -> dict[Place, IndexedImage]:
        """Return every image that has a file, by image folder and path."""
        ...

    def skipped(self) -> dict[Place, Skipped]:
        """Return every file that was skipped, by image folder and path."""
        ...

    def roots(self) -> list[ImageFolder]:
        """Return (id, path, name) of each image folder."""
        ...

    def manifest(self, key: str) -> str | None:
        """Return one entry of the manifest."""
        ...

    def count(self) -> int:
        """Return the number of images in the index."""
        ...

    def twin(self, content_hash: bytes) -> Twin | None:
        """Return the feature and properties of an image with the same content, or None if there is no such image."""
        ...

    def set_roots(self, roots: Iterable[ImageFolder]) -> None:
        """Record the image folders; an id that is in use must keep its meaning."""
        ...

    def set(self, values: dict[str, str | None]) -> None:
        """Write entries of the manifest, and remove those whose value is None."""
        ...

    def commit(self, batch: Batch, manifest: dict[str, str | None] | None = None) -> None:
        """Add a batch to the index: all of it or, if anything fails, nothing; IndexingError."""
        ...

    def forget_skipped(self, files: Iterable[Place]) -> None:
        """Remove files that are gone from the list of skipped files."""
        ...

    def compact_if_sparse(self) -> None:
        """Free the space of removed images if that is worth it; IndexingError."""
        ...

    def back_up(self) -> None:
        """Finish a run: called once, at its end."""
        ...

    def close(self) -> None:
        """Release connections, files and locks."""
        ...
