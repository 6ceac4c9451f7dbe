"""CSV and Parquet files of features: one column of vectors, or one column for each number."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.exchange.table import (
    ALL_LABELS,
    NONE,
    ROLES,
    ColumnRoles,
    Columns,
    FeatureTable,
    Values,
    known_metric,
)

Kind = Literal["number", "vector", "other"]
Line = tuple[int, list[str]]  # its number in the file, its cells

_MAX_CELL = 2**27  # characters; a vector of 100 000 numbers takes about two millions
_ROW_NUMBERS = {"", "unnamed: 0", "index"}  # names that data frames give to their row numbers
_BRACKETED = re.compile(r"""\s*(?:\w+\(\s*)?(?:['"]\w['"]\s*,\s*)?\[[^\[\]]*\]\s*(?:,[^()\[\]]*)?\)?\s*""")


# -- which columns hold what ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of a file: role -> column, and those of the features, one of vectors or any number of numbers."""

    roles: Mapping[str, str]
    features: Sequence[str]
    vectors: bool

    def unused(self, names: Sequence[str]) -> list[str]:
        used = {*self.roles.values(), *self.features}
        return [name for name in names if name not in used]


def _lay_out(roles: ColumnRoles, kinds: Mapping[str, Kind]) -> _Layout:
    """Choose columns by their names and by the kind of their first value.

    The features are the column asked for or named as usual, or else the only column of vectors, or else all columns of
    numbers that have no other role. IndexingError if that does not decide it.
    """
    vectors = [name for name, kind in kinds.items() if kind == "vector"]
    feature = roles.find("features", among=vectors)
    found = {role: name for role in ROLES if (name := roles.find(role)) is not None}
    if ALL_LABELS in kinds and roles.asked.labels is None:
        found[ALL_LABELS] = ALL_LABELS
    taken = set(found.values())
    vectors = [name for name in vectors if name not in taken]
    if feature is None and len(vectors) > 1:
        raise IndexingError(
            f"{roles.file} has several columns of vectors: {', '.join(vectors)}. Choose one with --features."
        )
    if feature is not None or vectors:
        return _Layout(found, [feature or vectors[0]], vectors=True)
    numbers = [
        name
        for name, kind in kinds.items()
        if kind == "number" and name not in taken and name.lower() not in _ROW_NUMBERS
    ]
    if not numbers or roles.asked.features == NONE:
        raise IndexingError(
            f"{roles.file} has no column of numbers that could be features. It has: "
            f"{', '.join(map(repr, list(kinds)[:20]))}."
        )
    return _Layout(found, numbers, vectors=False)


# -- CSV --------------------------------------------------------------------------------------------------------------


def read_csv(file: Path, columns: Columns) -> FeatureTable:
    """Read a CSV file, with or without a line of column names; IndexingError names the line that is wrong.

    Without names, every cell must be a number or a vector.
    """
    before = csv.field_size_limit(_MAX_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            delimiter = _delimiter(opened.readline(), file)
            opened.seek(0)
            reader = csv.reader(opened, delimiter=delimiter)
            lines = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
            return _read_lines(lines, file, columns)
    except UnicodeDecodeError as error:
        raise IndexingError(f"{file} is not text in UTF-8 (byte {error.start}).") from error
    except (OSError, csv.Error) as error:
        raise IndexingError(f"{file} cannot be read as CSV: {error}.") from error
    finally:
        csv.field_size_limit(before)


def _delimiter(line: str, file: Path) -> str:
    if file.suffix.lower() == ".tsv" or "\t" in line:
        return "\t"
    return ";" if line.count(";") > line.count(",") else ","


def _read_lines(lines: Iterator[Line], file: Path, columns: Columns) -> FeatureTable:
    number, head = next(lines, (0, []))
    if not head:
        raise IndexingError(f"{file} is empty.")
    first = next(lines, None)
    names = _column_names(head, first[1] if first else [], file)
    begin: list[Line] = [first] if first else []
    if names is None:
        names, begin = [str(i) for i in range(1, len(head) + 1)], [(number, head), *begin]
    if not begin:
        raise IndexingError(f"{file} has names of columns but no rows.")
    roles = ColumnRoles(file, columns, names)
    layout = _lay_out(roles, {name: _kind(cell) for name, cell in zip(names, begin[0][1], strict=False)})
    places = [names.index(name) for name in layout.features]
    role_places = {role: names.index(name) for role, name in layout.roles.items()}
    values: Values = {role: [] for role in role_places}
    numbers = array("f")
    dimension = rows = 0
    for number, cells in _chain(begin, lines):
        if len(cells) != len(names):
            raise IndexingError(f"Line {number} of {file} has {len(cells)} columns, where the first has {len(names)}.")
        vector = _vector(cells, names, places, f"Line {number} of {file}", written_out=layout.vectors)
        dimension, rows = dimension or len(vector), rows + 1
        if len(vector) != dimension:
            raise IndexingError(
                f"Line {number} of {file} has a vector of {len(vector)} numbers, where the first has {dimension}."
            )
        numbers.extend(vector)
        for role, place in role_places.items():
            values[role].append(cells[place])
    features = np.frombuffer(numbers, dtype=np.float32).reshape(rows, dimension)
    return roles.table(features, values, layout.unused(names))


def _chain(begin: Sequence[Line], rest: Iterator[Line]) -> Iterator[Line]:
    yield from begin
    yield from rest


def _column_names(head: list[str], first: list[str], file: Path) -> list[str] | None:
    """The names in the first line of a file, or None if it is a row of data. IndexingError if that is not clear.

    Data frames number columns that have no name, so "0,1,2" and "label,0,1,2" are names.
    """
    numbers = [cell.strip() for cell in head if _is_value(cell)]
    words = [cell.strip() for cell in head if not _is_value(cell)]
    numbered = numbers == [str(i) for i in range(len(numbers))]
    if not words:
        if not numbered or len(numbers) < 2 or not first:
            return None
        if all(cell.strip().isdecimal() for cell in first):
            raise IndexingError(
                f"The first line of {file} counts 0, 1, 2, ...: these may be names of columns, or numbers of a "
                "feature. Put a line of names before it, such as f0,f1,f2, or in its place."
            )
    elif numbers and not (numbered and (len(numbers) > 1 or {word.lower() for word in words} <= _ROW_NUMBERS)):
        raise IndexingError(
            f"The first line of {file} holds numbers ({numbers[0][:20]!r}), so there seems to be no line of names. Put "
            "one before it: id, label or path over a column of these, and any word over a column of numbers, e.g. "
            "id,label,f0,f1,f2."
        )
    names = [cell.strip() for cell in head]
    for name in names:
        if names.count(name) > 1:
            raise IndexingError(f"{file} has two columns of the name {name!r}.")
    return names


def _is_value(cell: str) -> bool:
    """Whether a cell of the first line is data. "nan" and "f[0, 1]" may be names."""
    if is_vector(cell):
        return "(" in cell or not cell[:1].isalpha()
    return is_number(cell) and any(map(str.isdigit, cell)) and "_" not in cell  # float() takes "1_2"


def _kind(cell: str) -> Kind:
    if is_vector(cell):
        return "vector"
    return "number" if is_number(cell) or not cell.strip() else "other"


def _vector(cells: list[str], names: list[str], places: list[int], where: str, *, written_out: bool) -> list[float]:
    if written_out:
        try:
            return parse_vector(cells[places[0]])
        except ValueError as error:
            raise IndexingError(f"{where}: the vector in {names[places[0]]!r} {error}.") from error
    try:
        return [float(cells[place]) for place in places]
    except ValueError as error:
        wrong = next(place for place in places if not is_number(cells[place]))
        raise IndexingError(f"{where}: {cells[wrong]!r} in the column {names[wrong]!r} is not a number.") from error


# -- Parquet ----------------------------------------------------------------------------------------------------------


def pyarrow() -> Any:
    """PyArrow with its Parquet module; IndexingError with the command that installs it."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise IndexingError(
            "Parquet needs PyArrow, which is not installed. Install it with: pip install 'searchengine[parquet]'"
        ) from error
    return pyarrow


def read_parquet(file: Path, columns: Columns) -> FeatureTable:
    """Read a Parquet file; IndexingError names the row that is wrong, or says that PyArrow is missing."""
    arrow = pyarrow()
    try:
        with arrow.parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            first = next(opened.iter_batches(batch_size=1), None)
            if first is None or not len(first):
                raise IndexingError(f"{file} has no rows.")
            roles = ColumnRoles(file, columns, schema.names)
            layout = _lay_out(roles, {name: _arrow_kind(arrow, first.column(name)) for name in schema.names})
            table = opened.read([*layout.features, *layout.roles.values()])
    except (OSError, arrow.ArrowException) as error:
        raise IndexingError(f"{file} cannot be read as Parquet: {error}.") from error
    for name in layout.features:
        if table[name].null_count:
            row = int(np.flatnonzero(table[name].is_null().to_numpy())[0]) + 1
            raise IndexingError(f"Row {row} of {file} has nothing in the column {name!r}.")
    if layout.vectors:
        features = _arrow_vectors(arrow, table[layout.features[0]], layout.features[0], file)
    else:
        features = np.column_stack([table[name].to_numpy() for name in layout.features])  # d of (n,) -> (n, d)
    values = {role: table[name].to_pylist() for role, name in layout.roles.items()}
    metric = (schema.metadata or {}).get(b"searchengine.metric", b"").decode("utf-8", "replace")
    return roles.table(features, values, layout.unused(schema.names), known_metric(metric))


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _arrow_kind(arrow: Any, column: Any) -> Kind:
    def is_numeric(kind: Any) -> bool:
        return bool(arrow.types.is_floating(kind) or arrow.types.is_integer(kind))

    if _is_list(arrow, column.type):
        return "vector" if is_numeric(column.type.value_type) else "other"
    if is_numeric(column.type):
        return "number"
    text = column[0].as_py()
    return _kind(text) if isinstance(text, str) and text else "other"


def _arrow_vectors(arrow: Any, column: Any, name: str, file: Path) -> NDArray[Any]:
    """A column of lists, or of vectors written as text -> (n, d)."""
    if _is_list(arrow, column.type):
        lengths = arrow.compute.list_value_length(column).to_numpy()
        values = arrow.compute.list_flatten(column)
        if values.null_count:
            raise IndexingError(f"The column {name!r} of {file} has vectors in which numbers are missing.")
        numbers: NDArray[Any] = values.to_numpy()
    else:
        try:
            vectors = [parse_vector(str(text)) for text in column.to_pylist()]
        except ValueError as error:
            raise IndexingError(f"A vector in the column {name!r} of {file} {error}.") from error
        lengths = np.array([len(vector) for vector in vectors])
        numbers = np.array([number for vector in vectors for number in vector], dtype=np.float64)
    ragged = np.flatnonzero(lengths != lengths[0])
    if len(ragged):
        row = int(ragged[0])
        raise IndexingError(
            f"Row {row + 1} of {file} has a vector of {lengths[row]} numbers, where the first has {lengths[0]}."
        )
    return numbers.reshape(len(lengths), int(lengths[0]))


# -- vectors written as text ------------------------------------------------------------------------------------------


def is_number(text: str) -> bool:
    """Whether a cell holds one number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_vector(text: str) -> bool:
    """Whether a cell holds numbers in brackets, or several numbers without."""
    parts = _numbers(text)
    if _BRACKETED.fullmatch(text):
        return bool(parts) and (is_number(parts[0]) or parts[0] == "...")
    return len(parts) > 1 and all(map(is_number, parts))


def parse_vector(text: str) -> list[float]:
    """The numbers of a cell, as data frames write it: ``array('d', [1.0, 2.0])``, ``[1.0 2.0]``, ``1, 2``.

    ValueError with the end of a sentence about the vector.
    """
    parts = _numbers(text)
    if "..." in text:
        raise ValueError("was cut short by the program that wrote it: it holds '...' in place of numbers")
    if not parts:
        raise ValueError("is empty")
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"holds something else than numbers: {text[:60]!r}") from error


def _numbers(text: str) -> list[str]:
    start, end = text.find("["), text.rfind("]")
    return (text[start + 1 : end] if 0 <= start < end else text).replace(",", " ").split()
