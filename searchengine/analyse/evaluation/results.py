"""What an evaluation finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, InstanceOf, SkipValidation

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

    ``taken_for`` is the label that stands most often, wrongly, in the first ten places, in ``taken_share`` of them.
    """

    label: str
    images: int
    queries: int
    figures: tuple[Figure, ...]
    taken_for: str | None
    taken_share: float

    def figure(self, name: str) -> Figure:
        """One by its name; KeyError."""
        return _named(self.figures, name)


@dataclass(frozen=True, slots=True)
class Place:
    """A picture in a ranking; ``rank`` is from 1."""

    rank: int
    distance: float
    relevant: bool
    picture: Picture


@dataclass(frozen=True, slots=True)
class Example:
    """A query, what it is worth (average precision) and some of what it found."""

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
    """What was ranked, and who asked. ``unlabelled`` and ``irrelevant`` images were no queries: without a label, and
    with nothing relevant to find; ``alone`` are the labels that no other image shares; ``unreadable`` could not be
    opened; ``copies`` of the queries have the bytes of another image of the collection. ``several_labels`` of the
    queries carry more than one; None where that was not counted.
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
class Evaluation:
    """One index under one metric. ``by_class`` is the mean over classes, each counting alike; ``curve`` the mean
    precision at evenly spaced levels of recall from 0 to 1; ``confusion`` says for each pair of labels in which share
    of the first ten places of the one the other stands wrongly.
    """

    name: str
    extractor: str
    metric: str
    protocol: str  # "leave-one-out" or "query folder"
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

    def figure(self, name: str) -> Figure:
        """One by its name; KeyError."""
        return _named(self.figures, name)


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
    """Two evaluations over their common queries. ``better`` is a name, or None where none can be told."""

    first: str
    second: str
    queries: int
    better: str | None
    sentence: str
    differences: tuple[Difference, ...]
    classes: tuple[ClassDifference, ...]  # the first gains most, ..., the second gains most
    notes: tuple[str, ...]


def to_json(value: Any) -> Any:
    """As JSON has it: dataclasses and mappings become objects; what is only for further computing is left out."""
    if isinstance(value, Evaluation):
        shown = {name: getattr(value, name) for name in Evaluation.__slots__ if name not in ("per_query", "confusion")}
        return {name: to_json(one) for name, one in shown.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: to_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple | list):
        return [to_json(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _named(figures: tuple[Figure, ...], name: str) -> Figure:
    for figure in figures:
        if figure.name == name:
            return figure
    raise KeyError(name)
