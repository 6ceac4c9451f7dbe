"""The results of an evaluation, their form in JSON, and the latest results of an index, kept with it for the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, InstanceOf, SkipValidation

from searchengine.derived import Derived, timestamp
from searchengine.index.protocol import Index, images_by_row
from searchengine.index.types import ImageRecord

LEAVE_ONE_OUT = "leave-one-out"
QUERY_FOLDER = "query folder"
_NOT_STORED = Field(exclude=True)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image in a report; ``file`` is None for an image without a picture."""

    path: str
    labels: tuple[str, ...]
    file: Annotated[Path | None, BeforeValidator(lambda _: None), _NOT_STORED] = None  # never read from a file


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over queries. ``low`` and ``high`` are its 95 % interval, None for fewer than two queries; ``ceiling`` is
    the value of a perfect ranking.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    ceiling: float


@dataclass(frozen=True, slots=True)
class ClassResult:
    """The results for the queries of one label, which ``images`` of the collection have.

    ``taken_for`` is the most frequent wrong label in the first ten places; ``taken_share`` is its fraction of them.
    """

    label: str
    images: int
    queries: int
    figures: tuple[Figure, ...]
    taken_for: str | None
    taken_share: float

    def figure(self, name: str) -> Figure:
        """Return a figure by its name; KeyError if there is none."""
        return _by_name(self.figures, name)


@dataclass(frozen=True, slots=True)
class Place:
    """A picture in a ranking; ranks begin at 1."""

    rank: int
    distance: float
    relevant: bool
    picture: Picture


@dataclass(frozen=True, slots=True)
class Example:
    """A query, its average precision, and some of its results."""

    query: Picture
    average_precision: float
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class HardClass:
    """A class with low mean average precision, and its query with the median average precision."""

    label: str
    example: Example


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confused pair: wrong images of ``taken_for`` take a ``share`` of the first ten places of ``label``."""

    label: str
    taken_for: str
    share: float
    places: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of images and queries.

    Attributes:
        collection: images that were ranked.
        labels: labels of the collection.
        queries: images that were queries.
        unlabelled: images that were not queries because they have no label.
        irrelevant: images that were not queries because nothing is relevant to them.
        alone: the labels for which a query finds no other image.
        unreadable: files that could not be read.
        copies: queries with the same bytes as another image of the collection.
        several_labels: queries with more than one label; None if unknown.
    """

    collection: int
    labels: int
    queries: int
    unlabelled: int
    irrelevant: int
    alone: tuple[str, ...]
    unreadable: int = 0
    copies: int = 0
    several_labels: int | None = None


@dataclass(frozen=True, slots=True)
class PerQuery:
    """The values of each query: ``values`` is (q, m) float64, with a column for each figure.

    ``keys`` identify queries across indexes. ``replicates``, (q, groups, m) float32, are the values without each group
    of photos, if they were requested.
    """

    keys: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    values: NDArray[np.float64]
    replicates: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The basis of an evaluation: the fingerprint of the extractor, and a version of all images and labels.

    The version changes when an image is added or removed, or when its labels or content change.
    """

    fingerprint: str
    version: str

    @classmethod
    def of(cls, fingerprint: str, records: Iterable[ImageRecord]) -> Source:
        """Compute the source from the records of an index, ordered by id."""
        digest = hashlib.sha256()
        for record in records:
            digest.update(f"{record.id}\0{record.content_hash}\0{json.dumps(record.labels)}\n".encode())
        return cls(fingerprint, digest.hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation of one index by one metric.

    ``by_class`` is the mean over classes, each with the same weight. ``curve`` is the mean precision at evenly spaced
    levels of recall from 0 to 1. ``confusion`` gives, for each pair of labels, the fraction of the first ten places of
    the first label that the second takes wrongly.
    """

    name: str
    extractor: str
    metric: str
    protocol: str  # LEAVE_ONE_OUT or QUERY_FOLDER
    counts: Counts
    figures: tuple[Figure, ...]
    by_class: Figure
    classes: tuple[ClassResult, ...]  # hardest first
    hardest: tuple[HardClass, ...]
    confused: tuple[Confusion, ...]
    curve: tuple[float, ...]
    notes: tuple[str, ...]
    seconds: float
    confusion: Annotated[Mapping[tuple[str, str], float], SkipValidation, _NOT_STORED] = field(default_factory=dict)
    per_query: Annotated[PerQuery, InstanceOf, _NOT_STORED] = field(
        default_factory=lambda: PerQuery((), (), np.empty((0, 0)))
    )
    source: Annotated[Source, SkipValidation, _NOT_STORED] = Source("", "")

    def figure(self, name: str) -> Figure:
        """Return a figure by its name; KeyError if there is none."""
        return _by_name(self.figures, name)


