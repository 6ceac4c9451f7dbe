"""The results of an evaluation, as JSON too, and the last one of an index, which is kept with it for the page."""

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
    """An image as a report shows it; ``file`` opens, and is None where there is only a feature."""

    path: str
    labels: tuple[str, ...]
    file: Annotated[Path | None, BeforeValidator(lambda _: None), _NOT_STORED] = None  # never opened as a file names it


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over queries. ``low`` and ``high`` are its 95 % interval, None for fewer than two queries; ``ceiling`` is
    what a perfect ranking would have.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    ceiling: float


@dataclass(frozen=True, slots=True)
class ClassResult:
    """The queries of one label. ``images`` carry it in the collection.

    ``taken_for`` is the wrong label that is most frequent in the first ten places, with ``taken_share`` of them.
    """

    label: str
    images: int
    queries: int
    figures: tuple[Figure, ...]
    taken_for: str | None
    taken_share: float

    def figure(self, name: str) -> Figure:
        """A figure by its name; KeyError."""
        return _by_name(self.figures, name)


@dataclass(frozen=True, slots=True)
class Place:
    """A picture in a ranking; ``rank`` is from 1."""

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
    """A class of low mean average precision, and its query of median average precision."""

    label: str
    example: Example


@dataclass(frozen=True, slots=True)
class Confusion:
    """Queries of ``label`` have, in ``share`` of their first ten places, images of ``taken_for`` that are wrong."""

    label: str
    taken_for: str
    share: float
    places: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many images were ranked, and how many were queries. ``unlabelled`` and ``irrelevant`` images were no queries:
    they have no label, or nothing relevant to find. ``alone`` are the labels that no other image shares; ``unreadable``
    files could not be opened; ``copies`` of the queries have the bytes of another image of the collection.
    ``several_labels`` of the queries carry more than one; None where that was not counted.
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
    """``values`` is (q, m) float64, a column a figure; ``keys`` name the queries across indexes; ``replicates`` are
    the (q, groups, m) float32 values without each group of photos, where they were asked for.
    """

    keys: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    values: NDArray[np.float64]
    replicates: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What an evaluation rests on: the features of an extractor, and a version of all images and labels.

    It differs when an image comes, goes, or changes its labels or content.
    """

    fingerprint: str
    version: str

    @classmethod
    def of(cls, fingerprint: str, records: Iterable[ImageRecord]) -> Source:
        """Of the images of an index, in the order of their ids."""
        digest = hashlib.sha256()
        for record in records:
            digest.update(f"{record.id}\0{record.content_hash}\0{json.dumps(record.labels)}\n".encode())
        return cls(fingerprint, digest.hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One index under one metric. ``by_class`` is the mean over classes, each counting alike; ``curve`` the mean
    precision at evenly spaced levels of recall from 0 to 1; ``confusion`` says for each pair of labels in which share
    of the first ten places of the first one the other stands wrongly.
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
        """A figure by its name; KeyError."""
        return _by_name(self.figures, name)


@dataclass(frozen=True, slots=True)
class Difference:
    """``second`` - ``first``, after minus before, over the queries that both have: positive where the second is better.

    ``low``, ``high`` and ``p`` are for photos of the same kind: queries and collection could have been others
    (jackknife); there is no interval where the photos are too few to tell. ``low_here``, ``high_here`` and ``p_here``
    are for this very collection, asked with other queries (paired bootstrap, permutation test). Both p are raised for
    the number of pairs compared.
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
    """Mean average precision of one class in both, over the common queries."""

    label: str
    queries: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations over their common queries. ``better`` is a name, or None if no difference can be shown."""

    first: str
    second: str
    queries: int
    better: str | None
    sentence: str
    differences: tuple[Difference, ...]
    classes: tuple[ClassDifference, ...]  # the first gains most, ..., the second gains most
    notes: tuple[str, ...]


def to_json(value: Any) -> Any:
    """As plain values for JSON, without what only serves further computation."""
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
    """ "a, b, c, d, e and 3 more"."""
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


# -- kept with an index -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvaluationSheet:
    """What the file holds; ``confusion`` is (label, other label, share)."""

    format: Literal[1]
    made: str
    fingerprint: str
    version: str
    evaluation: Evaluation
    confusion: tuple[tuple[str, str, float], ...]


EVALUATION = Derived("evaluation.json", EvaluationSheet, command="searchengine evaluate")


@dataclass(frozen=True, slots=True)
class KeptEvaluation:
    """An evaluation as it was stored; ``made`` is ISO 8601 in UTC.

    ``stale``: images or labels have changed since, or another extractor has made the features. ``ids`` are the images
    of that path now.
    """

    evaluation: Evaluation
    made: str
    stale: bool
    ids: Mapping[str, int]


def keep_evaluation(index: Index, evaluation: Evaluation) -> Path:
    """Keep an evaluation with its index; IndexingError if the folder cannot be written to."""
    confusion = tuple((label, other, share) for (label, other), share in evaluation.confusion.items())
    source = evaluation.source
    sheet = EvaluationSheet(1, timestamp(), source.fingerprint, source.version, evaluation, confusion)
    return EVALUATION.save(index.folder, sheet)


def load_evaluation(index: Index) -> KeptEvaluation | None:
    """The evaluation that is kept with an index, or None; IndexDamagedError if it cannot be read.

    ``per_query`` is not kept, and no picture has a file: a path in a file of the index is not one to open.
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
