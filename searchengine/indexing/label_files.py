"""Reads label files: CSV from any spreadsheet, and COCO annotations of any size, piece by piece.

Unusable rows are counted, with a few examples, and do not affect the rest of the file.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from urllib.parse import parse_qs, unquote, urlsplit

from searchengine.errors import IndexingError
from searchengine.files import unguarded
from searchengine.indexing.label_syntax import (
    JsonText,
    columns_by_content,
    members,
    named_columns,
    number_of,
    table_rows,
)

_FIRST_ROWS = 20  # that are examined to guess the columns of a file without column names
_UNDECODED = re.compile("[\ud800-\udfff]")
# The first bytes of files that are not text, and what they are.
_NOT_TEXT = {
    (b"PK\x03\x04",): "it is a spreadsheet or a zip archive. Save the spreadsheet as CSV, or unpack the archive first",
    (b"\xd0\xcf\x11\xe0",): "it is a spreadsheet. Save it as CSV",
    (b"\x1f\x8b", b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!\x1a"): (
        "it is compressed. Unpack it first"
    ),
    (b"%PDF-", b"PAR1\x15", b"SQLite format 3\0"): "it is not text. Save the table as CSV",
}
_MARKS = {  # UTF-32 comes first because its mark begins with that of UTF-16
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_EXPECTED_JSON = (
    'Give COCO annotations (images, annotations, categories), {"a.jpg": "label", ...}, or save the labels as CSV'
)
_EXAMPLES = 3


@dataclass(slots=True)
class Unusable:
    """Entries of a label file that could not be used: their number and the first examples, by reason."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, example: str) -> None:
        """Count one entry."""
        self.counts[reason] += 1
        if len(self.examples[reason]) < _EXAMPLES:
            self.examples[reason].append(example[:80])

    def __str__(self) -> str:
        return ", ".join(
            f"{count} {reason} ({', '.join(self.examples[reason])}{', ...' if count > _EXAMPLES else ''})"
            for reason, count in self.counts.items()
        )


@dataclass(frozen=True, slots=True)
class LabelFile:
    """The labels in a file, by path as spelt there; the most important label comes first."""

    labels: Mapping[str, tuple[str, ...]]
    unusable: Unusable


def read_label_file(file: Path) -> LabelFile:
    """Read a CSV file with the columns path and label, COCO annotations, or JSON of the form {path: label}.

    Raises:
        IndexingError: the file is missing, cannot be read, has another format, or has no usable entry.
    """
    if not file.is_file():
        raise IndexingError(
            f"There is no labels file {file}. Give --labels folder, --labels none, a CSV file with the columns path "
            "and label, or COCO annotations (instances_*.json)."
        )
    try:
        with file.open("rb") as opened:
            encoding = _encoding(opened.read(4096))
        with file.open(encoding=encoding, errors="surrogateescape", newline="") as text:
            return _read_json(text) if _is_json(file, text) else _read_csv(text)
    except OSError as error:
        raise IndexingError(f"The labels file {file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise IndexingError(
            f"The labels file {file} is neither a CSV file with the columns path and label nor COCO annotations: "
            f"{error}."
        ) from error


def _encoding(start: bytes) -> str:
    """Return the encoding of a file by its first bytes. Raises ValueError if they are not text."""
    for magics, remark in _NOT_TEXT.items():
        if start.startswith(magics):
            raise ValueError(remark)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        raise ValueError("it is not text, or in UTF-16 without a byte order mark. Save it as CSV in UTF-8")
    return "utf-8-sig"


def _is_json(file: Path, text: TextIO) -> bool:
    start = text.read(64).lstrip()
    text.seek(0)
    return file.suffix.lower() == ".json" or start.startswith("{")


# -- CSV --------------------------------------------------------------------------------------------------------------


