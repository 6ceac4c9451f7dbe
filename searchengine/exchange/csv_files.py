"""CSV files of features: one column of vectors written as text, or one column per number."""

from __future__ import annotations

import csv
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from searchengine.errors import IndexingError
from searchengine.exchange.table import ROW_NUMBERS, ColumnRoles, Columns, FeatureTable, Kind, Values
from searchengine.files import csv_writer, unguarded
from searchengine.progress import QUIET, Progress

Line = tuple[int, list[str]]  # line number and cells

_MAX_CELL = 2**27  # characters; a vector of 100 000 numbers takes about two million
_BRACKETED = re.compile(r"""\s*(?:\w+\(\s*)?(?:['"]\w['"]\s*,\s*)?\[[^\[\]]*\]\s*+(?:,[^()\[\]]*)?\)?\s*""")


def read_csv(file: Path, columns: Columns) -> FeatureTable:
    """Read a CSV file with or without a header; IndexingError names a bad line.

    Without a header, every cell must be a number or a vector.
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
        raise IndexingError(f"{file} has column names but no rows.")
    roles = ColumnRoles(file, columns, names)
    layout = roles.lay_out({name: kind_of_cell(cell) for name, cell in zip(names, begin[0][1], strict=False)})
    positions = {name: position for position, name in enumerate(names)}
    features = {name: positions[name] for name in layout.features}
    values: Values = {role: [] for role in layout.roles}
    numbers = array("f")
    dimension = rows = 0
    for number, cells in chain(begin, lines):
        if len(cells) != len(names):
            raise IndexingError(f"Line {number} of {file} has {len(cells)} columns, where the first has {len(names)}.")
        vector = _vector(cells, features, f"Line {number} of {file}", as_text=layout.vectors)
        dimension, rows = dimension or len(vector), rows + 1
        if len(vector) != dimension:
            raise IndexingError(
                f"Line {number} of {file} has a vector of {len(vector)} numbers, where the first has {dimension}."
            )
        numbers.extend(vector)
        for role, name in layout.roles.items():
            values[role].append(unguarded(cells[positions[name]]))
    matrix = np.frombuffer(numbers, dtype=np.float32).reshape(rows, dimension)
    return roles.table(matrix, values, layout.unused(names))


def _column_names(head: list[str], first: list[str], file: Path) -> list[str] | None:
    """Return the column names in the first line, or None if it is a row of data. IndexingError if that is unclear.

    Data frames number unnamed columns, so "0,1,2" and "label,0,1,2" are names.
    """
    numbers = [cell.strip() for cell in head if _is_value(cell)]
    words = [cell.strip() for cell in head if not _is_value(cell)]
    numbered = numbers == [str(i) for i in range(len(numbers))]
    if not words:
        if not numbered or len(numbers) < 2 or not first:
            return None
        if all(cell.strip().isdecimal() for cell in first):
            raise IndexingError(
                f"The first line of {file} counts 0, 1, 2, ... These may be column names or numbers of a feature. Put "
                "a line of names before it, or in its place, such as f0,f1,f2."
            )
    elif numbers and not (numbered and (len(numbers) > 1 or {word.lower() for word in words} <= ROW_NUMBERS)):
        raise IndexingError(
            f"The first line of {file} holds numbers ({numbers[0][:20]!r}), so there seems to be no line of column "
            "names. Put one before it, such as id,label,f0,f1,f2: name columns of ids, labels and paths id, label and "
            "path, and columns of numbers anything."
        )
    names = [cell.strip() for cell in head]
    for name, count in Counter(names).items():
        if count > 1:
            raise IndexingError(f"{file} has two columns named {name!r}.")
    return names


def _is_value(cell: str) -> bool:
    """Return whether a cell of the first line is data. "nan" and "f[0, 1]" may be names."""
    if is_vector(cell):
        return "(" in cell or not cell[:1].isalpha()
    return is_number(cell) and any(map(str.isdigit, cell)) and "_" not in cell  # float() takes "1_2"


def kind_of_cell(cell: str) -> Kind:
    """Return what a cell holds. An empty cell counts as a number."""
    if is_vector(cell):
        return "vector"
    return "number" if is_number(cell) or not cell.strip() else "other"


def _vector(cells: list[str], features: Mapping[str, int], where: str, *, as_text: bool) -> list[float]:
    """Return the feature of a line, in one cell as text or one number per cell. ``features`` is name -> position."""
    if as_text:
        ((name, position),) = features.items()
        try:
            return parse_vector(cells[position])
        except ValueError as error:
            raise IndexingError(f"{where}: the vector in {name!r} {error}.") from error
    try:
        return [float(cells[position]) for position in features.values()]
    except ValueError as error:
        name = next(name for name, position in features.items() if not is_number(cells[position]))
        raise IndexingError(f"{where}: {cells[features[name]]!r} in the column {name!r} is not a number.") from error


def write_csv(file: Path, table: FeatureTable, progress: Progress = QUIET) -> None:
    """Write the columns id, path, label, all_labels (if an image has several), tags (if there are any) and features.

    ``all_labels`` and ``tags`` hold JSON lists. Numbers have as many digits as float32 needs. The metric of the index
    is not stored.
    """
    columns = table.columns()
    with file.open("w", encoding="utf-8", newline="", errors="replace") as opened:
        write = csv_writer(opened)
        write([*columns, "features"])
        for part, block in table.blocks():
            for *values, row in zip(*(column[part] for column in columns.values()), block, strict=True):
                write([*values, f"[{' '.join(map(str, row))}]"])
            progress.advance(len(block))


# -- vectors written as text ------------------------------------------------------------------------------------------


def is_number(text: str) -> bool:
    """Return whether a cell holds one number, which may be NaN or infinity."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_vector(text: str) -> bool:
    """Return whether a cell holds numbers in brackets, or several numbers without brackets."""
    parts = _numbers(text)
    if _BRACKETED.fullmatch(text):
        return bool(parts) and (is_number(parts[0]) or parts[0] == "...")
    return len(parts) > 1 and all(map(is_number, parts))


def parse_vector(text: str) -> list[float]:
    """Parse a vector as data frames write it: ``array('d', [1.0, 2.0])``, ``[1.0 2.0]``, ``1, 2``.

    The message of a ValueError is the end of a sentence about the vector.
    """
    parts = _numbers(text)
    if "..." in text:
        raise ValueError("was cut short by the program that wrote it: it has '...' in place of numbers")
    if not parts:
        raise ValueError("is empty")
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"holds something other than numbers: {text[:60]!r}") from error


def _numbers(text: str) -> list[str]:
    start, end = text.find("["), text.rfind("]")
    return (text[start + 1 : end] if 0 <= start < end else text).replace(",", " ").split()
