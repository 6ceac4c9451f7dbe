"""A file of features -> a table: .npy and .npz here, CSV and Parquet in rooms of their own."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError, QueryError
from searchengine.exchange.table import ALL_LABELS, WORDS, Columns, FeatureTable, Roles, assemble, known_metric
from searchengine.exchange.vectors import parse_vector

_FORMATS = ".npy, .npz, .parquet, .csv and .tsv"


def read_features(file: Path, columns: Columns | None = None) -> FeatureTable:
    """Read a file of ready-made features; its ending says what it is.

    Nothing is unpickled. IndexingError, with a sentence, for a file that is missing, damaged, of another format or
    shape, and for a column that is not there.
    """
    columns = columns or Columns()
    if not file.is_file():
        raise IndexingError(f"There is no file {file}. Give a file of features: {_FORMATS}.")
    kind = file.suffix.lower()
    if kind == ".npy":
        table = _read_npy(file, columns)
    elif kind == ".npz":
        table = _read_npz(file, columns)
    elif kind in {".csv", ".tsv", ".txt"}:
        from searchengine.exchange.csv_reading import read_csv

        table = read_csv(file, columns)
    elif kind in {".parquet", ".pq"}:
        from searchengine.exchange.parquet_reading import read_parquet

        table = read_parquet(file, columns)
    else:
        raise IndexingError(f"{file} has no ending that tells what it is. Features are read from {_FORMATS}.")
    _check_features(table.features, file)
    return table


def read_vectors(source: str) -> NDArray[np.float32]:
    """Query vectors from a .npy file, or from text ("-": from standard input), one vector a line -> (m, d) float32.

    QueryError, with a sentence, for what is no such thing.
    """
    try:
        if source == "-":
            return _vectors_of_lines(sys.stdin, "standard input")
        file = Path(source).expanduser()
        if file.suffix.lower() != ".npy":
            with file.open(encoding="utf-8") as lines:
                return _vectors_of_lines(lines, source)
        with np.errstate(over="ignore"):
            return np.atleast_2d(_real(_load(file), source).astype(np.float32))
    except OSError as error:
        raise QueryError(
            f"{source} cannot be read: {error.strerror or error}. Give a file (.npy, or text), or - for standard input."
        ) from error
    except (ValueError, TypeError, EOFError, IndexingError) as error:
        raise QueryError(f"{source} holds no vector: {error}") from error


def _real(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind not in "fiu":
        raise QueryError(f"The numbers in {name} are of the type {array.dtype}, and real numbers are wanted.")
    return array


def _vectors_of_lines(lines: IO[str], name: str) -> NDArray[np.float32]:
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(parse_vector(line))
            except ValueError as error:
                raise QueryError(f"Line {number} of {name} {error}.") from error
    if not rows:
        raise QueryError(f"{name} is empty. Write a vector a line: numbers with spaces or commas between.")
    if len({len(row) for row in rows}) > 1:
        raise QueryError(f"The lines of {name} have vectors of different lengths.")
    with np.errstate(over="ignore"):
        return np.stack(rows).astype(np.float32)  # m of (d,) -> (m, d)


def _load(file: Path) -> NDArray[Any]:
    try:
        loaded: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IndexingError(f"{file} is no .npy file of numbers, or is cut short: {_reason(error)}") from error
    return loaded


def _read_npy(file: Path, columns: Columns) -> FeatureTable:
    if columns.features is not None:
        raise IndexingError(f"{file} holds a single array: leave out --features.")
    return assemble(_with_files(Roles(file, columns, ())), _rows(_load(file), file), {})


def _read_npz(file: Path, columns: Columns) -> FeatureTable:
    try:
        # NumPy leaves a file open that it opened itself and that is no archive
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            roles = Roles(file, columns, archive.files)
            name = roles.find("features") or _only_matrix(archive, file)
            roles.taken["features"] = name
            found = {role: roles.find(role) for role in ("ids", "labels", "paths")}
            values: dict[str, Any] = {role: _one_each(archive[key], key) for role, key in found.items() if key}
            if ALL_LABELS in archive.files:
                values[ALL_LABELS] = _one_each(archive[ALL_LABELS], ALL_LABELS)
            used = {name, ALL_LABELS, *filter(None, found.values())}
            metric = None
            if set(WORDS) <= set(archive.files) - used and all(_is_text(archive[word]) for word in WORDS):
                metric = known_metric(str(archive["metric"]))
                used |= set(WORDS)
            left_out = [other for other in archive.files if other not in used]
            return replace(assemble(roles, _rows(archive[name], file), values, left_out), metric=metric)
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise IndexingError(f"{file} is no .npz archive of numbers and text: {_reason(error)}") from error


def _only_matrix(archive: Any, file: Path) -> str:
    matrices = [name for name in archive.files if archive[name].ndim == 2 and archive[name].dtype.kind in "fiu"]
    if len(matrices) != 1:
        told = ", ".join(f"{name} {archive[name].shape}" for name in archive.files) or "nothing"
        raise IndexingError(f"Say with --features which array of {file} holds the features. It has: {told}.")
    return str(matrices[0])


def _one_each(array: NDArray[Any], name: str) -> list[Any]:
    if array.ndim != 1:
        raise ValueError(f"the array {name!r} has the shape {array.shape}, and one value a row is wanted.")
    return list(array.tolist())


def _with_files(roles: Roles) -> Roles:
    """Refuse names of columns where there can be only files."""
    for role in ("ids", "labels", "paths"):
        roles.find(role)
    return roles


def _is_text(array: NDArray[Any]) -> bool:
    return array.ndim == 0 and array.dtype.kind == "U"


def _rows(features: NDArray[Any], file: Path) -> NDArray[Any]:
    """The array itself, if it is (n, d); IndexingError."""
    if features.ndim == 2:
        return features
    advice = {
        0: "A single number is no feature.",
        1: "If it is one feature, write features.reshape(1, -1).",
    }.get(features.ndim, "Reshape them first, e.g. features.reshape(len(features), -1).")
    raise IndexingError(
        f"The features in {file} have the shape {features.shape}, and (rows, numbers in a feature) is wanted. {advice}"
    )


def _check_features(features: NDArray[Any], file: Path) -> None:
    if features.dtype.kind not in "fiu":
        raise IndexingError(f"The features in {file} are of the type {features.dtype}, and real numbers are wanted.")
    if 0 in features.shape:
        raise IndexingError(f"The features in {file} have the shape {features.shape}: there is nothing to import.")


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text:
        return (
            "either it is damaged or of another kind, or it holds Python objects, which are not loaded because loading "
            "them can run any program."
        )
    return f"{text or type(error).__name__}."
