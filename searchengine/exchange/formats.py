"""The formats of feature files, with the functions that read and write them. Query vectors are read here too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError, QueryError
from searchengine.exchange.binary_files import load_array, read_npy, read_npz, read_parquet, write_npz, write_parquet
from searchengine.exchange.csv_files import parse_vector, read_csv, write_csv
from searchengine.exchange.table import Columns, FeatureTable
from searchengine.files import output_file
from searchengine.index.protocol import Index, images_by_row
from searchengine.progress import QUIET, Progress
from searchengine.text.words import known_tags

_READERS: dict[str, Callable[[Path, Columns], FeatureTable]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".pq": read_parquet,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_csv,
}
_WRITERS: dict[str, Callable[[Path, FeatureTable, Progress], None]] = {
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".csv": write_csv,
}
_READABLE = ".npy, .npz, .parquet, .csv and .tsv"


def read_features(file: Path, columns: Columns | None = None) -> FeatureTable:
    """Read a file of ready-made features in the format of its suffix. Nothing is unpickled.

    Raises:
        IndexingError: the file is missing or damaged, has another format or shape, or lacks a column that was named.
    """
    columns = columns or Columns()
    if not file.is_file():
        raise IndexingError(f"There is no file {file}. Give a file of features: {_READABLE}.")
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise IndexingError(f"The format of {file} cannot be read. Use one of {_READABLE}.")
    table = read(file, columns)
    features = table.features
    if features.dtype.kind not in "fiu":
        raise IndexingError(f"The features in {file} have the type {features.dtype}; they must be real numbers.")
    if 0 in features.shape:
        raise IndexingError(f"The features in {file} have the shape {features.shape}, so there is nothing to import.")
    return table


# -- export -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written; ``bytes`` is its size."""

    file: str
    rows: int
    dimension: int
    bytes: int


def export_index(index: Index, file: Path, progress: Progress = QUIET) -> Exported:
    """Write an index to a file, ordered by id, in the format of the suffix. The file appears once it is complete.

    See ``write_npz``, ``write_parquet`` and ``write_csv`` for the contents.

    Raises:
        IndexingError: the suffix names no format, PyArrow is missing for Parquet, or the file cannot be written.
    """
    write = _WRITERS.get(file.suffix.lower())
    if write is None:
        raise IndexingError(f"{file} must end in one of {', '.join(_WRITERS)}, which names the format.")
    table = _table_of(index)
    progress.start(len(table))
    with output_file(file) as part:
        write(part, table, progress)
    return Exported(str(file), len(table), table.dimension, file.stat().st_size)


def _table_of(index: Index) -> FeatureTable:
    state = index.state()
    images = images_by_row(index, state)
    rows, records = np.array(list(images), dtype=np.int64), list(images.values())
    ids = state.ids[rows]
    tags = known_tags(index)
    return FeatureTable(
        state.rows,
        ids=ids,
        labels=[record.labels for record in records],
        paths=[None if record.path == f"#{record.id}" else record.path for record in records],
        metric=state.metric,
        extractor=index.manifest("extractor") or "",
        rows=rows,
        tags=[tags.get(id_, []) for id_ in ids.tolist()] if tags else None,
    )


# -- query vectors ----------------------------------------------------------------------------------------------------


def read_vectors(source: str) -> NDArray[np.float32]:
    """Read query vectors from an .npy file, a text file or standard input ("-") -> (m, d) float32.

    Text has one vector per line.

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
        array = load_array(file)
        if array.dtype.kind not in "fiu":
            raise QueryError(f"The numbers in {source} have the type {array.dtype}; they must be real numbers.")
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
        raise QueryError(f"{name} is empty. Write one vector per line, with spaces or commas between the numbers.")
    if len({len(vector) for vector in vectors}) > 1:
        raise QueryError(f"The lines of {name} have vectors of different lengths.")
    with np.errstate(over="ignore"):
        return np.array(vectors, dtype=np.float64).astype(np.float32)  # (m, d)
