"""What an index answers with."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Hit:
    """One neighbour of a query.

    ``distance`` is smaller-is-better, in the metric of the index; ``score`` is larger-is-better: the cosine for
    L2-normalised features, ``1 / (1 + distance)`` otherwise. ``rank`` starts at 1. ``record`` is what was known of the
    image as it was found, where the index tells.
    """

    rank: int
    id: int
    path: str
    distance: float
    score: float
    label: str | None
    record: ImageRecord | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the record."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "record"}


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the catalog knows of one image.

    ``path`` is for people (relative to the image folder, ``/``-separated, undecodable bytes replaced); ``file`` opens.
    ``width`` and ``height`` are in pixels, upright; ``colour`` is the average, ``#rrggbb``; ``size`` is in bytes;
    ``content_hash`` is the lower-case hex BLAKE2b-128 of the file. All are None where a row has no image file.
    """

    id: int
    path: str
    file: Path | None
    labels: tuple[str, ...]
    width: int | None
    height: int | None
    colour: str | None
    size: int | None
    format: str | None
    content_hash: str | None

    @property
    def label(self) -> str | None:
        """The first label, if there is one."""
        return self.labels[0] if self.labels else None

    @classmethod
    def removed(cls, id_: int) -> ImageRecord:
        """Of an image that was removed a moment ago, and whose row still stands in the state that is searched."""
        return cls(id_, f"#{id_}", None, (), None, None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A run that is adding to the index right now: ``done`` of ``total`` files looked at."""

    done: int
    total: int
    active: bool  # False: the run was killed, and the same command goes on from here


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The index in a few numbers; ``bytes`` on disk, ``updated`` as ISO 8601 in UTC."""

    images: int
    skipped: int
    dimension: int
    extractor: str
    fingerprint: str
    bytes: int
    updated: str
    run: RunProgress | None


class Index(Protocol):
    """Rows of features with what is known of each; the same on one machine and on a cluster."""

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[Hit]]:
        """(m, d) float32 -> m lists of at most k hits, ordered by (distance, id)."""
        ...

    def feature(self, image_id: int) -> NDArray[np.float32]:
        """The (d,) float32 row of one image; UnknownImageError."""
        ...

    def records(self, ids: list[int]) -> list[ImageRecord]:
        """What is known of each id, in that order; UnknownImageError."""
        ...

    def sample(self, n: int) -> list[ImageRecord]:
        """At most n images spread evenly over the collection, the same each time while it does not change."""
        ...

    def status(self) -> IndexStatus:
        """The index in numbers, as it stands now."""
        ...
