"""Filters and cursors: which images may be found, and where the results continue. Each value has one spelling.

A filter is spelt by the names in ``FIELDS``, in an address as ``label=dog&folder=trips&after=2024-01-01``, on the
command line as ``--label dog --folder trips --after 2024-01-01`` and in JSON as ``{"label": ["dog"], ...}``. Several
values of one field mean any of them; several fields mean all of them.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any, Self

from searchengine.errors import QueryError

FIELDS = {
    "label": "labels",
    "tag": "tags",
    "folder": "folders",
    "after": "after",
    "before": "before",
    "format": "formats",
    "camera": "cameras",
    "min_width": "min_width",
    "max_width": "max_width",
    "min_height": "min_height",
    "max_height": "max_height",
    "ids": "ids",
}  # how each field of a filter is spelt
_TEXTS = ("label", "tag", "folder", "format", "camera")
_MOST_TEXTS = 100  # values of a field
MAX_IDS = 10_000
_NAMED = 12  # values, where one is asked for that does not exist
_SIDES = ("min_width", "max_width", "min_height", "max_height")
_LARGEST = 2**63 - 1  # that SQLite and NumPy can hold


@dataclass(frozen=True, slots=True)
class Filter:
    """Which images may be found; a filter without any choice is false, and all images pass it.

    Attributes:
        labels: an image has one of these.
        folders: it is in or below one of these, as paths are shown; without slashes at the ends.
        after: it was taken on this day or later, by its EXIF data, else by the time of its file.
        before: it was taken on this day or earlier.
        formats: "JPEG", "PNG", ...; in capital letters.
        cameras: as EXIF data names them.
        min_width, max_width, min_height, max_height: of the upright picture, in pixels.
        ids: its id is among these; None for any.
        tags: the network sees one of these in it, see ``columns.TAGS``.

    Raises:
        QueryError: a value that no image can have.
    """

    labels: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    after: date | None = None
    before: date | None = None
    formats: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    min_width: int | None = None
    max_width: int | None = None
    min_height: int | None = None
    max_height: int | None = None
    ids: tuple[int, ...] | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "folders", tuple(folder.strip("/") for folder in self.folders))
        object.__setattr__(self, "formats", tuple(name.upper() for name in self.formats))
        for name in _TEXTS:
            if "" in getattr(self, FIELDS[name]):
                raise QueryError(f"A {name} to filter by is empty. Leave it out to see all.")
        for name in _SIDES:
            if not 1 <= (getattr(self, name) or 1) <= _LARGEST or getattr(self, name) == 0:
                raise QueryError(f"{name} must be a whole number of pixels of at least 1, not {getattr(self, name)}.")
        for id_ in self.ids or ():
            if not 0 <= id_ <= _LARGEST:
                raise QueryError(f"{id_} is not the id of an image.")

    def __bool__(self) -> bool:
        return self != type(self)()

    # -- as text ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_fields(cls, values: Mapping[str, Sequence[str]]) -> Self:
        """Read it from the texts of each field in ``FIELDS``, as in an address or a form; other fields are ignored.

        Empty texts, which a form sends for empty fields, are ignored, except for ``ids``: no image at all.

        Raises:
            QueryError: a text that cannot be read, or too many of them.
        """
        given = {name: [text for text in values.get(name, ()) if text] for name in FIELDS}
        for name in _TEXTS:
            _check_number(given[name], name, _MOST_TEXTS)
        chosen: dict[str, Any] = {FIELDS[name]: tuple(given[name]) for name in _TEXTS}
        chosen |= {name: _whole(given[name][0], name) for name in _SIDES if given[name]}
        if given["after"]:
            chosen["after"] = _period(given["after"][0])[0]
        if given["before"]:
            chosen["before"] = _period(given["before"][0])[1]
        if "ids" in values:
            parts = [part for part in ",".join(given["ids"]).split(",") if part.strip()]
            _check_number(parts, "ids", MAX_IDS)
            chosen["ids"] = tuple(_whole(part.strip(), "ids") for part in parts)
        return cls(**chosen)

    def to_fields(self) -> dict[str, list[str]]:
        """The texts of each field that makes a choice; ``from_fields`` and ``from_json`` read them back."""
        texts: dict[str, list[str]] = {}
        for name, attribute in FIELDS.items():
            value = getattr(self, attribute)
            if name == "ids" and value is not None:
                texts[name] = [",".join(map(str, value))]
            elif value not in ((), None):
                texts[name] = [str(part) for part in (value if isinstance(value, tuple) else (value,))]
        return texts

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Read it from an object of JSON: each value is a text, a number, or a list of them; QueryError."""
        if not isinstance(values, Mapping):
            raise QueryError(f"A filter is an object with some of {', '.join(FIELDS)}.")
        texts: dict[str, list[str]] = {}
        for name, value in values.items():
            if name not in FIELDS:
                raise QueryError(f"There is no filter named {name!r}. There are {', '.join(FIELDS)}.")
            texts[name] = []
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, bool) or not isinstance(part, str | int):
                    raise QueryError(f"{name} must be a text, a whole number, or a list of them, not {part!r}.")
                texts[name].append(str(part))
        return cls.from_fields(texts)


