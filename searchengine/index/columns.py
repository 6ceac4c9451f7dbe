"""Columns of the catalog as arrays, by row of the feature matrix, for filters and facets.

They are read at the first filter; later only new rows are read. A text is stored as its number in a list of texts, so
counting is one pass of ``bincount``. For a million images they take about 40 MB.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived
from searchengine.errors import IndexDamagedError
from searchengine.index.catalog import Catalog
from searchengine.index.filters import FIELDS, Facets, FacetValue, Filter
from searchengine.index.state import NO_IMAGE, State

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]
Roots = dict[int, tuple[Path, str]]  # id -> folder, name
Label = tuple[int, str]  # row, label
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TagSheet:
    """The tags of an index: the names of the classes that the network sees in its images.

    They were computed for the first ``rows`` of the matrix.
    """

    format: Literal[1]
    made: str
    fingerprint: str
    features_file: str
    rows: int
    names: list[str]

    @property
    def computed_from(self) -> tuple[str, str]:
        """As long as it is the same, rows are only added."""
        return self.fingerprint, self.features_file


# ids (p,) int64, and tags (p,) int32 into the names: a pair for each tag of an image, the most probable first
TAGS = Derived("tags.npz", TagSheet, command="searchengine words", columns=("ids", "tags"))

_log = logging.getLogger(__name__)
_NONE = -1  # the number of no text
_NO_DAY = int(np.iinfo(np.int32).min)
_NO_YEAR = 0
_ROWS_AT_ONCE = 10_000
_CATEGORIES = ("label", "tag", "folder", "format", "camera")
_QUARTER = 900  # s; clocks differ from UTC by whole quarters of an hour
_EPOCH = date(1970, 1, 1)
_MASKS_KEPT = 32  # a byte for each row
_FACETS_KEPT = 4  # about 100 bytes for each label and folder


class Texts:
    """Distinct texts, numbered in the order of their arrival."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = [*texts]
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def __len__(self) -> int:
        return len(self.texts)

    def number(self, text: str | None) -> int:
        """The number of a text, new if it has none; -1 for "" and None."""
        if not text:
            return _NONE
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def among(self, chosen: Sequence[str]) -> Mask:
        """By number, which texts are chosen; with one more entry, False, for -1."""
        mask = np.zeros(len(self.texts) + 1, dtype=np.bool_)
        mask[[self._numbers[text] for text in chosen if text in self._numbers]] = True
        return mask


