"""The images of a collection as of one commit: their rows, some at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from searchengine.index.filters import EVERYTHING, Filter
from searchengine.index.milvus.connection import Connection, Row
from searchengine.index.milvus.expressions import expression
from searchengine.index.milvus.schema import FEATURE, RECORD, SPREAD_BITS, About, record_of
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
