"""A table of features, independent of the file format, and the roles of a file's columns."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import UNREADABLE
from searchengine.errors import IndexingError
from searchengine.files import parse_json
from searchengine.index.metrics import METRICS

NONE = "none"  # in place of a column's name: leave it out
ROLES = ("ids", "labels", "paths")
ALL_LABELS = "all_labels"  # an exported column of JSON lists, written if images have several labels
LARGEST_ID = 2**63 - 2**32 - 1  # leaves room for later images; SQLite counts up to 2**63 - 1

Kind = Literal["number", "vector", "other"]
Values = dict[str, list[Any]]  # role or ALL_LABELS -> one value per row

_BLOCK_BYTES = 32 * 2**20
ROW_NUMBERS = {"", "unnamed: 0", "index"}  # what data frames call a column of row numbers

_USUAL_NAMES = {
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
    """The column (or array) of a file for each role. None: a column with a usual name; "none": no column.

    ``ids``, ``labels`` and ``paths`` may also name a separate file with one value per row: .npy, or lines of text.
    """

    features: str | None = None
    ids: str | None = None
    labels: str | None = None
    paths: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features with ids, labels and paths, read from a file or to be written to one.

    Attributes:
        features: (r, d) of any real type; may be a memory map.
        ids: (n,), or None if the file has none.
        labels: the labels of each row, or None.
        paths: the path of each row, or None.
        left_out: names of columns that were not used.
        metric: the metric of the index that was exported to the file; None for other files.
        extractor: a description of what made the features; may be empty.
        rows: (n,) positions in ``features`` of the rows of the table; None for all features.
        tags: what the network sees in each image, if the index knows; only for export.
    """

    features: NDArray[Any]
    ids: NDArray[np.int64] | None = None
    labels: Sequence[tuple[str, ...]] | None = None
    paths: Sequence[str | None] | None = None
    left_out: tuple[str, ...] = ()
    metric: str | None = None
    extractor: str = ""
    rows: NDArray[np.int64] | None = None
    tags: Sequence[list[str]] | None = None

    def __len__(self) -> int:
        return len(self.features if self.rows is None else self.rows)

    @property
    def dimension(self) -> int:
        """The number of values in a feature."""
        return int(self.features.shape[1])

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the features in blocks of (b, d) float32, each with its slice of the table."""
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        for start in range(0, len(self), step):
            part = slice(start, min(start + step, len(self)))
            with np.errstate(over="ignore"):
                block = self.features[part if self.rows is None else self.rows[part]]
                yield part, np.asarray(block).astype(np.float32, copy=False)

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns to export beside the features: id, path and label; the last two may be "".

        If a row has several labels there is ``all_labels``, and if there are tags, ``tags``; both hold JSON lists.
        """
        count = len(self)
        labels = self.labels or [()] * count
        columns: dict[str, list[Any]] = {
            "id": list(range(count)) if self.ids is None else self.ids.tolist(),
            "path": [path or "" for path in self.paths or [""] * count],
            "label": [names[0] if names else "" for names in labels],
        }
        if any(len(names) > 1 for names in labels):
            columns[ALL_LABELS] = [json.dumps(names, ensure_ascii=False) for names in labels]
        if self.tags:
            columns["tags"] = [json.dumps(names) for names in self.tags]
        return columns


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a file by role. The features are one column of ``vectors``, or several columns of numbers."""

    roles: Mapping[str, str]
    features: Sequence[str]
    vectors: bool

    def unused(self, names: Sequence[str]) -> list[str]:
        """Return the columns that have no role."""
        used = {*self.roles.values(), *self.features}
        return [name for name in names if name not in used]


class ColumnRoles:
    """Assigns the columns of a file to roles, and builds the table."""

    def __init__(self, file: Path, requested: Columns, names: Sequence[str]) -> None:
        self.file = file
        self.requested = requested
        self._names = names
        self._taken: set[str] = set()

    def find(self, role: str, *, among: Iterable[str] | None = None) -> str | None:
        """Return the column asked for (IndexingError if it does not exist), or else one with a usual name, if any."""
        requested: str | None = getattr(self.requested, role)
        if requested is None:
            free = {name.lower(): name for name in (self._names if among is None else among)}
            usual = (free[name] for name in _USUAL_NAMES[role] if name in free)
            column = next((name for name in usual if name not in self._taken), None)
        elif requested == NONE or self._separate_file(role) is not None:
            column = None
        elif requested in self._names:
            column = requested
        else:
            raise IndexingError(self._no_such_column(requested, role))
        if column is not None:
            self._taken.add(column)
        return column

    def take(self, column: str) -> None:
        """Reserve a column, so that it is not found for another role."""
        self._taken.add(column)

    def lay_out(self, kinds: Mapping[str, Kind]) -> Layout:
        """Assign columns to roles by their names and by the kind of their first value.

        The features are the column asked for or with a usual name, or else the only column of vectors, or else all
        columns of numbers without another role. IndexingError if none of these applies.
        """
        vectors = [name for name, kind in kinds.items() if kind == "vector"]
        feature = self.find("features", among=vectors)
        columns = {role: name for role in ROLES if (name := self.find(role)) is not None}
        if ALL_LABELS in kinds and self.requested.labels is None:
            columns[ALL_LABELS] = ALL_LABELS
        taken = set(columns.values())
        vectors = [name for name in vectors if name not in taken]
        if feature is None and len(vectors) > 1:
            raise IndexingError(
                f"{self.file} has several columns of vectors: {', '.join(vectors)}. Choose one with --features."
            )
        if feature is not None or vectors:
            return Layout(columns, [feature or vectors[0]], vectors=True)
        numbers = [
            name
            for name, kind in kinds.items()
            if kind == "number" and name not in taken and name.lower() not in ROW_NUMBERS
        ]
        if not numbers or self.requested.features == NONE:
            raise IndexingError(
                f"{self.file} has no column of numbers that could be features. It has: "
                f"{', '.join(map(repr, list(kinds)[:20]))}."
            )
        return Layout(columns, numbers, vectors=False)

    def table(
        self, features: NDArray[Any], values: Values, left_out: Iterable[str] = (), metric: str | None = None
    ) -> FeatureTable:
        """Build the table from features and values, including values in separate files.

        IndexingError for an invalid value. An unknown ``metric`` is ignored.
        """
        values = dict(values)
        for role in ROLES:
            separate = self._separate_file(role)
            if separate is not None:
                values[role] = _read_values(separate, role)
        for role, column in values.items():
            if len(column) != len(features):
                raise IndexingError(
                    f"{self.file} has {len(features)} rows of features, but {len(column)} {role.replace('_', ' ')}."
                )
        labels = [_labels(value) for value in values["labels"]] if "labels" in values else None
        if ALL_LABELS in values and self.requested.labels is None:
            labels = [_labels_of_json(str(value), self.file) for value in values[ALL_LABELS]]
        return FeatureTable(
            features,
            ids=_ids(values["ids"], self.file) if "ids" in values else None,
            labels=labels,
            paths=[_text(value) for value in values["paths"]] if "paths" in values else None,
            left_out=tuple(left_out),
            metric=metric if metric in METRICS else None,
        )

    def _separate_file(self, role: str) -> Path | None:
        requested: str | None = getattr(self.requested, role)
        if role not in ROLES or requested is None or requested == NONE or requested in self._names:
            return None
        file = Path(requested).expanduser()
        return file if file.is_file() else None

    def _no_such_column(self, name: str, role: str) -> str:
        if not self._names:
            return (
                f"{self.file} has no named columns, so there is no {name!r}. Give a file to --{role}, or leave it out."
            )
        close = difflib.get_close_matches(name, self._names, n=1)
        names = [*close, *(other for other in self._names if other not in close)]
        shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        return f"There is no column {name!r} in {self.file}. It has: {shown}."


def _read_values(file: Path, role: str) -> list[Any]:
    try:
        if file.suffix != ".npy":
            return list(file.read_text("utf-8").splitlines())
        values: NDArray[Any] = np.load(file, allow_pickle=False)
    except UNREADABLE as error:
        raise IndexingError(f"{file} cannot be read: {error}.") from error
    if values.ndim != 1:
        raise IndexingError(f"{file} has the shape {values.shape}; --{role} needs one value per row.")
    return list(values.tolist())


# -- values -----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    """Return a value as text, or None if it is missing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace") or None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers are floats in a column with a missing value
    return str(value)


