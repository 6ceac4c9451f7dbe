"""Parquet files of features, by PyArrow: a column of lists, or one column for each number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError, import_extra
from searchengine.exchange.csv_files import kind_of_cell, parse_vector
from searchengine.exchange.table import ColumnRoles, Columns, FeatureTable, Kind
from searchengine.progress import QUIET, Progress


def pyarrow() -> Any:
    """PyArrow with its Parquet module; MissingPackageError with the command that installs it."""
    for module in ("pyarrow.compute", "pyarrow.parquet"):
        import_extra(module, "PyArrow", "parquet")
    return import_extra("pyarrow", "PyArrow", "parquet")


def read_parquet(file: Path, columns: Columns) -> FeatureTable:
    """Read a Parquet file; IndexingError names the row that is wrong, MissingPackageError."""
    arrow = pyarrow()
    try:
        with arrow.parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            first = next(opened.iter_batches(batch_size=1), None)
            if first is None or not len(first):
                raise IndexingError(f"{file} has no rows.")
            roles = ColumnRoles(file, columns, schema.names)
            layout = roles.lay_out({name: _arrow_kind(arrow, first.column(name)) for name in schema.names})
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
    return roles.table(features, values, layout.unused(schema.names), metric)


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
    return kind_of_cell(text) if isinstance(text, str) and text else "other"


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


def write_parquet(file: Path, table: FeatureTable, progress: Progress = QUIET) -> None:
    """Write the columns id, path, labels and perhaps tags (lists), and features, and the metric as metadata."""
    arrow = pyarrow()
    dimension = table.dimension
    text = arrow.string()
    schema = arrow.schema(
        [
            ("id", arrow.int64()),
            ("path", text),
            ("labels", arrow.list_(text)),
            *([("tags", arrow.list_(text))] if table.tags else []),
            ("features", arrow.list_(arrow.float32(), dimension)),
        ],
        metadata={"searchengine.extractor": table.extractor, "searchengine.metric": table.metric or ""},
    )
    columns = table.columns()
    labels = table.labels or [()] * len(table)
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        for part, block in table.blocks():
            numbers = arrow.array(np.ascontiguousarray(block).reshape(-1), arrow.float32())  # (b, d) -> (b * d,)
            arrays = [
                arrow.array(columns["id"][part]),
                arrow.array([path or None for path in columns["path"][part]], text),
                arrow.array(map(list, labels[part]), arrow.list_(text)),
                *([arrow.array(table.tags[part], arrow.list_(text))] if table.tags else []),
                arrow.FixedSizeListArray.from_arrays(numbers, dimension),
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            progress.advance(len(block))