def _read_csv(text: TextIO) -> LabelFile:
    """Read the labels of a table. A path in several rows has several labels, in that order."""
    rows = table_rows(text)
    first = list(itertools.islice(rows, _FIRST_ROWS))
    head = first[0][1] if first else []
    columns = named_columns(head)
    if columns is not None:
        del first[0]
    else:
        columns = columns_by_content([row for _, row in first])
    if columns is None:
        raise ValueError(f"its first line is {','.join(head)[:80]!r}")
    path_column, label_column = columns
    labels: dict[str, list[str]] = {}
    unusable = Unusable()
    for number, row in itertools.chain(first, rows):
        if len(row) <= max(columns) or any(cell.strip() for cell in row[len(head) :]):
            unusable.add("rows have a different number of columns than the first", f"line {number}")
            continue
        path = plain(unguarded(row[path_column]))
        if path == ".":
            unusable.add("rows name no file", f"line {number}")
            continue
        label = as_text(unguarded(row[label_column]).strip())
        of_path = labels.setdefault(path, [])
        if label and label not in of_path:
            of_path.append(label)
    if unusable.counts and not labels:
        raise ValueError(f"none of its rows can be used: {unusable}")
    return LabelFile({path: tuple(of_path) for path, of_path in labels.items()}, unusable)


def as_text(text: str) -> str:
    """Return the text, with bytes that are not UTF-8 read as cp1252, which spreadsheets on Windows write."""
    return _UNDECODED.sub(lambda byte: bytes([ord(byte[0]) & 0xFF]).decode("cp1252", "replace"), text)


def plain(path: str) -> str:
    """Return a path within a folder: ``./a//b.jpg`` -> ``a/b.jpg``, ``http://host/a%20b.jpg`` -> ``a b.jpg``.

    Backslashes are kept in a path that has slashes too, because they may be part of a name.
    """
    path = path.strip()
    if "://" in path or "?d=" in path:  # Label Studio names local files in the second way
        with contextlib.suppress(ValueError):  # it is not a URL after all
            address = urlsplit(path)
            path = unquote("".join(parse_qs(address.query).get("d", [address.path]))).lstrip("/")
    return str(PurePosixPath(path if "/" in path else path.replace("\\", "/")))


# -- JSON -------------------------------------------------------------------------------------------------------------


def _read_json(text: TextIO) -> LabelFile:
    """Read COCO annotations, or else {file: label} or {file: [label, ...]}."""
    coco = _Coco()
    mapping: dict[str, list[str | None]] = defaultdict(list)  # the strings of a file that has no COCO tables
    json_text = JsonText(text)
    if json_text.next() != "{":
        raise ValueError(f"it is not a JSON object. {_EXPECTED_JSON}")
    for name, entry in members(json_text):
        if name in coco.counts:
            coco.add(name, entry)
        elif not coco.tables:
            mapping[name] += [] if entry is None else [entry if isinstance(entry, str) else None]
    return coco.labels() if coco.tables else _plain_mapping(mapping, whole=json_text.is_at_end())


