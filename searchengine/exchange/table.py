"""What a file of features holds, whatever its format, and which of its columns is what."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.index.metrics import METRICS

NONE = "none"  # said of a column: leave it out
ALL_LABELS = "all_labels"  # a column of JSON lists, written by the export where an image has several labels
WORDS = ("extractor", "metric")  # written by the export, one for all rows
LARGEST_ID = 2**63 - 2**32 - 1  # so that others can follow: SQLite counts to 2**63 - 1

_KNOWN = {
    "features": (
        "features", "feature", "deep_features", "embeddings", "embedding", "vectors", "vector", "image_features", "x",
    ),
    "ids": ("ids", "id", "image_ids", "image_id"),
    "labels": ("labels", "label", "classes", "class", "targets", "target", "categories", "category", "y"),
    "paths": (
        "paths", "path", "files", "file", "filenames", "filename", "file_names", "file_name", "image_paths",
        "image_path",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column (or array) of the file is what. None: the one that has a usual name; "none": leave it out.

    ``ids``, ``labels`` and ``paths`` may also name a file: .npy, or text with one a line, in the order of the rows.
    """

    features: str | None = None
    ids: str | None = None
    labels: str | None = None
    paths: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features with what is known of each. ``features`` is (n, d), of any real type, and may be a memory map.

    ``ids`` and ``paths`` are None where the file has none; ``left_out`` are columns that were not used. ``metric`` is
    that of the index that was exported to the file, None for any other file.
    """

    features: NDArray[Any]
    ids: NDArray[np.int64] | None = None
    labels: Sequence[tuple[str, ...]] | None = None
    paths: Sequence[str | None] | None = None
    left_out: tuple[str, ...] = ()
    metric: str | None = None


@dataclass(slots=True)
class Roles:
    """The names that were found for each role; None where there is none."""

    file: Path
    asked: Columns
    available: Sequence[str]
    taken: dict[str, str] = field(default_factory=dict)

    def find(self, role: str, *, among: Iterable[str] | None = None) -> str | None:
        """The column of a role: the one that was asked for, or one with a usual name; IndexingError for a wrong one."""
        asked: str | None = getattr(self.asked, role)
        if asked == NONE:
            return None
        if asked is not None and asked in self.available:
            self.taken[role] = asked
            return asked
        if asked is not None:
            if role != "features" and Path(asked).expanduser().is_file():
                return None  # see ``beside``
            raise IndexingError(self.no_such(asked, role))
        free = {name.lower(): name for name in (self.available if among is None else among)}
        for usual in _KNOWN[role]:
            if usual in free and free[usual] not in self.taken.values():
                self.taken[role] = free[usual]
                return free[usual]
        return None

    def no_such(self, name: str, role: str) -> str:
        """A sentence for a column that is not there."""
        if not self.available:
            return f"{self.file} has no named columns, so there is no {name!r}. Give a file for --{role}, or leave it."
        close = difflib.get_close_matches(name, self.available, n=1)
        names = [*close, *(other for other in self.available if other not in close)]
        shown = ", ".join(repr(one) for one in names[:20]) + (", ..." if len(names) > 20 else "")
        return f"There is no column {name!r} in {self.file}. It has: {shown}."

    def beside(self, role: str) -> list[Any] | None:
        """The values in a file of its own that was named for a role, if one was."""
        asked: str | None = getattr(self.asked, role)
        if asked is None or asked == NONE or asked in self.available:
            return None
        file = Path(asked).expanduser()
        try:
            if file.suffix == ".npy":
                array: Any = np.load(file, allow_pickle=False)
                if array.ndim != 1:
                    raise IndexingError(f"{file} has the shape {array.shape}; for --{role} one value a row is wanted.")
                return list(array.tolist())
            return file.read_text("utf-8").splitlines()
        except (OSError, ValueError, EOFError) as error:
            raise IndexingError(f"{file} cannot be read: {error}.") from error


def assemble(
    roles: Roles, features: NDArray[Any], values: Mapping[str, Sequence[Any]], left_out: Iterable[str] = ()
) -> FeatureTable:
    """Put a table together from its columns, by role; ``values`` also has what is called "all_labels"."""
    rows = len(features)
    columns: dict[str, Sequence[Any]] = dict(values)
    for role in ("ids", "labels", "paths"):
        given = roles.beside(role)
        if given is not None:
            columns[role] = given
    for role, column in columns.items():
        if len(column) != rows:
            raise IndexingError(
                f"{roles.file} has {rows} rows of features, but {len(column)} {role.replace('_', ' ')}."
            )
    every = columns.get(ALL_LABELS)
    labels = [_label(value) for value in columns["labels"]] if "labels" in columns else None
    if every is not None and roles.asked.labels is None:
        labels = [_labels_of_json(str(value), roles.file) for value in every]
    return FeatureTable(
        features,
        ids=_ids(columns["ids"], roles.file) if "ids" in columns else None,
        labels=labels,
        paths=[_text(value) for value in columns["paths"]] if "paths" in columns else None,
        left_out=tuple(left_out),
    )


def known_metric(name: str) -> str | None:
    """The name itself, if there is such a metric."""
    return name if name in METRICS else None


def _label(value: Any) -> tuple[str, ...]:
    """One label or, of a list, several."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(text for text in (_text(one) for one in value) if text)
    text = _text(value)
    return (text,) if text else ()


def _labels_of_json(text: str, file: Path) -> tuple[str, ...]:
    try:
        return tuple(str(label) for label in json.loads(text))
    except (TypeError, ValueError) as error:
        raise IndexingError(f"The column {ALL_LABELS!r} of {file} is no list of labels: {text[:80]!r}.") from error


def _text(value: Any) -> str | None:
    """A value as text; None for what is missing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace") or None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers in which one was missing
    return str(value)


def _ids(values: Sequence[Any], file: Path) -> NDArray[np.int64]:
    advice = "Ids are whole numbers from 0 up, each but once; --ids none numbers the rows instead."
    ids = np.empty(len(values), dtype=np.int64)
    seen: dict[int, int] = {}
    for row, value in enumerate(values):
        text = _text(value)
        try:
            number = int(text or "")
        except ValueError as error:
            raise IndexingError(f"Row {row + 1} of {file} has the id {value!r}. {advice}") from error
        if number > LARGEST_ID:
            raise IndexingError(
                f"Row {row + 1} of {file} has the id {number}, and the largest is {LARGEST_ID}. {advice}"
            )
        if number < 0:
            raise IndexingError(f"Row {row + 1} of {file} has the id {number}. {advice}")
        if number in seen:
            raise IndexingError(f"Rows {seen[number] + 1} and {row + 1} of {file} have the same id {number}. {advice}")
        seen[number] = row
        ids[row] = number
    return ids