EVERYTHING = Filter()


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last hit that was shown: the results continue after it, by (distance, id).

    Spelt ``<distance>:<id>:<rank>:<newest>``, with every digit of the distance; the last two are left out where they
    are not needed.

    Attributes:
        distance: of the hit.
        id: of its image.
        rank: how many hits were shown up to it.
        newest: the largest id at the time of the first page, if the ranking depends on it.
    """

    distance: float
    id: int
    rank: int = 0
    newest: int | None = None

    def __str__(self) -> str:
        place = f"{float(self.distance)!r}:{self.id}"
        if self.newest is not None:
            return f"{place}:{self.rank}:{self.newest}"
        return f"{place}:{self.rank}" if self.rank else place

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it from its text; QueryError."""
        distance, *numbers = text.split(":")
        try:
            if not 1 <= len(numbers) <= 3 or not text.isascii():
                raise ValueError
            cursor = cls(float(distance), *map(int, numbers))
        except ValueError:
            cursor = cls(math.nan, 0)
        given = (cursor.id, cursor.rank, cursor.newest or 0)
        if not math.isfinite(cursor.distance) or not all(0 <= number <= _LARGEST for number in given):
            raise QueryError(f"{text[:80]!r} is not where results continue. Begin again with the first results.")
        return cursor


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a facet, and the number of images that have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Facets:
    """The values of the images that pass a filter, by count and then by value, the most frequent first.

    Each facet ignores the choice of its own field, so that another value can be chosen. The count of a ``folder``
    includes all folders below it; ``year`` is that in which an image was taken. If not ``offered``, there are too many
    images to count.
    """

    label: tuple[FacetValue, ...] = ()
    tag: tuple[FacetValue, ...] = ()
    folder: tuple[FacetValue, ...] = ()
    format: tuple[FacetValue, ...] = ()
    camera: tuple[FacetValue, ...] = ()
    year: tuple[FacetValue, ...] = ()
    offered: bool = True


def unknown_choices(facets: Facets, filter: Filter) -> list[str]:
    """A sentence for each text of a filter that no image has; ``facets`` are those of all images."""
    sentences = []
    for name in _TEXTS if facets.offered else ():
        known = {each.value: None for each in getattr(facets, name)}
        some = ", ".join(islice(known, _NAMED))
        some += f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        existing = f"There are: {some}." if known else "None has one."
        unknown = (text for text in getattr(filter, FIELDS[name]) if text not in known)
        sentences += [f"No picture has the {name} “{text}”. {existing}" for text in unknown]
    return sentences


def _check_number(texts: Sequence[str], name: str, most: int) -> None:
    if len(texts) > most:
        raise QueryError(f"A filter takes at most {most} values of {name}, not {len(texts)}.")


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise QueryError(f"{name} must be a whole number, not {text[:80]!r}.")
    return int(text)


def _period(text: str) -> tuple[date, date]:
    """The first and the last day of a day, a month or a year: 2024-05-17, 2024-05 or 2024."""
    match = re.fullmatch(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?", text)
    if match:
        year, month, day = (int(part) if part else None for part in match.groups())
        try:
            assert year is not None
            first = date(year, month or 1, day or 1)
            last_month = month or 12
            return first, date(year, last_month, day or calendar.monthrange(year, last_month)[1])
        except (ValueError, calendar.IllegalMonthError):
            pass
    raise QueryError(f"{text[:80]!r} is not a day. Write it as 2024-05-17, or a month as 2024-05, or a year as 2024.")
