"""Which photographs of Open Images show the classes that are asked for, from tables too large to keep."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchengine.exchange.collections.asking import DownloadError
from searchengine.exchange.collections.streaming import ChangedError, read_lines
from searchengine.files import replace_text
from searchengine.progress import Progress

_HEADER = b"ImageID,Source,LabelName,Confidence"
_ID = 16  # hexadecimal digits
_CHANGES = 3  # of a table while it is read, before that is given up
_SAVED = 32 << 20  # bytes between notes of how far it is


@dataclass(frozen=True, slots=True)
class Found:
    """A photograph and which of the ``marks`` it has."""

    id: str
    split: str
    marks: frozenset[bytes]


class Search:
    """Reads the tables of the splits, one after the other, as far as it takes to have enough of each class.

    Args:
        classes: name -> marks; a photograph with any of the marks is one of the class.
        images: how many of each.
        tables: name and address of each split's, in the order in which to look.
        work: where notes are kept, so that another run for the same goes on.
        progress: is told how it goes.
        pause: seconds before a broken connection is tried again for the first time.
    """

    def __init__(
        self,
        classes: Mapping[str, frozenset[bytes]],
        images: int,
        tables: Sequence[tuple[str, str]],
        work: Path,
        progress: Progress,
        pause: float,
    ) -> None:
        self._classes = classes
        self._images = images
        self._progress = progress
        self._pause = pause
        asked = {"classes": sorted(mark.decode() for marks in classes.values() for mark in marks), "images": images}
        self._tables = [_Table(split, url, {"url": url, **asked}, work) for split, url in tables]
        wanted = b"|".join(re.escape(mark) for marks in classes.values() for mark in sorted(marks))
        # Confidence 1: people have seen it; 0: they have seen that it is not there.
        self._counts: Counter[str] = Counter()
        self._recount()
        self._row = re.compile(rb"^([0-9a-f]{16}),[^,\n]*,(" + wanted + rb"),1(?:\.0+)?\r?$", re.MULTILINE)

    def photos(self) -> list[Found]:
        """Enough of each class, or all there are; always the same first ones."""
        changes = 0
        for table in self._tables:
            while self.lacking() and not table.done:
                try:
                    self._read(table)
                except ChangedError as error:
                    changes += 1
                    if changes > _CHANGES:
                        raise DownloadError(f"{error}, again and again. Run the same command again later.") from error
                    self._progress.say(f"{error}; it is read anew")
                    table.forget()
                    self._recount()
        return [one for table in self._tables for one in table.photos()]

    def lacking(self) -> dict[str, int]:
        """The classes that have too few, and how many they have."""
        return {name: self._counts[name] for name in self._classes if self._counts[name] < self._images}

    def leave_out(self, ids: Iterable[str]) -> None:
        """Photographs that are not to be had."""
        gone = set(ids)
        for table in self._tables:
            table.gone |= gone & table.found.keys()
            table.save()
        self._recount()

    def _recount(self) -> None:
        self._counts = Counter(
            name for table in self._tables for one in table.photos() for name in self._names(one.marks)
        )

    def _names(self, marks: Set[bytes]) -> set[str]:
        return {name for name, own in self._classes.items() if own & marks}

    def _read(self, table: _Table) -> None:
        """Reads on in a table until nothing is lacking, or to its end."""
        begun = saved = table.offset
        rest = b""  # the rows of the last photograph, of which more may come
        try:
            for lines in read_lines(table.url, begun, table.mark, pause=self._pause, say=self._progress.say):
                if table.offset == begun and not rest:
                    self._progress.start(lines.size, begun, what=f"looking for photographs in {table.split}", unit="B")
                    if begun == 0 and not lines.data.startswith(_HEADER):
                        raise DownloadError(
                            f"{table.url} begins with {lines.data[:60]!r}: its publisher has given it another form, "
                            "which this version of searchengine does not know."
                        )
                data = rest + lines.data
                cut = len(data) if lines.last else _last_photo(data)
                rest = data[cut:]
                self._take(table, data[:cut])
                end = lines.end - len(rest)
                self._progress.advance(end - table.offset)
                table.offset, table.mark, table.done = end, lines.mark, lines.last
                if not self.lacking():
                    break
                if table.offset - saved >= _SAVED:
                    table.save()
                    saved = table.offset
        finally:
            table.save()

    def _take(self, table: _Table, rows: bytes) -> None:
        """The rows of these classes; of a photograph that shows only what there is enough of, none."""
        for row in self._row.finditer(rows):
            id_, mark = row[1].decode(), row[2]
            names = self._names({mark})
            there = table.found.get(id_)
            if there is not None:
                names -= self._names(there)
                there.add(mark)
            elif any(self._counts[name] < self._images for name in names):
                table.found[id_] = {mark}
            else:
                continue
            if id_ not in table.gone:
                self._counts.update(names)


def _last_photo(rows: bytes) -> int:
    """Where the rows of the last photograph begin, among rows that are sorted by photograph."""
    last = rows.rstrip(b"\n").rpartition(b"\n")[2]
    return rows.find(b"\n" + last[:_ID]) + 1


class _Table:
    """How far the table of a split was read, and what was found; kept in a file from run to run."""

    def __init__(self, split: str, url: str, asked: dict[str, Any], work: Path) -> None:
        self.split = split
        self.url = url
        self._asked = asked
        self._file = work / f"search-{split}.json"
        self.offset, self.done = 0, False
        self.mark: str | None = None
        self.found: dict[str, set[bytes]] = {}
        self.gone: set[str] = set()
        try:
            notes = json.loads(self._file.read_text())
            if notes["asked"] == asked:
                self.offset, self.mark, self.done = int(notes["offset"]), notes["mark"], bool(notes["done"])
                self.found = {id_: {mark.encode() for mark in marks} for id_, marks in notes["found"].items()}
                self.gone = set(notes["gone"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.forget()

    def forget(self) -> None:
        """As if it had never been read."""
        self.offset, self.mark, self.done = 0, None, False
        self.found, self.gone = {}, set()

    def photos(self) -> list[Found]:
        """Those that are to be had."""
        return [Found(id_, self.split, frozenset(marks)) for id_, marks in self.found.items() if id_ not in self.gone]

    def save(self) -> None:
        """Keep it for another run."""
        notes = {
            "asked": self._asked,
            "offset": self.offset,
            "mark": self.mark,
            "done": self.done,
            "found": {id_: sorted(mark.decode() for mark in marks) for id_, marks in self.found.items()},
            "gone": sorted(self.gone),
        }
        replace_text(self._file, json.dumps(notes))
