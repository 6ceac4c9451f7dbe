"""CSV -> a table: a column of numbers each, or a column with the vector written as text."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.exchange.table import ALL_LABELS, NONE, Columns, FeatureTable, Roles, assemble
from searchengine.exchange.vectors import is_number, is_vector, parse_vector

_LONGEST_CELL = 2**27  # characters; a vector of 100 000 numbers written out has about two millions
_CHUNK_ROWS = 1024
_NUMBERING = {"", "unnamed: 0", "index"}  # how data frames call the row numbers that they add
ROLES = ("ids", "labels", "paths")
_DIGITS = re.compile(r"[0-9]+")


def read_csv(file: Path, columns: Columns) -> FeatureTable:
    """Read a CSV file, with or without a line of names; IndexingError with the line that is wrong.

    Without names, every cell must be a number or a vector. Names may be numbers only if they are those of columns that
    have none, as data frames write them: 0, 1, 2, ...
    """
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            first = opened.readline()
            opened.seek(0)
            lines = csv.reader(opened, delimiter=_delimiter(first, file))
            return _read(file, columns, _rows(lines))
    except UnicodeDecodeError as error:
        raise IndexingError(f"{file} is no text in UTF-8 (byte {error.start}).") from error
    except (OSError, csv.Error) as error:
        raise IndexingError(f"{file} cannot be read as CSV: {error}.") from error
    finally:
        csv.field_size_limit(before)


def _delimiter(line: str, file: Path) -> str:
    if file.suffix.lower() == ".tsv" or "\t" in line:
        return "\t"
    return ";" if line.count(";") > line.count(",") else ","


def _rows(lines: Any) -> Iterator[tuple[int, list[str]]]:
    for cells in lines:
        if any(cell.strip() for cell in cells):
            yield lines.line_num, cells


def _read(file: Path, columns: Columns, rows: Iterator[tuple[int, list[str]]]) -> FeatureTable:
    line, head = next(rows, (0, []))
    if not head:
        raise IndexingError(f"{file} is empty.")
    following = next(rows, (0, []))
    if _is_bare(head, following[1], file):
        names = [str(i + 1) for i in range(len(head))]
        rows = _with_first(following, rows) if following[1] else rows
        pending = (line, head)
    else:
        names = [cell.strip() for cell in head]
        _check_names(names, file)
        pending = following
        if not pending[1]:
            raise IndexingError(f"{file} has names of columns but no rows.")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise IndexingError(f"{file} has two columns of the name {twice!r}.")
    roles = Roles(file, columns, names)
    found, wide, places = choose_columns(roles, names, dict(zip(names, pending[1], strict=False)))
    at = {role: names.index(name) for role, name in found.items()}
    values: dict[str, list[str]] = {role: [] for role in at}
    chunks: list[NDArray[np.float32]] = []
    chunk: list[NDArray[np.float64]] = []
    dimension: int | None = None
    for number, cells in _with_first(pending, rows):
        if len(cells) != len(names):
            raise IndexingError(f"Line {number} of {file} has {len(cells)} columns, where the first has {len(names)}.")
        vector = _vector(cells, names, wide, places, f"Line {number} of {file}")
        dimension = dimension or len(vector)
        if len(vector) != dimension:
            raise IndexingError(
                f"Line {number} of {file} has a vector of {len(vector)} numbers, where the first has {dimension}."
            )
        chunk.append(vector)
        for role, place in at.items():
            values[role].append(cells[place])
        if len(chunk) == _CHUNK_ROWS:
            chunks.append(_stacked(chunk))
            chunk = []
    if chunk:
        chunks.append(_stacked(chunk))
    used = {names[place] for place in places} | set(found.values())
    return assemble(roles, np.concatenate(chunks), values, [name for name in names if name not in used])


def _is_bare(head: list[str], following: list[str], file: Path) -> bool:
    """Whether the first line is a row like the others; IndexingError where that cannot be told."""
    if not all(is_number(cell) or is_vector(cell) for cell in head):
        return False
    if len(head) < 2 or not _counts_up(head) or not following:
        return True
    if all(_DIGITS.fullmatch(cell.strip()) for cell in following):
        raise IndexingError(
            f"The first line of {file} counts 0, 1, 2, ...: these may be names of columns, or numbers of a feature. "
            "Put a line of names before it, such as f0,f1,f2, or in its place."
        )
    return False


def _check_names(names: list[str], file: Path) -> None:
    """IndexingError for a first line that is a row: it would be lost."""
    numbers = [name for name in names if _is_no_name(name)]
    others = {name.lower() for name in names if name not in numbers}
    if numbers and not (_counts_up(numbers) and (len(numbers) > 1 or others <= _NUMBERING)):
        raise IndexingError(
            f"The first line of {file} holds numbers ({numbers[0][:20]!r}), so there seems to be no line of names. Put "
            "one before it: id, label or path over a column of these, and any word over a column of numbers, e.g. "
            "id,label,f0,f1,f2."
        )


def _is_no_name(cell: str) -> bool:
    if is_number(cell):
        return any(map(str.isdigit, cell)) and "_" not in cell  # float() also takes "nan" and "1_2"
    return is_vector(cell) and (not cell[:1].isalpha() or "(" in cell)  # "f[0, 1]" may be a name


def _counts_up(cells: Sequence[str]) -> bool:
    return all(cell.strip() == str(i) for i, cell in enumerate(cells))


def choose_columns(roles: Roles, names: Sequence[str], first: dict[str, str]) -> tuple[dict[str, str], bool, list[int]]:
    """Which columns are what, told by their names and the first row.

    Returns:
        role -> name; whether each number has a column of its own; the places of the columns that hold the features.
    """
    vectors = [name for name in names if is_vector(first.get(name, ""))]
    feature = roles.find("features", among=vectors)
    found = {role: name for role in ROLES if (name := roles.find(role)) is not None}
    if ALL_LABELS in names and roles.asked.labels is None:
        found[ALL_LABELS] = ALL_LABELS
    vectors = [name for name in vectors if name not in found.values()]
    if feature is None and len(vectors) > 1:
        raise IndexingError(
            f"{roles.file} has several columns of vectors: {', '.join(vectors)}. Choose one with --features."
        )
    if feature is None and vectors:
        feature = vectors[0]
    if feature is not None:
        return found, False, [names.index(feature)]
    numbers = [
        i
        for i, name in enumerate(names)
        if name not in found.values()
        and name.lower() not in _NUMBERING
        and (is_number(cell := first.get(name, "").strip()) or not cell)
    ]
    if not numbers or roles.asked.features == NONE:
        raise IndexingError(
            f"{roles.file} has no column of numbers that could be features. It has: {', '.join(map(repr, names[:20]))}."
        )
    return found, True, numbers


def _vector(cells: list[str], names: list[str], wide: bool, places: list[int], where: str) -> NDArray[np.float64]:
    if not wide:
        try:
            return parse_vector(cells[places[0]])
        except ValueError as error:
            raise IndexingError(f"{where}: the vector in {names[places[0]]!r} {error}.") from error
    try:
        return np.array([float(cells[place]) for place in places], dtype=np.float64)
    except ValueError as error:
        wrong = next(place for place in places if not is_number(cells[place]))
        raise IndexingError(f"{where}: {cells[wrong]!r} in the column {names[wrong]!r} is no number.") from error


def _stacked(vectors: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused with its row
        return np.stack(vectors).astype(np.float32)  # n of (d,) -> (n, d)


def _with_first(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest
