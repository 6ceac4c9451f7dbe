"""The syntax of label files, a piece at a time: a file of 450 MB is never in memory whole.

Tables: their rows, whatever the delimiter, and which columns are the path and the label. JSON: its members one by one.
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

# Names of columns, the most telling first; compared in lower case, letters and digits only.
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
_ROW_LINES = 20  # a row of more lines has a quote that is never closed


def named_columns(head: Sequence[str]) -> tuple[int, int] | None:
    """The columns of the path and the label, by their names; if there are two columns, one name is enough."""
    names = [*map(_name, head)]
    if any(map(_is_file, head)):
        return None
    at_path = next((names.index(name) for name in _PATHS if name in names), None)
    at_label = next((names.index(name) for name in _LABELS if name in names), None)
    if len(head) == 2 and at_path is not None:
        at_label = 1 - at_path
    elif len(head) == 2 and at_label is not None:
        at_path = 1 - at_label
    return None if at_path is None or at_label is None else (at_path, at_label)


def columns_by_content(rows: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """The columns of the path and the label in rows without names; further columns of numbers are boxes."""
    columns = [*zip(*(row for row in rows if len(row) == len(rows[0])), strict=True)]
    files = [sum(map(_is_file, cells)) for cells in columns]
    at_path = files.index(max(files)) if any(files) else 0
    others = [at for at in range(len(columns)) if at != at_path]
    words = [at for at in others if not all(number_of(cell or 0) is not None for cell in columns[at])]
    if len(others) == 1:
        return at_path, others[0]
    return (at_path, words[0]) if any(files) and words else None


def _is_file(cell: str) -> bool:
    return _FILE.search(cell.strip()) is not None


def _is_comment(line: str) -> bool:
    """Whether a line of a table is a comment: "#" may also begin the header, or the name of a file."""
    if not line.lstrip().startswith("#"):
        return False
    cells = re.split(f"[{_DELIMITERS}]", line)
    names = {*map(_name, cells)}
    return not any(map(_is_file, cells)) and not (names & {*_PATHS} and names & {*_LABELS})


def _name(cell: str) -> str:
    """The name of a column as it is compared."""
    return re.sub(r"[\W_]+", "", cell.lower())


def table_rows(text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Each row that is neither empty nor a comment, with the number of its last line."""
    first = next((line for line in text if line.strip() and not _is_comment(line)), "")
    text.seek(0)
    number = 0
    if first.lower().startswith("sep=") and len(first) > 4:  # Excel's own way to name the delimiter
        delimiter = first[4]
        text.readline()
        number = 1
    else:
        delimiter = max(_DELIMITERS, key=lambda delimiter: _likelihood(first, delimiter))
    ahead: deque[str] = deque()  # the lines that the next row may take
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
    """The first row, and its number of lines: one, ignoring quotes, if a quote is not closed properly."""
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
    except csv.Error:  # a cell too large
        row = [""]
    return row, 1


def _likelihood(line: str, delimiter: str) -> tuple[bool, bool]:
    """How well a delimiter fits the first line; of equal ones, the first is taken."""
    cells = _first_row([line], delimiter)[0]
    names = {*map(_name, cells)}
    return bool(names & {*_PATHS} and names & {*_LABELS}), len(cells) > 1


def number_of(value: Any) -> float | None:
    """A finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# -- JSON -------------------------------------------------------------------------------------------------------------

_CHUNK = 2**20  # characters


def members(json_text: JsonText) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object, each list entry by entry after a None.

    ValueError if it is not an object, or is cut off.
    """
    json_text.skip("{")
    while json_text.next() != "}":
        name = str(json_text.value())
        json_text.skip(":")
        if json_text.next() == "[":
            yield name, None
            json_text.skip("[")
            while json_text.next() != "]":
                yield name, json_text.value()
                if json_text.next() != "]":
                    json_text.skip(",")
            json_text.skip("]")
        else:
            yield name, json_text.value()
        if json_text.next() != "}":
            json_text.skip(",")
    json_text.skip("}")


class JsonText:
    """JSON that is read as far as it is needed."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._read = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is not blank."""
        while True:
            while self._at < len(self._read):
                if self._read[self._at] not in " \t\r\n":
                    return self._read[self._at]
                self._at += 1
            if not self._read_on():
                raise ValueError("it ends too early")

    def is_at_end(self) -> bool:
        """Whether only blanks are left."""
        return not self._read[self._at :].strip() and not self._text.read().strip()

    def skip(self, character: str) -> None:
        """Go past a character, which must be the next."""
        if self.next() != character:
            raise ValueError(f"it is not JSON: {self._read[self._at : self._at + 20]!r} where {character!r} should be")
        self._at += 1

    def value(self) -> Any:
        """The value that begins here."""
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._read, self._at)
            except json.JSONDecodeError:
                if not self._read_on():
                    raise
                continue
            except ValueError:  # a number of more digits than Python converts
                self._decoder = json.JSONDecoder(parse_int=_integer)  # slower
                continue
            except RecursionError as error:
                raise ValueError("it is JSON that is nested too deeply") from error
            if end < len(self._read) or not self._read_on():  # a number at the end of what was read may continue
                self._at = end
                return value

    def _read_on(self) -> bool:
        rest = self._read[self._at :]
        more = self._text.read(max(_CHUNK, len(rest)))  # twice as much each time, for values that are very long
        self._read, self._at = rest + more, 0
        return bool(more)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
