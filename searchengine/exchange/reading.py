"""A file of features -> a table: .npy and .npz are read here, CSV and Parquet in ``tabular``; query vectors too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import UNREADABLE
from searchengine.errors import IndexingError, QueryError
from searchengine.exchange.table import ALL_LABELS, ROLES, WORDS, ColumnRoles, Columns, FeatureTable, known_metric
from searchengine.exchange.tabular import parse_vector, read_csv, read_parquet

_FORMATS = ".npy, .npz, .parquet, .csv and .tsv"


def read_features(file: Path, columns: Columns | None = None) -> FeatureTable:
    """Read a file of ready-made features; its suffix names the format. Nothing is unpickled.

    Raises:
        IndexingError: the file is missing, damaged, of another format or shape, or lacks a column that was named.
    """
    columns = columns or Columns()
    if not file.is_file():
        raise IndexingError(f"There is no file {file}. Give a file of features: {_FORMATS}.")
    match file.suffix.lower():
        case ".npy":
            table = _read_npy(file, columns)
        case ".npz":
            table = _read_npz(file, columns)
        case ".csv" | ".tsv" | ".txt":
            table = read_csv(file, columns)
        case ".parquet" | ".pq":
            table = read_parquet(file, columns)
        case _:
            raise IndexingError(f"{file} does not end in a format that can be read: {_FORMATS}.")
    features = table.features
    if features.dtype.kind not in "fiu":
        raise IndexingError(f"The features in {file} are of the type {features.dtype}; they must be real numbers.")
    if 0 in features.shape:
        raise IndexingError(f"The features in {file} have the shape {features.shape}: there is nothing to import.")
    return table


# -- NumPy ------------------------------------------------------------------------------------------------------------


def _read_npy(file: Path, columns: Columns) -> FeatureTable:
    if columns.features is not None:
        raise IndexingError(f"{file} holds a single array: leave out --features.")
    roles = ColumnRoles(file, columns, ())
    for role in ROLES:  # only separate files will do
        roles.find(role)
    return roles.table(_matrix(_load(file), file), {})


def _read_npz(file: Path, columns: Columns) -> FeatureTable:
    try:
        # NumPy does not close a file that it has opened itself and that is not an archive
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            roles = ColumnRoles(file, columns, archive.files)
            name = roles.find("features") or _only_matrix(archive, file)
            roles.take(name)
            found = {role: column for role in ROLES if (column := roles.find(role)) is not None}
            if ALL_LABELS in archive.files:
                found[ALL_LABELS] = ALL_LABELS
            used = {name, *found.values()}
            metric = None
            if all(word in archive.files and word not in used and _is_text(archive[word]) for word in WORDS):
                metric = known_metric(str(archive["metric"]))
                used |= set(WORDS)
            return roles.table(
                _matrix(archive[name], file),
                {role: _column(archive[column], column) for role, column in found.items()},
                [other for other in archive.files if other not in used],
                metric,
            )
    except UNREADABLE as error:
        raise IndexingError(f"{file} is not an .npz archive of numbers and text: {_reason(error)}") from error


def _load(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise IndexingError(f"{file} is not an .npy file of numbers, or is cut short: {_reason(error)}") from error
    return array


def _only_matrix(archive: Any, file: Path) -> str:
    matrices = [name for name in archive.files if archive[name].ndim == 2 and archive[name].dtype.kind in "fiu"]
    if len(matrices) != 1:
        arrays = ", ".join(f"{name} {archive[name].shape}" for name in archive.files) or "nothing"
        raise IndexingError(f"Say with --features which array of {file} holds the features. It has: {arrays}.")
    return str(matrices[0])


def _column(array: NDArray[Any], name: str) -> list[Any]:
    if array.ndim != 1:
        raise ValueError(f"the array {name!r} has the shape {array.shape}, but must have one value for each row.")
    return list(array.tolist())


def _is_text(array: NDArray[Any]) -> bool:
    return array.ndim == 0 and array.dtype.kind == "U"


def _matrix(features: NDArray[Any], file: Path) -> NDArray[Any]:
    """The array itself if it is (n, d); IndexingError."""
    if features.ndim == 2:
        return features
    advice = {
        0: "A single number is not a feature.",
        1: "If it is one feature, write features.reshape(1, -1).",
    }.get(features.ndim, "Reshape them first, e.g. features.reshape(len(features), -1).")
    raise IndexingError(
        f"The features in {file} have the shape {features.shape}, but must have two axes: rows, and the numbers of a "
        f"feature. {advice}"
    )


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text:
        return "it is damaged, or holds Python objects, which are not loaded because loading them can run any program."
    return f"{text or type(error).__name__}."


# -- query vectors ----------------------------------------------------------------------------------------------------


def read_vectors(source: str) -> NDArray[np.float32]:
    """Query vectors from a .npy file, or from text with one vector a line ("-": standard input) -> (m, d) float32.

    Raises:
        QueryError: the source cannot be read, or does not hold vectors of one length.
    """
    try:
        if source == "-":
            return _parse_lines(sys.stdin, "standard input")
        file = Path(source).expanduser()
        if file.suffix.lower() != ".npy":
            with file.open(encoding="utf-8") as lines:
                return _parse_lines(lines, source)
        array = _load(file)
        if array.dtype.kind not in "fiu":
            raise QueryError(f"The numbers in {source} are of the type {array.dtype}; they must be real numbers.")
        with np.errstate(over="ignore"):
            return np.atleast_2d(array.astype(np.float32))
    except OSError as error:
        raise QueryError(
            f"{source} cannot be read: {error.strerror or error}. Give a file (.npy, or text), or - for standard input."
        ) from error
    except (ValueError, TypeError, EOFError, IndexingError) as error:
        raise QueryError(f"{source} does not hold a vector: {error}") from error


def _parse_lines(lines: IO[str], name: str) -> NDArray[np.float32]:
    vectors = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                vectors.append(parse_vector(line))
            except ValueError as error:
                raise QueryError(f"Line {number} of {name} {error}.") from error
    if not vectors:
        raise QueryError(f"{name} is empty. Write one vector a line, with spaces or commas between the numbers.")
    if len({len(vector) for vector in vectors}) > 1:
        raise QueryError(f"The lines of {name} have vectors of different lengths.")
    with np.errstate(over="ignore"):
        return np.array(vectors, dtype=np.float64).astype(np.float32)  # (m, d)
