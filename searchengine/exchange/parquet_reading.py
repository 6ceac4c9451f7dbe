"""Parquet -> a table: a column of lists, of vectors written as text, or a column of numbers each. By PyArrow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.exchange.csv_reading import choose_columns
from searchengine.exchange.table import Columns, FeatureTable, Roles, assemble, known_metric
from searchengine.exchange.vectors import parse_vector


def pyarrow() -> Any:
    """The library, or a sentence that says how to get it; with its ``parquet`` part loaded."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise IndexingError(
            "Parquet needs PyArrow, which is not installed. Install it with: pip install 'searchengine[parquet]'"
        ) from error
    return pyarrow


def read_parquet(file: Path, columns: Columns) -> FeatureTable:
    """Read a Parquet file; IndexingError with the row that is wrong, or without PyArrow."""
    arrow = pyarrow()
    try:
        opened = arrow.parquet.ParquetFile(file)
    except (OSError, arrow.ArrowException) as error:
        raise IndexingError(f"{file} is no Parquet file: {error}.") from error
    with opened:
        try:
            return _read(arrow, opened, file, columns)
        except (OSError, arrow.ArrowException) as error:
            raise IndexingError(f"{file} cannot be read: {error}.") from error


def _read(arrow: Any, opened: Any, file: Path, columns: Columns) -> FeatureTable:
    schema = opened.schema_arrow
    names = list(schema.names)
    first: dict[str, str] = {}
    for batch in opened.iter_batches(batch_size=1):
        first = {name: _as_cell(arrow, batch.column(name)) for name in names}
        break
    roles = Roles(file, columns, names)
    found, wide, places = choose_columns(roles, names, first)
    values: dict[str, list[Any]] = {role: [] for role in found}
    chunks: list[NDArray[Any]] = []
    done = 0
    features = [names[place] for place in places]
    for batch in opened.iter_batches(batch_size=4096, columns=[*features, *found.values()]):
        parts = [_numbers(arrow, batch.column(name), name, file, done, wide) for name in features]
        chunk = np.column_stack(parts) if wide else parts[0]  # d of (n,) -> (n, d)
        if chunks and chunk.shape[1] != chunks[0].shape[1]:
            _ragged(file, done, chunk.shape[1], chunks[0].shape[1])
        chunks.append(chunk)
        for role, name in found.items():
            values[role] += batch.column(name).to_pylist()
        done += len(chunk)
    if not chunks:
        raise IndexingError(f"{file} has no rows.")
    used = {*features, *found.values()}
    metric = known_metric((schema.metadata or {}).get(b"searchengine.metric", b"").decode("utf-8", "replace"))
    left_out = [name for name in names if name not in used]
    return replace(assemble(roles, np.concatenate(chunks), values, left_out), metric=metric)


def _as_cell(arrow: Any, column: Any) -> str:
    """The first value of a column, as a CSV file would have it, to tell what the column holds."""
    kind = column.type
    if _is_list(arrow, kind):
        numeric = arrow.types.is_floating(kind.value_type) or arrow.types.is_integer(kind.value_type)
        return "[0 0]" if numeric else "list"
    value = column[0].as_py()
    if arrow.types.is_floating(kind) or arrow.types.is_integer(kind):
        return "0"
    return value if isinstance(value, str) and value else "text"


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _numbers(arrow: Any, column: Any, name: str, file: Path, done: int, wide: bool) -> NDArray[Any]:
    """One column of a batch: (n,) where each number has its own, else (n, d)."""
    if column.null_count:
        row = done + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]) + 1
        raise IndexingError(f"Row {row} of {file} has nothing in the column {name!r}.")
    if wide:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if not _is_list(arrow, column.type):
        try:
            rows = [parse_vector(str(text)) for text in column.to_pylist()]
        except ValueError as error:
            raise IndexingError(f"A vector in the column {name!r} of {file} {error}.") from error
        lengths = np.array([len(row) for row in rows])
        flat: NDArray[Any] = np.concatenate(rows)
    else:
        lengths = np.asarray(column.value_lengths().to_numpy(zero_copy_only=False))
        values = column.flatten()
        if values.null_count:
            raise IndexingError(f"The column {name!r} of {file} has vectors in which numbers are missing.")
        flat = np.asarray(values.to_numpy(zero_copy_only=False))
    wrong = np.flatnonzero(lengths != lengths[0])
    if len(wrong):
        _ragged(file, done + int(wrong[0]), int(lengths[wrong[0]]), int(lengths[0]))
    return flat.reshape(len(lengths), int(lengths[0]))


def _ragged(file: Path, row: int, length: int, first: int) -> None:
    raise IndexingError(f"Row {row + 1} of {file} has a vector of {length} numbers, where the first has {first}.")
