"""Filters select the images of a search, cursors say where its results continue, and facets count values to filter by.

A filter is written with the names in ``FIELDS``: ``label=dog&folder=trips&after=2024-01-01`` in a URL,
``--label dog --folder trips --after 2024-01-01`` on the command line, and ``{"label": ["dog"], ...}`` in JSON. An image
passes if it matches every field that is given, by any of the field's values.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
}  # name of each field in URLs, JSON and options -> attribute of Filter
_TEXTS = ("label", "tag", "folder", "format", "camera")
_MAX_TEXTS = 100  # values of one field
MAX_IDS = 10_000
_NAMED = 12  # existing values to list for one that does not exist
_SIDES = ("min_width", "max_width", "min_height", "max_height")
_LARGEST = 2**63 - 1  # the largest integer of SQLite and NumPy


@dataclass(frozen=True, slots=True)
class Filter:
    """A selection of images by their properties. An empty filter is false, and every image passes it.

    Attributes:
        labels: the image has one of these labels.
        folders: it is in or below one of these folders, written as in displayed paths, without slashes at the ends.
        after: it was taken on this day or later, by its EXIF data or else by the time of its file.
        before: it was taken on this day or earlier.
        formats: its format is one of these: "JPEG", "PNG", ..., in capital letters.
        cameras: its EXIF data names one of these cameras.
        min_width, max_width, min_height, max_height: limits of the upright image, in pixels.
        ids: its id is one of these; None for any.
        tags: it has one of these tags; see ``columns.TAGS``.

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
                raise QueryError(f"The {name} to filter by is empty. Leave it out to see all images.")
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
        """Parse the values of each field in ``FIELDS``, as a URL or a form has them; other fields are ignored.

        Empty values, which a form sends for empty fields, are ignored. Only empty ``ids`` have a meaning: no image.

        Raises:
            QueryError: a value that cannot be parsed, or too many values.
        """
        given = {name: [text for text in values.get(name, ()) if text] for name in FIELDS}
        for name in _TEXTS:
            _check_number(given[name], name, _MAX_TEXTS)
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
        """Return the values of each field that is set, which ``from_fields`` and ``from_json`` parse."""
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
        """Parse a JSON object whose values are strings, whole numbers, or lists of them; QueryError."""
        if not isinstance(values, Mapping):
            raise QueryError(f"A filter is an object with some of these members: {', '.join(FIELDS)}.")
        texts: dict[str, list[str]] = {}
        for name, value in values.items():
            if name not in FIELDS:
                raise QueryError(f"There is no filter named {name!r}. Use one of these: {', '.join(FIELDS)}.")
            texts[name] = []
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, bool) or not isinstance(part, str | int):
                    raise QueryError(f"{name} must be a string, a whole number, or a list of them, not {part!r}.")
                texts[name].append(str(part))
        return cls.from_fields(texts)


EVERYTHING = Filter()


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last hit that was shown. The results continue after it, in the order of (distance, id).

    As text it is ``<distance>:<id>:<rank>:<newest>``, with every digit of the distance; the last two parts are left out
    if they are not needed.

    Attributes:
        distance: the distance of the hit.
        id: the id of its image.
        rank: the number of hits shown so far.
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
        """Parse the text of a cursor; QueryError."""
        distance, *numbers = text.split(":")
        try:
            if not 1 <= len(numbers) <= 3 or not text.isascii():
                raise ValueError
            cursor = cls(float(distance), *map(int, numbers))
        except ValueError:
            cursor = cls(math.nan, 0)
        given = (cursor.id, cursor.rank, cursor.newest or 0)
        if not math.isfinite(cursor.distance) or not all(0 <= number <= _LARGEST for number in given):
            raise QueryError(f"{text[:80]!r} is not a place to continue from. Start again from the first results.")
        return cursor


@dataclass(frozen=True, slots=True)
class FacetValue:
    """One value of a facet, and the number of images that have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that the images passing a filter have, the most frequent first, then by value.

    Each facet ignores the filter's own choice for that field, so that another value can be chosen. The count of a
    ``folder`` includes all folders below it; ``year`` is the year in which an image was taken. ``offered`` is False if
    there are too many images to count.
    """

    label: tuple[FacetValue, ...] = ()
    tag: tuple[FacetValue, ...] = ()
    folder: tuple[FacetValue, ...] = ()
    format: tuple[FacetValue, ...] = ()
    camera: tuple[FacetValue, ...] = ()
    year: tuple[FacetValue, ...] = ()
    offered: bool = True


def unknown_choices(facets: Facets, filter: Filter) -> list[str]:
    """Return a sentence for each value of a filter that no image has; ``facets`` are those of all images."""
    sentences = []
    for name in _TEXTS if facets.offered else ():
        known = {each.value: None for each in getattr(facets, name)}
        listed = ", ".join(islice(known, _NAMED))
        listed += f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        existing = f"There are: {listed}." if known else "None has one."
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
    """Return the first and the last day of a day, a month or a year: 2024-05-17, 2024-05 or 2024."""
    if re.fullmatch(r"[0-9]{4}(-[0-9]{2}){0,2}", text):
        with suppress(ValueError):  # there is no such day
            first = date.fromisoformat(f"{text}-01-01"[:10])
            last_month = first.month if len(text) > 4 else 12
            last_day = first.day if len(text) > 7 else calendar.monthrange(first.year, last_month)[1]
            return first, date(first.year, last_month, last_day)
    raise QueryError(f"{text[:80]!r} is not a date. Write a day as 2024-05-17, a month as 2024-05, or a year as 2024.")
