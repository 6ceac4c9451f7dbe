"""Reading the rows of a collection, as of its last commit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchengine.address import MilvusAddress
from searchengine.index.filters import EVERYTHING, Filter
from searchengine.index.milvus.connection import STRONG, Connection, Row
from searchengine.index.milvus.expressions import expression
from searchengine.index.milvus.schema import FEATURE, RECORD, SPREAD_BITS, About, record_of
from searchengine.index.types import ImageRecord

_KEPT = 0.1  # seconds for which what is known of the whole is not asked for again
_IDS_AT_ONCE = 4096
_EXTRA = 16  # rows beyond those wanted


@dataclass(frozen=True, slots=True)
class _Latest:
    """What is known for a moment: the whole, and rows of single images as of then."""

    asked: float
    about: About
    rows: dict[int, Row | None] = field(default_factory=dict)


class Collection:
    """The rows of images that count as of a commit. Safe to share between threads; open it after a fork."""

    def __init__(self, address: MilvusAddress, images_dir: Path | None) -> None:
        self.connection = Connection(address)
        self.images_dir = images_dir
        self._latest: _Latest | None = None

    def about(self) -> About:
        """The whole as it stands now, or did a moment ago; IndexNotFoundError."""
        latest = self._latest
        if latest is not None and time.monotonic() - latest.asked < _KEPT and self.connection.consistency != STRONG:
            return latest.about
        asked, text = time.monotonic(), self.connection.about()
        if text is None:
            raise self.connection.missing()
        about = About.from_text(text, self.connection.address)
        self._latest = _Latest(asked, about)
        return about

    def where(self, filter: Filter, about: About) -> str:
        """The expression for the images that pass a filter."""
        names = {id_: name for id_, (_, name) in about.folders(None).items()}
        return expression(filter, about.generation, names)

    def all_rows(self, about: About, fields: Sequence[str], condition: str = "") -> Iterator[Row]:
        """The rows of all images, by id; with a condition, of those that meet it."""
        return latest(self.connection.each_row(self.where(EVERYTHING, about) + condition, fields))

    def rows_at(self, places: Iterable[int], fields: Sequence[str], about: About) -> list[Row]:
        """The rows at some places, by id; the latest of each image."""
        listed = sorted(places)
        if not listed:
            return []
        where = f"place in {listed} and born <= {about.generation}"
        return list(latest(self.connection.each_row(where, fields, at_once=len(listed) + 1)))  # in one question

    def rows_of(self, ids: Sequence[int], fields: Sequence[str], about: About) -> Iterator[Row]:
        """The rows of those images that exist, in portions by id."""
        existing = [id_ for id_ in ids if 0 <= id_ < 2**62]
        for start in range(0, len(existing), _IDS_AT_ONCE):
            part = existing[start : start + _IDS_AT_ONCE]
            yield from self.rows_at([place for id_ in part for place in (2 * id_, 2 * id_ + 1)], fields, about)

    def row(self, id_: int, about: About) -> Row | None:
        """The row of one image with its feature, if it exists; not asked for twice for one answer to a person."""
        latest = self._latest
        known: dict[int, Row | None] = {} if latest is None or latest.about is not about else latest.rows
        if id_ not in known:
            known[id_] = next(self.rows_of([id_], (*RECORD, FEATURE), about), None)
        return known[id_]

    def spread(self, n: int, about: About, condition: str = "") -> list[int]:
        """The places of the n images whose numbers are the smallest; these lie evenly among all ids."""
        if not n or not about.images:
            return []
        share = min(1.0, 2 * (n + _EXTRA) / about.images)
        while True:
            below = f" and spread < {int(share * 2**SPREAD_BITS)}" if share < 1 else ""
            rows = self.all_rows(about, ("id", "born", "spread"), condition + below)
            smallest = sorted((int(row["spread"]), int(row["place"])) for row in rows)
            if len(smallest) >= n or share == 1:
                return [place for _, place in smallest[:n]]
            share = min(1.0, 4 * share)

    def records(self, rows: Iterable[Row], about: About) -> list[ImageRecord]:
        """What is known of images; the rows have the fields of ``RECORD``."""
        folders = about.folders(self.images_dir)
        return [record_of(row, folders) for row in rows]

    def records_of(self, ids: Sequence[int], about: About) -> dict[int, ImageRecord]:
        """What is known of those images that exist, by id."""
        rows = [self.row(ids[0], about)] if len(ids) == 1 else self.rows_of(ids, RECORD, about)
        return {record.id: record for record in self.records((row for row in rows if row is not None), about)}

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def latest(rows: Iterable[Row]) -> Iterator[Row]:
    """Of rows in the order of their places, the latest of each image: for a moment, a changed one has two."""
    for _, of_image in itertools.groupby(rows, key=lambda row: row["place"] // 2):
        yield max(of_image, key=lambda row: int(row["born"]))
