"""What the network of an index sees in each picture, kept beside the index: it ranks pictures by words, and gives tags.

A picture shows its ten most probable classes, each by a weight; a text means each class to some degree, and the picture
is the better a match, the more of what it shows is meant. This is ConSE (Norouzi et al. 2014,
https://arxiv.org/abs/1312.5650). Where a text means many classes, like "dog" or "vehicle", it finds pictures of any one
of them, which no single direction among the features does.

Where a query has words and a picture, an image is the better a match, the larger the product of its fit and
exp(LIKENESS * cosine), as if the two were independent.

Tags are the classes that the network is rather sure of; what it sees need not be there. Filters find them in the folder
of the index: see ``columns.TAGS``. Both are computed at the end of each indexing run, for the pictures that are new.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived, timestamp
from searchengine.errors import IndexDamagedError, SearchEngineError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.columns import TAGS, TagSheet
from searchengine.index.filters import Cursor, Filter
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE
from searchengine.index.protocol import Index, Order
from searchengine.index.state import State
from searchengine.index.types import Hit, ImageRecord
from searchengine.text.words import (
    CLASSES,
    LEAST_FIT,
    LIKENESS,
    SHOWN,
    Recognised,
    Words,
    class_titles,
    head_of,
    product,
)

_log = logging.getLogger(__name__)
_ROWS = 4096  # pictures that are looked at together


def keep_words(folder: Path, spec: ExtractorSpec, weights: Path | None) -> None:
    """Have the folder of an index keep what words need of its network, and the tags of its images, as far as there are
    any: at the end of a run, which it must not fail. ``weights`` is the file that the user named.
    """
    with contextlib.suppress(SearchEngineError):
        words = Words(head_of(folder, spec, weights))
        with closing(LocalIndex.open(folder)) as index:
            keep_tags(words, index)
            keep_seen(words, index)


@dataclass(frozen=True, slots=True)
class SeenSheet:
    """What was seen in the first ``rows`` of a feature matrix."""

    format: Literal[1]
    made: str
    fingerprint: str
    features_file: str
    rows: int


# By the columns of arrays, so that a text reads them one after the other.
SEEN = Derived("seen.npz", SeenSheet, command="searchengine words", arrays=("classes", "weights"))


@dataclass(frozen=True, slots=True)
class SeenClasses:
    """The classes that are seen in each row of a matrix, (SHOWN, r) uint16, and their weights, (SHOWN, r) float32."""

    matrix: tuple[str, str]  # the fingerprint and the file of the features
    classes: NDArray[np.uint16]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return int(self.classes.shape[1])

    def fits(self, meant: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1000,) float32, how far a text means each class -> (r,) float32, how far each row shows what is meant."""
        fits = np.zeros(len(self), dtype=np.float32)
        for classes, weights in zip(self.classes, self.weights, strict=True):
            fits += weights * meant[classes]
        return fits


def keep_seen(words: Words, index: Index) -> None:
    """Look at the images that are new, and keep what is seen in all. IndexingError."""
    now = index.state()
    kept = _kept(index, now)
    if kept is None or len(kept) < len(now.ids):
        seen = _with_new_rows(kept, words, now)
        sheet = SeenSheet(1, timestamp(), now.fingerprint, now.features_file, len(seen))
        SEEN.save(index.folder, sheet, {"classes": seen.classes, "weights": seen.weights.astype(np.float16)})


def _kept(index: Index, now: State) -> SeenClasses | None:
    """What is kept of the matrix of a state, if it can be used."""
    matrix = now.fingerprint, now.features_file
    try:
        kept = SEEN.load(index.folder)
    except IndexDamagedError as error:
        _log.warning("%s", error)
        return None
    if kept is None or (kept.sheet.fingerprint, kept.sheet.features_file) != matrix:
        return None
    classes, weights = kept.arrays["classes"], kept.arrays["weights"]
    fits = classes.shape == weights.shape == (SHOWN, kept.sheet.rows) and kept.sheet.rows <= len(now.ids)
    if not fits or classes.dtype != np.uint16 or classes.max(initial=0) >= CLASSES:
        _log.warning("%s does not fit the index. It is not used.", SEEN.path(index.folder))
        return None
    return SeenClasses(matrix, classes, weights.astype(np.float32))


def _with_new_rows(seen: SeenClasses | None, words: Words, now: State) -> SeenClasses:
    """The same, and the rows of a state that came after."""
    if seen is None:
        none = np.empty((SHOWN, 0))
        seen = SeenClasses((now.fingerprint, now.features_file), none.astype(np.uint16), none.astype(np.float32))
    classes, weights = [seen.classes], [seen.weights]
    for start in range(len(seen), len(now.ids), _ROWS):
        shown = words.shown(np.asarray(now.rows[start : min(start + _ROWS, len(now.ids))]))
        classes.append(shown[0].T)
        weights.append(shown[1].T)
    return SeenClasses(seen.matrix, np.concatenate(classes, axis=1), np.concatenate(weights, axis=1))


