"""The columns that filters and facets use: properties of images as arrays, by row of the feature matrix.

A text is stored as a number into a list of values, so that counting takes one pass of ``bincount``. The columns of a
million images take about 40 MB. ``column_reader`` reads them from a catalog.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived
from searchengine.errors import IndexDamagedError
from searchengine.index.filters import Facets, FacetValue, Filter
from searchengine.index.state import NO_IMAGE

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TagSheet:
    """The description of the tags of an index, which are the classes that the network sees in its images.

    ``names`` are the names of the tags, which were computed for the first ``rows`` of the matrix.
    """

    format: Literal[1]
    made: str
    fingerprint: str
    features_file: str
    rows: int
    names: list[str]

    @property
    def computed_from(self) -> tuple[str, str]:
        """Differs if the tags must be computed from the beginning, and not only for new rows."""
        return self.fingerprint, self.features_file


# A pair for each tag of an image, the most probable first: ids (p,) int64, and tags (p,) int32 into the names.
TAGS = Derived("tags.npz", TagSheet, command="searchengine words", columns=("ids", "tags"))

_log = logging.getLogger(__name__)
NO_TEXT = -1  # the number for a missing text
NO_DAY = int(np.iinfo(np.int32).min)
NO_YEAR = 0
_EPOCH = date(1970, 1, 1)
_MASKS_KEPT = 32  # of a byte per row
_FACETS_KEPT = 4  # of about 100 bytes per label and folder


class Texts:
    """Distinct texts, numbered in the order in which they were added."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = [*texts]
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def __len__(self) -> int:
        return len(self.texts)

    def number(self, text: str | None) -> int:
        """Return the number of a text, which is added if it is new; NO_TEXT for "" and None."""
        if not text:
            return NO_TEXT
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def among(self, chosen: Sequence[str]) -> Mask:
        """Return a mask of the chosen texts, by number, with a last False that NO_TEXT selects."""
        mask = np.zeros(len(self.texts) + 1, dtype=np.bool_)
        mask[[self._numbers[text] for text in chosen if text in self._numbers]] = True
        return mask

    def counted(self, numbers: Numbers) -> NDArray[np.int64]:
        """Return how often each number occurs."""
        return np.bincount(numbers + 1, minlength=len(self.texts) + 1)[1:]

    def facet(self, counts: NDArray[np.int64]) -> tuple[FacetValue, ...]:
        """Return the texts that occur, by count and then by text."""
        return facet({self.texts[number]: int(counts[number]) for number in np.flatnonzero(counts)})