def _labels(value: Any) -> tuple[str, ...]:
    """Return the labels of a value, which is one label or a list of them."""
    values = value if isinstance(value, list | tuple | np.ndarray) else [value]
    return tuple(text for text in map(_text, values) if text)


def _labels_of_json(text: str, file: Path) -> tuple[str, ...]:
    try:
        labels = parse_json(text)
        if not isinstance(labels, list) or not all(isinstance(label, str | int | float) for label in labels):
            raise ValueError("not a list of labels")
    except ValueError as error:
        raise IndexingError(f"The column {ALL_LABELS!r} of {file} is not a list of labels: {text[:80]!r}.") from error
    return tuple(map(str, labels))


def _ids(values: Sequence[Any], file: Path) -> NDArray[np.int64]:
    advice = f"Ids are whole numbers from 0 to {LARGEST_ID}, all different; --ids none numbers the rows instead."
    rows: dict[int, int] = {}
    for row, value in enumerate(values):
        try:
            id_ = int(_text(value) or "")
        except ValueError as error:
            raise IndexingError(f"Row {row + 1} of {file} has the id {value!r}. {advice}") from error
        if not 0 <= id_ <= LARGEST_ID:
            raise IndexingError(f"Row {row + 1} of {file} has the id {id_}. {advice}")
        if id_ in rows:
            raise IndexingError(f"Rows {rows[id_] + 1} and {row + 1} of {file} have the same id {id_}. {advice}")
        rows[id_] = row
    return np.fromiter(rows, dtype=np.int64, count=len(rows))