class WordSearch(Words):
    """Words that also rank the images of an index by what is seen in them. Threads may share it."""

    def __init__(self, words: Words, index: LocalIndex) -> None:
        super().__init__(words.head)
        self._index = index
        self._looking = threading.Lock()
        self._seen: SeenClasses | None = None

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """See ``TextSearch``."""
        return partial(self._search, self.meant(text), pictures)

    def _search(
        self,
        meant: NDArray[np.float32],
        pictures: NDArray[np.float32] | None,
        k: int,
        filter: Filter,
        after: Cursor | None,
    ) -> list[Hit]:
        now, passing = self._index.passing(filter)
        rows = np.flatnonzero(passing)
        ids, distances = now.ids[rows], self.distances(now, rows, meant, pictures)
        if after is not None:
            later = (distances > after.distance) | ((distances == after.distance) & (ids > after.id))
            ids, distances = ids[later], distances[later]
        if len(ids) > k:
            among = distances <= np.partition(distances, k - 1)[k - 1]
            ids, distances = ids[among], distances[among]
        order = np.lexsort((ids, distances))[:k]
        return self._index.hits(now, ids[order], distances[order], COSINE)

    def distances(
        self, now: State, rows: NDArray[np.intp], meant: NDArray[np.float32], pictures: NDArray[np.float32] | None
    ) -> NDArray[np.float64]:
        """How far n rows of a state are from what a text means and, if they are given, from pictures: (n,) float64."""
        fits = self._seen_in(now).fits(meant)[rows].astype(np.float64)
        if pictures is None:
            return 1.0 - fits
        return _cosine_distances(now, rows, pictures) - np.log((fits + LEAST_FIT) / (1 + LEAST_FIT)) / LIKENESS

    def _seen_in(self, now: State) -> SeenClasses:
        """What is seen in the rows of a state; those that nobody has looked at are looked at now."""
        with self._looking:
            seen = self._seen
            if seen is None or seen.matrix != (now.fingerprint, now.features_file):
                seen = _kept(self._index, now)
            if seen is None or len(seen) < len(now.ids):
                seen = _with_new_rows(seen, self, now)
            self._seen = seen
        if len(seen) > len(now.ids):  # another thread has seen more rows
            seen = SeenClasses(seen.matrix, seen.classes[:, : len(now.ids)], seen.weights[:, : len(now.ids)])
        return seen


def _cosine_distances(now: State, rows: NDArray[np.intp], vector: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) float64 of n rows of a state from a (d,) vector; 1 for a row of zeros."""
    products = np.empty(len(rows), dtype=np.float64)
    whole = len(rows) == len(now.rows)
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        products[block] = product(now.rows[block] if whole else now.rows[rows[block]], vector)
    lengths = np.sqrt(now.squared_norms[rows]) * float(np.linalg.norm(vector))
    return np.asarray(1.0 - products / np.maximum(lengths, 1e-12))


# -- tags --------------------------------------------------------------------------------------------------------------


class Recogniser(Protocol):
    """See ``Words.recognised``."""

    def recognised(self, features: NDArray[np.float32], /) -> Recognised: ...


@dataclass(frozen=True, slots=True)
class Tag:
    """A class of ImageNet that the network sees in a picture; it may be wrong."""

    name: str
    probability: float


def tags_of(words: Recogniser, index: Index, ids: Sequence[int] | None = None) -> list[tuple[ImageRecord, list[Tag]]]:
    """The images in which the network sees something, each with its tags: of the ids, or of all; UnknownImageError."""
    now = index.state()
    rows = now.live
    if ids is not None:
        existing = [record.id for record in index.records(ids)]
        rows = rows[np.isin(now.ids[rows], existing)]
    titles = class_titles()
    tags: dict[int, list[Tag]] = {}
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        for row, number, probability in zip(*words.recognised(np.asarray(now.rows[block])), strict=True):
            tags.setdefault(int(now.ids[block[row]]), []).append(Tag(titles[number], float(probability)))
    return [(record, tags[record.id]) for record in index.known(list(tags))]


def keep_tags(words: Words, index: Index) -> None:
    """Compute the tags of the images that have none yet, and keep them. IndexingError, MissingPackageError."""
    now = index.state()
    titles = np.array(class_titles())
    first, ids, tags = 0, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.str_)
    kept = TAGS.load(index.folder)
    if kept is not None and kept.sheet.computed_from == (now.fingerprint, now.features_file):
        if kept.sheet.rows == len(now.ids):
            return
        first = kept.sheet.rows
        same = ~np.isin(kept.arrays["ids"], now.ids[first:])  # the others have other content now
        ids, tags = kept.arrays["ids"][same], np.array(kept.sheet.names, dtype=np.str_)[kept.arrays["tags"][same]]
    for start in range(first, len(now.ids), _ROWS):
        block = slice(start, min(start + _ROWS, len(now.ids)))
        rows, classes, _ = words.recognised(np.asarray(now.rows[block]))
        ids = np.concatenate([ids, now.ids[block][rows]])
        tags = np.concatenate([tags, titles[classes]])
    there = np.isin(ids, now.ids[now.live])
    names, numbers = np.unique(tags[there], return_inverse=True)
    sheet = TagSheet(1, timestamp(), now.fingerprint, now.features_file, len(now.ids), list(map(str, names)))
    TAGS.save(index.folder, sheet, {"ids": ids[there], "tags": numbers.astype(np.int32)})


def known_tags(index: Index) -> dict[int, list[str]]:
    """The tags that are kept, by the id of the image; none where they are of another extractor."""
    kept = TAGS.load(index.folder)
    tags: dict[int, list[str]] = {}
    if kept is not None and kept.sheet.fingerprint == index.fingerprint:
        pairs: tuple[NDArray[np.int64], NDArray[np.int32]] = (kept.arrays["ids"], kept.arrays["tags"])
        for id_, number in zip(*(array.tolist() for array in pairs), strict=True):
            tags.setdefault(id_, []).append(kept.sheet.names[number])
    return tags
