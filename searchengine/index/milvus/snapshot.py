"""The images of a collection as of one commit: their rows, some at a time; and filters as Milvus's expressions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from searchengine.errors import QueryError
from searchengine.index.filters import EVERYTHING, Filter
from searchengine.index.milvus.connection import Connection, Row
from searchengine.index.milvus.schema import FEATURE, RECORD, SPREAD_BITS, About, quoted, record_of
from searchengine.index.state import Roots
from searchengine.index.types import ImageRecord

_IDS_AT_ONCE = 4096
_EXTRA = 16  # rows beyond those wanted


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A collection as of a commit. Threads may share it.

    Attributes:
        connection: to the server.
        about: what is known of the whole.
        roots: the image folders: id -> where it is, name.
    """

    connection: Connection
    about: About
    roots: Roots
    _known: dict[int, Row | None] = field(default_factory=dict)  # rows of single images, by id

    def where(self, filter: Filter = EVERYTHING) -> str:
        """The expression for the images that pass a filter."""
        return expression(filter, self.about.generation, {id_: name for id_, (_, name) in self.roots.items()})

    def all_rows(self, fields: Sequence[str], condition: str = "") -> Iterator[Row]:
        """The rows of all images, by id; with a condition, of those that meet it."""
        return latest(self.connection.each_row(self.where() + condition, fields))

    def rows_at(self, places: Iterable[int], fields: Sequence[str]) -> list[Row]:
        """The rows at some places, by id; the latest of each image."""
        listed = sorted(places)
        if not listed:
            return []
        where = f"place in {listed} and born <= {self.about.generation}"
        return list(latest(self.connection.each_row(where, fields, at_once=len(listed) + 1)))  # in one question

    def rows_of(self, ids: Sequence[int], fields: Sequence[str]) -> Iterator[Row]:
        """The rows of those images that exist, in portions by id."""
        existing = [id_ for id_ in ids if 0 <= id_ < 2**62]
        for start in range(0, len(existing), _IDS_AT_ONCE):
            part = existing[start : start + _IDS_AT_ONCE]
            yield from self.rows_at([place for id_ in part for place in (2 * id_, 2 * id_ + 1)], fields)

    def row(self, id_: int) -> Row | None:
        """The row of one image with its feature, if it exists; not asked for twice for one answer to a person."""
        if id_ not in self._known:
            self._known[id_] = next(self.rows_of([id_], (*RECORD, FEATURE)), None)
        return self._known[id_]

    def spread(self, n: int, condition: str = "") -> list[int]:
        """The places of the n images whose numbers are the smallest; these lie evenly among all ids."""
        if not n or not self.about.images:
            return []
        share = min(1.0, 2 * (n + _EXTRA) / self.about.images)
        while True:
            below = f" and spread < {int(share * 2**SPREAD_BITS)}" if share < 1 else ""
            rows = self.all_rows(("id", "born", "spread"), condition + below)
            smallest = sorted((int(row["spread"]), int(row["place"])) for row in rows)
            if len(smallest) >= n or share == 1:
                return [place for _, place in smallest[:n]]
            share = min(1.0, 4 * share)

    def records(self, rows: Iterable[Row]) -> list[ImageRecord]:
        """The records of images; the rows have the fields of ``RECORD``."""
        return [record_of(row, self.roots) for row in rows]

    def records_of(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """The records of those images that exist, by id."""
        rows = [self.row(ids[0])] if len(ids) == 1 else self.rows_of(ids, RECORD)
        return {record.id: record for record in self.records(row for row in rows if row is not None)}


def latest(rows: Iterable[Row]) -> Iterator[Row]:
    """Of rows in the order of their places, the latest of each image: for a moment, a changed one has two."""
    for _, of_image in itertools.groupby(rows, key=lambda row: row["place"] // 2):
        yield max(of_image, key=lambda row: int(row["born"]))


# -- filters ----------------------------------------------------------------------------------------------------------

_NOTHING = "place < 0"  # no primary key is
_LAST_ID = 2**62 - 1
_FIRST_NS, _LAST_NS = -(2**62), 2**63 - 1


def expression(filter: Filter, generation: int, names: Mapping[int, str]) -> str:
    """What passes a filter, as of a commit; ``names`` are what paths of each image folder begin with, or empty."""
    parts = [f"born <= {generation}"]
    if filter.labels:
        parts.append(f'json_contains_any(facts["labels"], {_texts(filter.labels)})')
    if filter.tags:
        raise QueryError("Tags are not kept in Milvus. Leave out the tag, and search by words.")
    if filter.folders:
        parts.append(_any([_below(folder, names) for folder in filter.folders]))
    if filter.formats:
        parts.append(f"format in {_texts(filter.formats)}")
    if filter.cameras:
        parts.append(f"camera in {_texts(filter.cameras)}")
    if filter.after is not None or filter.before is not None:
        parts.append(_taken(filter.after, filter.before))
    for name, least, most in (
        ("width", filter.min_width, filter.max_width),
        ("height", filter.min_height, filter.max_height),
    ):
        if least is not None or most is not None:
            parts.append(f"{name} >= {least or 1}")
        if most is not None:
            parts.append(f"{name} <= {most}")
    if filter.ids is not None:
        places = [place for id_ in filter.ids if id_ <= _LAST_ID for place in (2 * id_, 2 * id_ + 1)]
        parts.append(f"place in {places}" if places else _NOTHING)
    return " and ".join(parts)


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, values))}]"


def _any(parts: Sequence[str]) -> str:
    return f"({' or '.join(parts)})"


def _below(folder: str, names: Mapping[int, str]) -> str:
    """What lies below a folder, as paths are shown."""
    parts = []
    named = {root: name for root, name in names.items() if name}
    for root, name in named.items():
        if f"{name}/".startswith(f"{folder}/"):
            parts.append(f"root == {root}")
        elif folder.startswith(f"{name}/"):
            parts.append(f"(root == {root} and {_begins(folder[len(name) + 1 :])})")
    others = f"root not in {[*named]} and " if named else ""
    parts.append(f"({others}{_begins(folder)})")
    return _any(parts)


def _begins(folder: str) -> str:
    # "0" is the character after "/"; LIKE would take % and _ for wildcards
    return f"(path >= {quoted(folder + '/')} and path < {quoted(folder + '0')})"


def _taken(after: date | None, before: date | None) -> str:
    """Taken in those days: by EXIF data, else by the local time of the file."""
    by_exif, by_file = ['taken != ""'], ['taken == ""', f"mtime >= {_FIRST_NS}"]
    if after is not None:
        by_exif.append(f'taken >= "{after.isoformat()}"')
        by_file.append(f"mtime >= {_midnight_ns(after)}")
    if before is not None and before < date.max:
        following = before + timedelta(days=1)
        by_exif.append(f'taken < "{following.isoformat()}"')
        by_file.append(f"mtime < {_midnight_ns(following)}")
    return f"(({' and '.join(by_exif)}) or ({' and '.join(by_file)}))"


def _midnight_ns(day: date) -> int:
    """When a day begins here."""
    try:
        seconds = int(datetime(day.year, day.month, day.day).timestamp())
    except (OverflowError, OSError, ValueError):
        seconds = (day - date(1970, 1, 1)).days * 86_400
    return min(max(seconds * 10**9, _FIRST_NS), _LAST_NS)