@dataclass(frozen=True, slots=True)
class Columns:
    """The properties of the images of one state. Arrays are by row, (r,), unless noted otherwise."""

    generation: object  # of the state
    version: tuple[object, ...]  # if it is the same, rows were only added or removed
    ids: NDArray[np.int64]
    labels: Texts
    label_of: Numbers  # (p, 2): row, number of a label; a row may have several
    folders: Texts
    below: Numbers  # (f, 2): number of a folder, number of the folder itself or of one above it
    folder: Numbers
    formats: Texts
    format: Numbers
    cameras: Texts
    camera: Numbers
    day: Numbers  # the day on which it was taken, since 1970
    year: Numbers
    width: Numbers  # 0: not known
    height: Numbers
    tags: Texts = field(default_factory=Texts)
    tag_of: Numbers = field(default_factory=lambda: np.empty((0, 2), dtype=np.int32))  # (t, 2): row, number of a tag
    tags_file: tuple[object, ...] | None = None  # the identity of the file of tags, and the generation it was used for
    _passing: dict[Filter, Mask] = field(default_factory=dict)
    _facets: dict[Filter, Facets] = field(default_factory=dict)

    def passing(self, filter: Filter) -> Mask:
        """Return a mask of the rows that pass a filter, which must not be modified."""
        return _cached(
            self._passing,
            filter,
            _MASKS_KEPT,
            lambda: reduce(np.logical_and, self._choices(filter).values(), self.ids != NO_IMAGE),
        )

    def facets(self, filter: Filter) -> Facets:
        """Return the facets of the images that pass a filter."""
        return _cached(self._facets, filter, _FACETS_KEPT, lambda: self._count(self._choices(filter)))

    def _choices(self, filter: Filter) -> dict[str, Mask]:
        """Return the rows that pass each choice of a filter, as masks; a facet's choice has the facet's name."""
        choices: dict[str, Mask] = {}
        for name, texts, chosen, pairs in (
            ("label", self.labels, filter.labels, self.label_of),
            ("tag", self.tags, filter.tags, self.tag_of),
        ):
            if chosen:
                choices[name] = np.zeros(len(self.ids), dtype=np.bool_)
                choices[name][pairs[texts.among(chosen)[pairs[:, 1]], 0]] = True
        if filter.folders:
            is_below = np.zeros(len(self.folders) + 1, dtype=np.bool_)
            is_below[self.below[self.folders.among(filter.folders)[self.below[:, 1]], 0]] = True
            choices["folder"] = is_below[self.folder]
        if filter.formats:
            choices["format"] = self.formats.among(filter.formats)[self.format]
        if filter.cameras:
            choices["camera"] = self.cameras.among(filter.cameras)[self.camera]
        if filter.after is not None or filter.before is not None:
            first = _day(filter.after) if filter.after else NO_DAY + 1
            last = _day(filter.before) if filter.before else np.iinfo(np.int32).max
            # under the name of the facet whose counts ignore this choice
            choices["year"] = (self.day >= first) & (self.day <= last)
        for name, sides, least, most in (
            ("width", self.width, filter.min_width, filter.max_width),
            ("height", self.height, filter.min_height, filter.max_height),
        ):
            if least is not None or most is not None:
                choices[name] = (sides >= (least or 1)) & (sides <= (np.iinfo(np.int32).max if most is None else most))
        if filter.ids is not None:
            choices["ids"] = np.isin(self.ids, np.array(filter.ids, dtype=np.int64))
        return choices

    def _count(self, choices: dict[str, Mask]) -> Facets:
        def others(facet: str) -> Mask:
            """Return a mask of the rows that pass all choices but that of the facet itself."""
            return reduce(
                np.logical_and, (mask for name, mask in choices.items() if name != facet), self.ids != NO_IMAGE
            )

        labelled = self.label_of[others("label")[self.label_of[:, 0]], 1]
        tagged = self.tag_of[others("tag")[self.tag_of[:, 0]], 1]
        in_folder = self.folders.counted(self.folder[others("folder")])
        in_or_below = np.zeros(len(self.folders), dtype=np.int64)
        np.add.at(in_or_below, self.below[:, 1], in_folder[self.below[:, 0]])
        years = np.bincount(self.year[others("year")])
        return Facets(
            label=self.labels.facet(self.labels.counted(labelled)),
            tag=self.tags.facet(self.tags.counted(tagged)),
            folder=self.folders.facet(in_or_below),
            format=self.formats.facet(self.formats.counted(self.format[others("format")])),
            camera=self.cameras.facet(self.cameras.counted(self.camera[others("camera")])),
            year=facet({f"{year:04}": int(years[year]) for year in np.flatnonzero(years) if year != NO_YEAR}),
        )


def _cached(cache: dict[Filter, T], filter: Filter, most: int, compute: Callable[[], T]) -> T:
    """Return a result, of which ``most`` are cached; other threads may do the same at any moment."""
    result = cache.get(filter)
    if result is None:
        result = compute()
        if filter.ids is None:  # filters with ids are rarely repeated, and may be long
            if len(cache) >= most:
                cache.clear()
            cache[filter] = result
    return result


def facet(counts: dict[str, int]) -> tuple[FacetValue, ...]:
    """Return the values of a facet, the most frequent first."""
    return tuple(
        FacetValue(text, count) for text, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    )


# -- tags --------------------------------------------------------------------------------------------------------------


def with_tags(columns: Columns, folder: Path, fingerprint: str) -> Columns:
    """Return columns with the tags now stored in the index folder, or without tags if those cannot be used."""
    file = (TAGS.identity(folder), columns.generation)
    if columns.tags_file == file:
        return columns
    tags, tag_of = Texts(), columns.tag_of[:0]
    try:
        stored = TAGS.load(folder)
        if stored is not None and stored.sheet.fingerprint == fingerprint:
            tags = Texts(stored.sheet.names)
            rows, exists = _rows_of(stored.arrays["ids"], columns.ids)
            tag_of = np.stack([rows, stored.arrays["tags"][exists]], axis=1).astype(np.int32)
            if len(tag_of) and not 0 <= tag_of[:, 1].min() <= tag_of[:, 1].max() < len(tags):
                raise IndexDamagedError(f"{TAGS.path(folder)} has tags without a name. Delete it.")
    except IndexDamagedError as error:
        _log.warning("%s", error)
        tags, tag_of = Texts(), columns.tag_of[:0]
    return replace(columns, tags=tags, tag_of=tag_of, tags_file=file, _passing={}, _facets={})


def _rows_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], Mask]:
    """Return the rows of those of the wanted ids that exist, and a mask of these ids."""
    if not len(ids):
        return np.empty(0, dtype=np.intp), np.zeros(len(wanted), dtype=np.bool_)
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(0, len(ids) - 1)]
    exists = (ids[rows] == wanted) & (wanted != NO_IMAGE)
    return rows[exists], exists


def _day(day: date) -> int:
    return (day - _EPOCH).days