class _Coco:
    """The tables of COCO annotations that give labels. They may come in any order."""

    def __init__(self) -> None:
        self.tables: set[str] = set()  # the tables that the file has
        self.counts = {"categories": 0, "images": 0, "annotations": 0}  # entries by table
        self._categories: dict[str, str] = {}  # id -> name
        self._images: dict[str, list[str]] = {}  # id -> names of files
        self._areas: dict[str, dict[str, float]] = defaultdict(dict)  # id of an image -> id of a category -> area
        self._captions = 0
        self._unusable = Unusable()

    def add(self, table: str, entry: Any) -> None:
        """Add an entry of a table; None marks the beginning of a table."""
        self.tables.add(table)
        if entry is None:
            return
        self.counts[table] += 1
        example = f"entry {self.counts[table]} of {table}"
        if not isinstance(entry, dict):
            self._unusable.add(f"entries of {table} are not objects", example)
        elif table == "categories":
            self._categories.update(_categories(entry))
        elif table == "images":
            name = next((entry[key] for key in ("file_name", "coco_url", "path") if entry.get(key)), None)
            if name is None or entry.get("id") is None:
                self._unusable.add("images have no file name or no id", example)
            else:
                self._images.setdefault(_key(entry["id"]), []).append(plain(str(name)))
        else:
            self._captions += "caption" in entry
            parts = entry.get("segments_info")  # panoptic annotations have it
            for part in parts if isinstance(parts, list) else [entry]:
                self._add_part(part, entry.get("image_id"), example)

    def _add_part(self, part: Any, image: Any, example: str) -> None:
        if not isinstance(part, dict) or part.get("category_id") is None or image is None:
            self._unusable.add("annotations have no category or no image", example)
            return
        areas, category = self._areas[_key(image)], sys.intern(_key(part["category_id"]))
        areas[category] = areas.get(category, 0.0) + _area(part)

    def labels(self) -> LabelFile:
        """Return the categories of each file, the one that covers the largest area first. Raises ValueError."""
        annotations = self.counts["annotations"]
        if self.counts["images"] and not annotations:
            raise ValueError("it has no annotations, so no image would have a label. Give instances_*.json")
        if self._captions and not self._areas:
            raise ValueError("its annotations are captions, which are not labels. Give instances_*.json")
        for table in self.counts:
            if table not in self.tables:
                raise ValueError(f"{table!r} is missing")
        labels = self._labels_of_files()
        if annotations and not any(labels.values()):
            raise ValueError(f"none of its {annotations} annotations can be used: {self._unusable}")
        return LabelFile(labels, self._unusable)

    def _labels_of_files(self) -> dict[str, tuple[str, ...]]:
        areas_of: dict[str, dict[str, float]] = {name: {} for names in self._images.values() for name in names}
        for image, areas in self._areas.items():
            if image not in self._images:
                self._unusable.add("images are annotated but not listed", f"id {image}")
            for category, area in areas.items():
                label = self._categories.get(category)
                if label is None:
                    self._unusable.add("categories of images are not listed", f"id {category}")
                    continue
                for name in self._images.get(image, ()):
                    areas_of[name][label] = areas_of[name].get(label, 0.0) + area
        return {
            name: tuple(sorted(areas, key=lambda label: (-areas[label], label))) for name, areas in areas_of.items()
        }


def _plain_mapping(mapping: Mapping[str, list[str | None]], *, whole: bool) -> LabelFile:
    """Return the labels of {file: labels}. Raises ValueError for other JSON, such as one object per line."""
    labels = {
        plain(path): tuple(dict.fromkeys(as_text(label.strip()) for label in of_path if label and label.strip()))
        for path, of_path in mapping.items()
    }
    only_strings = all(label is not None for of_path in mapping.values() for label in of_path)
    if not whole or not only_strings or not any(PurePosixPath(path).suffix for path in labels):
        raise ValueError(f"its JSON has another form. {_EXPECTED_JSON}")
    return LabelFile(labels, Unusable())


def _categories(entry: dict[str, Any]) -> dict[str, str]:
    """Return the names by id of one category, or of all if the file has {id: name}, {id: category} or {name: id}."""
    if entry.keys() & {"id", "name"}:
        name = entry.get("name")
        id_ = _key(entry.get("id"))
        return {id_: as_text(str(name)) if name is not None and str(name).strip() else f"category {id_}"}
    categories: dict[str, str] = {}
    for key, value in entry.items():
        if isinstance(value, dict):
            categories.update(_categories({"id": key, **value}))
        elif isinstance(value, str):
            categories.update(_categories({"id": key, "name": value}))
        else:
            categories.update(_categories({"id": value, "name": key}))
    return categories


def _key(id_: Any) -> str:
    """Return an id as text, the same for 1, 1.0 and "1", which programs use interchangeably."""
    return str(int(id_)) if isinstance(id_, float) and id_.is_integer() else str(id_)


def _area(annotation: dict[str, Any]) -> float:
    """Return the area of an annotation, or of its box; 0 if neither can be read."""
    area = number_of(annotation.get("area"))
    if area is not None:
        return area
    box = annotation.get("bbox")
    sides = [number_of(side) for side in box[2:4]] if isinstance(box, list) else []
    return math.prod(side or 0.0 for side in sides) if len(sides) == 2 else 0.0
