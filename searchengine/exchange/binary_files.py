"""Binary files of features: NumPy's .npy (one array) and .npz (several arrays), and Parquet by PyArrow.

Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import UNREADABLE
from searchengine.errors import IndexingError, import_extra
from searchengine.exchange.csv_files import kind_of_cell, parse_vector
from searchengine.exchange.table import ALL_LABELS, ROLES, ColumnRoles, Columns, FeatureTable, Kind
from searchengine.progress import QUIET, Progress

_ARRAY_NAMES = {"id": "ids", "path": "paths", "label": "labels"}  # column -> array of an exported .npz
_DESCRIPTION = ("extractor", "metric")  # arrays of an exported .npz that hold one text each


# -- NumPy ------------------------------------------------------------------------------------------------------------


def read_npy(file: Path, columns: Columns) -> FeatureTable:
    """Read one array of features as a memory map; IndexingError if that is impossible."""
    if columns.features is not None:
        raise IndexingError(f"{file} holds a single array, so leave out --features.")
    roles = ColumnRoles(file, columns, ())
    for role in ROLES:  # these can only come from separate files
        roles.find(role)
    return roles.table(_matrix(load_array(file), file), {})


def read_npz(file: Path, columns: Columns) -> FeatureTable:
    """Read an archive of arrays: one of features, others with one value per row; IndexingError if impossible."""
    try:
        # NumPy would not close a file that it opened itself if it is not an archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            roles = ColumnRoles(file, columns, archive.files)
            features = roles.find("features") or _only_matrix(archive, file)
            roles.take(features)
            by_role = {role: column for role in ROLES if (column := roles.find(role)) is not None}
            if ALL_LABELS in archive.files:
                by_role[ALL_LABELS] = ALL_LABELS
            used = {features, *by_role.values()}
            metric = None
            if all(name in archive.files and name not in used and _is_text(archive[name]) for name in _DESCRIPTION):
                metric = str(archive["metric"])
                used |= set(_DESCRIPTION)
            return roles.table(
                _matrix(archive[features], file),
                {role: _column(archive[column], column) for role, column in by_role.items()},
                [other for other in archive.files if other not in used],
                metric,
            )
    except UNREADABLE as error:
        raise IndexingError(f"{file} is not an .npz archive of numbers and text: {_reason(error)}") from error


def load_array(file: Path) -> NDArray[Any]:
    """Open the array of an .npy file as a memory map; IndexingError if that is impossible."""
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise IndexingError(f"{file} is not an .npy file of numbers, or it is cut short: {_reason(error)}") from error
    return array


def _only_matrix(archive: Any, file: Path) -> str:
    matrices = [name for name in archive.files if archive[name].ndim == 2 and archive[name].dtype.kind in "fiu"]
    if len(matrices) != 1:
        arrays = ", ".join(f"{name} {archive[name].shape}" for name in archive.files) or "nothing"
        raise IndexingError(f"Name with --features which array of {file} holds the features. It has: {arrays}.")
    return str(matrices[0])


def _column(array: NDArray[Any], name: str) -> list[Any]:
    if array.ndim != 1:
        raise ValueError(f"the array {name!r} has the shape {array.shape}, but needs one value per row.")
    return list(array.tolist())


def _is_text(array: NDArray[Any]) -> bool:
    return array.ndim == 0 and array.dtype.kind == "U"


def _matrix(features: NDArray[Any], file: Path) -> NDArray[Any]:
    """Return the array if it is (n, d); IndexingError otherwise."""
    if features.ndim == 2:
        return features
    advice = {
        0: "A single number is not a feature.",
        1: "If it is one feature, write features.reshape(1, -1).",
    }.get(features.ndim, "Reshape them first, e.g. features.reshape(len(features), -1).")
    raise IndexingError(
        f"The features in {file} have the shape {features.shape}. They need two axes: rows, and the numbers of each "
        f"feature. {advice}"
    )


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text:
        return "it is damaged, or holds Python objects, which are not loaded because loading them can run any program."
    return f"{text or type(error).__name__}."


def write_npz(file: Path, table: FeatureTable, progress: Progress = QUIET) -> None:
    """Write the arrays ``features``, ``ids``, ``paths`` and ``labels``, and the names of the extractor and the metric.

    ``all_labels`` and ``tags``, both of JSON lists, follow if an image has several labels, or tags.
    """
    arrays = {
        _ARRAY_NAMES.get(name, name): np.array(values, dtype=np.int64 if name == "id" else np.str_)
        for name, values in table.columns().items()
    }
    arrays |= {"extractor": np.array(table.extractor), "metric": np.array(table.metric or "")}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(table), table.dimension)}
            np.lib.format.write_array_header_1_0(member, header)
            for _, block in table.blocks():
                member.write(np.ascontiguousarray(block, dtype="<f4").data)
                progress.advance(len(block))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


# -- Parquet ----------------------------------------------------------------------------------------------------------


def pyarrow() -> Any:
    """Import PyArrow with its Parquet module; MissingPackageError names the command that installs it."""
    for module in ("pyarrow.compute", "pyarrow.parquet"):
        import_extra(module, "PyArrow", "parquet")
    return import_extra("pyarrow", "PyArrow", "parquet")


def read_parquet(file: Path, columns: Columns) -> FeatureTable:
    """Read a column of lists, or one column per number; IndexingError names a bad row, MissingPackageError."""
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
    """Turn a column of lists, or of vectors written as text, into (n, d) numbers."""
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
    """Write the columns id, path, labels, tags (if there are any) and features; the metric is metadata."""
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