def _no_numbers() -> Numbers:
    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Category:
    """One kind of texts that images have: labels, tags, folders, formats or cameras.

    Attributes:
        texts: all of them.
        numbers: (p,) numbers of texts, one for each row or, if an image may have several, for each of ``rows``.
        rows: (p,); None if each row has one text or none.
        above: of folders, (f, 2): the number of a folder, and that of itself or a parent.
    """

    texts: Texts = field(default_factory=Texts)
    numbers: Numbers = field(default_factory=_no_numbers)
    rows: Numbers | None = None
    above: Numbers | None = None

    def passing(self, chosen: Sequence[str], count: int) -> Mask:
        """Which of ``count`` rows have one of the texts; those in a folder, or in one below it."""
        is_chosen = self.texts.among(chosen)
        if self.above is not None:
            below = self.above[is_chosen[self.above[:, 1]], 0]
            is_chosen = np.zeros_like(is_chosen)
            is_chosen[below] = True
        has_chosen = is_chosen[self.numbers]
        if self.rows is None:
            return has_chosen
        passing = np.zeros(count, dtype=np.bool_)
        passing[self.rows[has_chosen]] = True
        return passing

    def facet(self, passing: Mask) -> tuple[FacetValue, ...]:
        """The texts of the rows that pass, with counts; of folders, with all that lies below them."""
        numbers = self.numbers[passing if self.rows is None else passing[self.rows]]
        counts = np.bincount(numbers + 1, minlength=len(self.texts) + 1)[1:]
        if self.above is not None:
            in_folder, counts = counts, np.zeros_like(counts)
            np.add.at(counts, self.above[:, 1], in_folder[self.above[:, 0]])
        return facet({self.texts.texts[number]: int(counts[number]) for number in np.flatnonzero(counts)})


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the images of one state; arrays are by row, (r,)."""

    generation: int  # of the state
    version: tuple[object, ...]  # as long as it is the same, rows are only added and removed
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    label: Category = field(default_factory=lambda: Category(rows=_no_numbers()))
    tag: Category = field(default_factory=lambda: Category(rows=_no_numbers()))
    folder: Category = field(default_factory=lambda: Category(above=np.empty((0, 2), dtype=np.int32)))
    format: Category = field(default_factory=Category)
    camera: Category = field(default_factory=Category)
    day: Numbers = field(default_factory=_no_numbers)  # in which it was taken, since 1970
    year: Numbers = field(default_factory=_no_numbers)
    width: Numbers = field(default_factory=_no_numbers)  # 0: not known
    height: Numbers = field(default_factory=_no_numbers)
    tags_file: tuple[object, ...] | None = None  # identifies the file of the tags, and the state
    _passing: dict[Filter, Mask] = field(default_factory=dict)
    _facets: dict[Filter, Facets] = field(default_factory=dict)

    def passing(self, filter: Filter) -> Mask:
        """(r,) which rows pass a filter; must not be changed."""
        if filter.ids is not None:  # ids differ from query to query and may be many: not cached
            return self.passing(replace(filter, ids=None)) & np.isin(self.ids, np.array(filter.ids, dtype=np.int64))
        mask = self._passing.get(filter)
        if mask is None:
            mask = reduce(np.logical_and, self._choices(filter).values(), self.ids != NO_IMAGE)
            _keep(self._passing, filter, mask, _MASKS_KEPT)
        return mask

    def facets(self, filter: Filter) -> Facets:
        """The facets of the images that pass a filter."""
        facets = self._facets.get(filter)
        if facets is None:
            facets = self._counted(self._choices(filter))
            if filter.ids is None:
                _keep(self._facets, filter, facets, _FACETS_KEPT)
        return facets

    def _choices(self, filter: Filter) -> dict[str, Mask]:
        """Which rows pass each of the choices that a filter makes; those of a facet under its name."""
        choices: dict[str, Mask] = {}
        for name in _CATEGORIES:
            category: Category = getattr(self, name)
            if chosen := getattr(filter, FIELDS[name]):
                choices[name] = category.passing(chosen, len(self.ids))
        if filter.after is not None or filter.before is not None:
            first = _day(filter.after) if filter.after else _NO_DAY + 1
            last = _day(filter.before) if filter.before else np.iinfo(np.int32).max
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

    def _counted(self, choices: dict[str, Mask]) -> Facets:
        def others(facet: str) -> Mask:
            """The rows that pass all choices but that of the facet itself."""
            return reduce(
                np.logical_and, (mask for name, mask in choices.items() if name != facet), self.ids != NO_IMAGE
            )

        years = np.bincount(self.year[others("year")])
        return Facets(
            **{name: getattr(self, name).facet(others(name)) for name in _CATEGORIES},
            year=facet({f"{year:04}": int(years[year]) for year in np.flatnonzero(years) if year != _NO_YEAR}),
        )


def _keep(answers: dict[Filter, T], filter: Filter, answer: T, most: int) -> None:
    """Cache an answer, at most ``most`` of them; other threads may do the same at any moment."""
    if len(answers) >= most:
        answers.clear()
    answers[filter] = answer


def facet(counts: dict[str, int]) -> tuple[FacetValue, ...]:
    """The values of a facet, the most frequent first."""
    return tuple(
        FacetValue(text, count) for text, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    )


# -- from the catalog -------------------------------------------------------------------------------------------------


def load(catalog: Catalog, state: State, old: Columns | None) -> Columns | None:
    """The columns of a state; only new rows are read if rows were only added and removed since ``old``.

    None if the catalog has changed, and with it rows of the state. IndexDamagedError.
    """
    with catalog.snapshot():
        if (catalog.need("edits"), catalog.need("features_file")) != (state.edits, state.features_file):
            return None
        version = (state.features_file, catalog.get("details"), state.roots)
        if old is None or old.version != version:
            old = Columns(_NONE, version)
        first, end = len(old.ids), len(state.ids)
        if first == end and first:
            return replace(old, generation=state.generation, ids=state.ids, _passing={}, _facets={})
        try:
            return _grown(
                replace(old, generation=state.generation),
                state.ids,
                state.roots,
                catalog.what_is_filtered(first, end),
                catalog.labelled_rows(first, end),
            )
        except (AttributeError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise catalog.damaged(f"what it says of some images cannot be true ({error})") from error


def with_tags(known: Columns, folder: Path, fingerprint: str) -> Columns:
    """With the tags in the folder of the index; without any if they cannot be used."""
    file = (TAGS.identity(folder), known.generation)
    if known.tags_file == file:
        return known
    tag = Category(rows=_no_numbers())
    try:
        kept = TAGS.load(folder)
        if kept is not None and kept.sheet.fingerprint == fingerprint:
            rows, found = _rows_of(kept.arrays["ids"], known.ids)
            numbers = kept.arrays["tags"][found].astype(np.int32)
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(kept.sheet.names):
                raise IndexDamagedError(f"{TAGS.path(folder)} has tags without a name. Delete it.")
            tag = Category(Texts(kept.sheet.names), numbers, rows.astype(np.int32))
    except IndexDamagedError as error:
        _log.warning("%s", error)
    return replace(known, tag=tag, tags_file=file, _passing={}, _facets={})


def _rows_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], Mask]:
    """The rows of the wanted ids that exist, and which of the wanted those are."""
    if not len(ids):
        return np.empty(0, dtype=np.intp), np.zeros(len(wanted), dtype=np.bool_)
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(0, len(ids) - 1)]
    found = (ids[rows] == wanted) & (wanted != NO_IMAGE)
    return rows[found], found


def of_rows(
    generation: int, ids: NDArray[np.int64], roots: Roots, rows: Iterable[tuple[Any, ...]], labels: Iterable[Label]
) -> Columns:
    """The columns of all rows, as ``Tables.what_is_filtered`` and ``labelled_rows`` give them."""
    return _grown(Columns(generation, ()), ids, roots, iter(rows), iter(labels))


def _grown(
    old: Columns, ids: NDArray[np.int64], roots: Roots, rows: Iterator[tuple[Any, ...]], labelled: Iterator[Label]
) -> Columns:
    """The columns with new rows added; ``ids`` are of all rows, the rest of the new ones."""
    folders = _Folders(old.folder, roots)
    formats, cameras, labels = (Texts(each.texts.texts) for each in (old.format, old.camera, old.label))
    end = len(ids)
    folder, format_, camera = (_longer(each.numbers, end, _NONE) for each in (old.folder, old.format, old.camera))
    day, width, height = _longer(old.day, end, _NO_DAY), _longer(old.width, end, 0), _longer(old.height, end, 0)
    for row, root, path, widths, heights, names, taken, models, mtimes in _columns_of(rows):
        at = np.array(row, dtype=np.int64)
        folder[at] = [folders.number(*place) for place in zip(root, path, strict=True)]
        format_[at] = [formats.number(name and name.upper()) for name in names]
        camera[at] = [cameras.number(model) for model in models]
        width[at], height[at] = ([side or 0 for side in sides] for sides in (widths, heights))
        day[at] = _days(taken, mtimes)
    pairs = [np.empty((0, 2), dtype=np.int32)]  # a row, and the number of a label of it
    for row, names in _columns_of(labelled):
        pairs.append(np.array([row, [labels.number(name) for name in names]], dtype=np.int32).T)
    label_rows, label_numbers = _distinct(np.concatenate(pairs)).T
    assert old.label.rows is not None
    return Columns(
        generation=old.generation,
        version=old.version,
        ids=ids,
        label=Category(
            labels,
            np.concatenate([old.label.numbers, label_numbers]),
            np.concatenate([old.label.rows, label_rows]),
        ),
        folder=Category(folders.texts, folder, above=np.array(folders.above, dtype=np.int32).reshape(-1, 2)),
        format=Category(formats, format_),
        camera=Category(cameras, camera),
        day=day,
        year=_years(day),
        width=width,
        height=height,
    )


def _longer(numbers: Numbers, count: int, missing: int) -> Numbers:
    """With as many entries as that."""
    return np.concatenate([numbers, np.full(count - len(numbers), missing, dtype=np.int32)])


def _columns_of(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    """Rows -> columns, for some rows at a time."""
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield tuple(zip(*some, strict=True))


def _distinct(pairs: Numbers) -> Numbers:
    """(p, 2): each pair of a row and a label once; a label file may name one twice."""
    _, first = np.unique(pairs.astype(np.int64) @ np.array([2**31, 1]), return_index=True)
    distinct: Numbers = pairs[first[pairs[first, 1] != _NONE]]
    return distinct


class _Folders:
    """The folders of images, as their paths are shown, and the parents of these."""

    def __init__(self, old: Category, roots: Roots) -> None:
        assert old.above is not None
        self.texts = Texts(old.texts.texts)
        self.above: list[tuple[int, int]] = [*map(tuple, old.above.tolist())]
        self._roots = roots
        self._numbers: dict[tuple[int | None, bytes], int] = {}

    def number(self, root: int | None, path: bytes | None) -> int:
        """The number of the folder in which a file lies."""
        place = (root, b"" if path is None else path.rpartition(b"/")[0])
        if place not in self._numbers:
            name = self._roots[root][1] if root is not None and root in self._roots else ""
            self._numbers[place] = self._number(f"{name}/{place[1].decode('utf-8', 'replace')}".strip("/"))
        return self._numbers[place]

    def _number(self, folder: str) -> int:
        numbers: list[int] = []  # of the folders above it, from the top, and its own
        for end in [*(i for i, letter in enumerate(folder) if letter == "/" and folder[i - 1] != "/"), len(folder)]:
            known = len(self.texts)
            numbers.append(self.texts.number(folder[:end]))
            if numbers[-1] == known:
                self.above += [(known, above) for above in numbers]
        return numbers[-1]


def _day(day: date) -> int:
    return (day - _EPOCH).days


def _days(taken: Sequence[str | None], mtimes_ns: Sequence[int | None]) -> NDArray[np.int64]:
    """The local day of each image, since 1970: by its EXIF data, else by the time of its file."""
    by_exif = np.array(["NaT" if text is None else text[:10] for text in taken], dtype="datetime64[D]")
    seconds = np.array([0 if mtime is None else mtime // 10**9 for mtime in mtimes_ns], dtype=np.int64)
    quarters, quarter = np.unique(seconds // _QUARTER, return_inverse=True)
    offsets = np.array([_utc_offset(int(each) * _QUARTER) for each in quarters], dtype=np.int64)
    by_file = (seconds + offsets[quarter]) // 86_400
    by_file[[mtime is None for mtime in mtimes_ns]] = _NO_DAY
    return np.where(np.isnat(by_exif), by_file, by_exif.astype(np.int64))


def _utc_offset(seconds: int) -> int:
    try:
        return time.localtime(seconds).tm_gmtoff
    except (OverflowError, OSError, ValueError):
        return 0


def _years(day: Numbers) -> Numbers:
    years = day.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return np.where(day == _NO_DAY, _NO_YEAR, years).astype(np.int32)
