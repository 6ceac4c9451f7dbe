"""Parses the syntax of label files piece by piece, so that a file of 450 MB is never in memory as a whole.

Tables are read row by row, with any delimiter, and the columns of the path and the label are recognised. JSON is read
member by member.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TextIO

# Names of columns, the most specific first; only letters and digits are compared, in lower case.
_PATH_NAMES = """
path paths filepath file filename imagepath imagefile imagefilename imagename imgpath imgname fname image img photo
picture name imageurl url uri imageid imgid photoid id
"""
_LABEL_NAMES = """
label labels class category classname categoryname labelname labelnames tag tags species breed target type kind classid
labelid categoryid
"""
_PATHS, _LABELS = _PATH_NAMES.split(), _LABEL_NAMES.split()
_FILE = re.compile(
    r".\.(jpe?g|jpe|png|gif|webp|bmp|tiff?|avif|hei[cf]|jxl|jp2|ico|p[bgpn]m|dng|nef|cr[23w]|arw|raf|rw2|orf)$", re.I
)
_DELIMITERS = ",;\t|"
_ROW_LINES = 20  # a row of more lines has an unclosed quote


def named_columns(head: Sequence[str]) -> tuple[int, int] | None:
    """Return the columns of the path and the label by their names; if there are two columns, one name is enough."""
    names = [*map(_name, head)]
    if any(map(_is_file, head)):
        return None
    path = next((names.index(name) for name in _PATHS if name in names), None)
    label = next((names.index(name) for name in _LABELS if name in names), None)
    if len(head) == 2 and path is not None:
        label = 1 - path
    elif len(head) == 2 and label is not None:
        path = 1 - label
    return None if path is None or label is None else (path, label)


def columns_by_content(rows: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """Guess the columns of the path and the label in rows without column names; other columns of numbers are boxes."""
    columns = [*zip(*(row for row in rows if len(row) == len(rows[0])), strict=True)]
    files = [sum(map(_is_file, cells)) for cells in columns]
    path = files.index(max(files)) if any(files) else 0
    others = [i for i in range(len(columns)) if i != path]
    words = [i for i in others if not all(number_of(cell or 0) is not None for cell in columns[i])]
    if len(others) == 1:
        return path, others[0]
    return (path, words[0]) if any(files) and words else None


def _is_file(cell: str) -> bool:
    return _FILE.search(cell.strip()) is not None


def _is_comment(line: str) -> bool:
    """Return whether a line of a table is a comment; "#" may also begin the header, or the name of a file."""
    if not line.lstrip().startswith("#"):
        return False
    cells = re.split(f"[{_DELIMITERS}]", line)
    names = {*map(_name, cells)}
    return not any(map(_is_file, cells)) and not (names & {*_PATHS} and names & {*_LABELS})


def _name(cell: str) -> str:
    """Return the name of a column in the form that is compared."""
    return re.sub(r"[\W_]+", "", cell.lower())


def table_rows(text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is neither empty nor a comment, with the number of its last line."""
    first = next((line for line in text if line.strip() and not _is_comment(line)), "")
    text.seek(0)
    number = 0
    if first.lower().startswith("sep=") and len(first) > 4:  # Excel names the delimiter in this way
        delimiter = first[4]
        text.readline()
        number = 1
    else:
        delimiter = max(_DELIMITERS, key=lambda delimiter: _likelihood(first, delimiter))
    ahead: deque[str] = deque()  # the lines that the next row may occupy
    while True:
        ahead.extend(itertools.islice(text, _ROW_LINES - len(ahead)))
        if not ahead:
            return
        if _is_comment(ahead[0]):
            ahead.popleft()
            number += 1
            continue
        row, lines = _first_row(ahead, delimiter)
        for _ in range(lines):
            ahead.popleft()
        number += lines
        if row == [""] or any(cell.strip() for cell in row):
            yield number, row


def _first_row(lines: Collection[str], delimiter: str) -> tuple[list[str], int]:
    """Return the first row and its number of lines. If a quote is not closed, it is ignored and the row is one line."""
    with contextlib.suppress(csv.Error):
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        row = next(reader, [])
        if reader.line_num == 1 or len(row) > 1:
            return row, reader.line_num
    line = next(iter(lines))
    try:
        reader = csv.reader([line, ""], delimiter=delimiter)
        row = next(reader)
        if reader.line_num > 1:  # the line ends within quotes
            row = next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE))
            row = [cell.strip().strip('"') for cell in row]
    except csv.Error:  # a cell is too large
        row = [""]
    return row, 1


def _likelihood(line: str, delimiter: str) -> tuple[bool, bool]:
    """Return a value that orders delimiters by how well they fit the first line."""
    cells = _first_row([line], delimiter)[0]
    names = {*map(_name, cells)}
    return bool(names & {*_PATHS} and names & {*_LABELS}), len(cells) > 1


def number_of(value: Any) -> float | None:
    """Return a finite number, or None for any other value."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# -- JSON -------------------------------------------------------------------------------------------------------------

_CHUNK = 2**20  # characters


def members(json_text: JsonText) -> Iterator[tuple[str, Any]]:
    """Yield the members of a JSON object. A member that is a list yields None, then each of its entries.

    Raises ValueError if the JSON is not an object, or is cut off.
    """
    for _ in json_text.elements("{", "}"):
        name = str(json_text.value())
        json_text.skip(":")
        if json_text.next() == "[":
            yield name, None
            for _ in json_text.elements("[", "]"):
                yield name, json_text.value()
        else:
            yield name, json_text.value()


class JsonText:
    """JSON text that is read only as far as needed."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._read = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """Return the next character that is not whitespace."""
        while True:
            while self._at < len(self._read):
                if self._read[self._at] not in " \t\r\n":
                    return self._read[self._at]
                self._at += 1
            if not self._read_more():
                raise ValueError("it ends too early")

    def is_at_end(self) -> bool:
        """Return whether only whitespace is left."""
        return not self._read[self._at :].strip() and not self._text.read().strip()

    def skip(self, character: str) -> None:
        """Skip the next character, which must be the given one."""
        if self.next() != character:
            raise ValueError(f"it is not JSON: {self._read[self._at : self._at + 20]!r} where {character!r} should be")
        self._at += 1

    def elements(self, opening: str, closing: str) -> Iterator[None]:
        """Stop at the beginning of each element of an object or a list, between which there are commas."""
        self.skip(opening)
        while self.next() != closing:
            yield
            if self.next() != closing:
                self.skip(",")
        self.skip(closing)

    def value(self) -> Any:
        """Return the value that begins at the current position."""
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._read, self._at)
            except json.JSONDecodeError:
                if not self._read_more():
                    raise
                continue
            except ValueError:  # a number with more digits than Python converts
                self._decoder = json.JSONDecoder(parse_int=_integer)  # slower
                continue
            except RecursionError as error:
                raise ValueError("it is JSON that is nested too deeply") from error
            if end < len(self._read) or not self._read_more():  # a number at the end of the text read may continue
                self._at = end
                return value

    def _read_more(self) -> bool:
        rest = self._read[self._at :]
        more = self._text.read(max(_CHUNK, len(rest)))  # doubles the text each time, for very long values
        self._read, self._at = rest + more, 0
        return bool(more)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