@dataclass(frozen=True, slots=True)
class Difference:
    """``second`` - ``first``, after minus before, over common queries: positive if the second is better.

    ``low``, ``high`` and ``p`` are for other photos of the same kind, as queries and in the collection (jackknife);
    there is no interval if there are too few photos. ``low_here``, ``high_here`` and ``p_here`` are for other queries
    on this very collection (paired bootstrap, permutation test). Both p are adjusted for the number of pairs compared.
    """

    name: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p: float
    low_here: float
    high_here: float
    p_here: float


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """The mean average precision of one class in both evaluations, over the common queries."""

    label: str
    queries: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two evaluations. ``better`` is a name, or None if no difference can be shown."""

    first: str
    second: str
    queries: int
    better: str | None
    sentence: str
    differences: tuple[Difference, ...]
    classes: tuple[ClassDifference, ...]  # the first gains most, ..., the second gains most
    notes: tuple[str, ...]


def to_json(value: Any) -> Any:
    """Convert results to plain values for JSON, without the fields that only serve further computation."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name not in ("per_query", "confusion", "source")]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, tuple | list):
        return [to_json(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _by_name(figures: tuple[Figure, ...], name: str) -> Figure:
    for figure in figures:
        if figure.name == name:
            return figure
    raise KeyError(name)


def first_of(labels: Sequence[str]) -> str:
    """List the first labels, as in "a, b, c, d, e and 3 more"."""
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


# -- kept with an index -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvaluationSheet:
    """The contents of the file; ``confusion`` is (label, other label, share)."""

    format: Literal[1]
    made: str
    fingerprint: str
    version: str
    evaluation: Evaluation
    confusion: tuple[tuple[str, str, float], ...]


EVALUATION = Derived("evaluation.json", EvaluationSheet, command="searchengine evaluate")


@dataclass(frozen=True, slots=True)
class KeptEvaluation:
    """A stored evaluation; ``made`` is its time, as ISO 8601 in UTC.

    It is ``stale`` if images, labels or the extractor have changed since. ``ids`` are the current images by path.
    """

    evaluation: Evaluation
    made: str
    stale: bool
    ids: Mapping[str, int]


def keep_evaluation(index: Index, evaluation: Evaluation) -> Path:
    """Store an evaluation with its index, and return the file; IndexingError if the folder is not writable."""
    confusion = tuple((label, other, share) for (label, other), share in evaluation.confusion.items())
    source = evaluation.source
    sheet = EvaluationSheet(1, timestamp(), source.fingerprint, source.version, evaluation, confusion)
    return EVALUATION.save(index.folder, sheet)


def load_evaluation(index: Index) -> KeptEvaluation | None:
    """Load the evaluation stored with an index, or None; IndexDamagedError if it cannot be read.

    ``per_query`` is not stored, and no picture has a file, because paths stored in an index must not be opened.
    """
    kept = EVALUATION.load(index.folder)
    if kept is None:
        return None
    state = index.state()
    records = images_by_row(index, state).values()
    confusion = {(label, other): share for label, other, share in kept.sheet.confusion}
    source = Source(kept.sheet.fingerprint, kept.sheet.version)
    evaluation = replace(kept.sheet.evaluation, confusion=confusion, source=source)
    stale = source != Source.of(state.fingerprint, records)
    ids: dict[str, int] = {}
    for record in records:
        ids.setdefault(record.path, record.id)
    return KeptEvaluation(evaluation, kept.sheet.made, stale, ids)
