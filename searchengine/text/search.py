"""Search by words: with the text tower of an index's own model, or else by the ImageNet classes that its network knows.

Start reading at ``text_search``. For an index in a folder, ranking by classes is ConSE (Norouzi et al. 2014,
https://arxiv.org/abs/1312.5650). A picture is described by its ten most probable classes, with weights; a text means
each class to some degree. The more of what a picture shows is meant, the better the match. A text that means many
classes, like "dog" or "vehicle", finds pictures of any one of them, which no single direction among the features does.

If a query has words and a picture, images are ranked by the product of the fit of the words and
exp(LIKENESS * cosine), as if the two were independent.

The classes of each picture are kept beside the index, and computed for new pictures at the end of each indexing run.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived, timestamp
from searchengine.errors import ExtractorError, IndexDamagedError, SearchEngineError
from searchengine.extractors.loading import ExtractorRecipe, source_of
from searchengine.extractors.spec import ExtractorSpec
from searchengine.extractors.text_tower import TextTower
from searchengine.index.filters import Cursor, Filter
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE
from searchengine.index.protocol import Index, Order
from searchengine.index.state import State
from searchengine.index.types import Hit
from searchengine.progress import Say
from searchengine.text.encoder import check_packages
from searchengine.text.words import (
    CLASSES,
    LEAST_FIT,
    LIKENESS,
    ROWS,
    SHOWN,
    Recognised,
    Words,
    few_words,
    head_of,
    keep_tags,
    product,
)

_log = logging.getLogger(__name__)
_COMPARED = 4096  # rows compared with a vector at a time


class TextSearch(Protocol):
    """Ranks the images of an index by words. Threads may share it."""

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """Return the ranking of images by a text, combined with a (d,) direction of pictures if one is given.

        Raises QueryError for an empty or too long text.
        """
        ...

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """Return a warning if the best picture for a text, (d,) float32, hardly shows what the text says; else None."""
        ...

    def recognised(self, features: NDArray[np.float32]) -> Recognised:
        """Return the ImageNet classes seen in (n, d) float32 features; none if the model has no such classes."""
        ...


def text_search(index: Index, say: Say | None = None) -> TextSearch:
    """Return the word search for an index; with ``say``, weights may be downloaded.

    Raises MissingPackageError, and ExtractorError with the reason if the index cannot be searched by words.
    """
    recipe = ExtractorRecipe.of_manifest(index.spec, index.manifest("weights_file"))
    if not _has_text_tower(recipe.spec.model):
        check_packages()
        words = Words.of(index, say)
        return WordSearch(words, index) if isinstance(index, LocalIndex) else DirectionWords(words, index)
    return TowerWords(TextTower(recipe.export(say).xml.parent), index)


def _has_text_tower(model: str) -> bool:
    """Return whether a text tower is exported with a model; False if this version does not know the model."""
    try:
        return source_of(model).has_text_tower
    except ExtractorError:
        return False  # the index may still have kept the head of its network, which is all that words need


# -- ranking by the cosine with a vector ------------------------------------------------------------------------------


class DirectionWords(Words):
    """Ranks by ImageNet classes without the classes of each picture: a text becomes one direction among the features.

    Used for Milvus, which searches by a vector.
    """

    def __init__(self, words: Words, index: Index) -> None:
        super().__init__(words.head)
        self._index = index

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """See ``TextSearch``."""
        return _by_cosine(self._index, self.feature(text), pictures)


class TowerWords:
    """Ranks with the text tower of CLIP or SigLIP, which was trained together with the image tower of the index."""

    def __init__(self, tower: TextTower, index: Index) -> None:
        self._tower = tower
        self._index = index

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """See ``TextSearch``."""
        return _by_cosine(self._index, self._tower.embed([few_words(text)]), pictures)

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """See ``TextSearch``. Never warns, because the similarities of an arbitrary tower have no known scale."""
        return None

    def recognised(self, features: NDArray[np.float32]) -> Recognised:
        """See ``TextSearch``. Always empty, because a text tower has no fixed classes."""
        none = np.empty(0, dtype=np.intp)
        return none, none, np.empty(0, dtype=np.float32)


def _by_cosine(index: Index, text: NDArray[np.float32], pictures: NDArray[np.float32] | None) -> Order:
    """Rank by the cosine with a (1, d) text feature of length 1, or with its sum with the direction of pictures."""
    vector = text
    if pictures is not None:
        vector = text + pictures[None] / np.float32(max(float(np.linalg.norm(pictures)), 1e-12))

    def order(k: int, filter: Filter, after: Cursor | None) -> list[Hit]:
        return index.search(vector, k, COSINE, filter=filter, after=after)[0]

    return order


# -- ranking by the classes seen in each picture -----------------------------------------------------------------------


def keep_words(folder: Path, spec: ExtractorSpec, weights: Path | None) -> None:
    """Store the head of an index's network, the tags of its images and their classes in its folder, as far as possible.

    Called at the end of an indexing run, which it must not make fail. ``weights`` is the file that the user named.
    """
    with contextlib.suppress(SearchEngineError):
        words = Words(head_of(folder, spec, weights))
        with closing(LocalIndex.open(folder)) as index:
            keep_tags(words, index)
            keep_seen(words, index)


@dataclass(frozen=True, slots=True)
class SeenSheet:
    """The metadata of the classes seen in the first ``rows`` rows of a feature matrix."""

    format: Literal[1]
    made: str
    fingerprint: str
    features_file: str
    rows: int


# Arrays are stored rank by rank, so that scoring a text reads them sequentially.
SEEN = Derived("seen.npz", SeenSheet, command="searchengine words", arrays=("classes", "weights"))


@dataclass(frozen=True, slots=True)
class SeenClasses:
    """The classes seen in each row of a matrix, (SHOWN, r) uint16, and their weights, (SHOWN, r) float32."""

    matrix: tuple[str, str]  # the fingerprint and the file name of the features
    classes: NDArray[np.uint16]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return int(self.classes.shape[1])

    def fits(self, meant: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far each row shows what a text means, (r,) float32.

        ``meant`` is (1000,) float32: how far the text means each class.
        """
        fits = np.zeros(len(self), dtype=np.float32)
        for classes, weights in zip(self.classes, self.weights, strict=True):
            fits += weights * meant[classes]
        return fits


def keep_seen(words: Words, index: Index) -> None:
    """Compute the classes of new images and store those of all images. Raises IndexingError."""
    state = index.state()
    stored = _load_seen(index, state)
    if stored is None or len(stored) < len(state.ids):
        seen = _with_new_rows(stored, words, state)
        sheet = SeenSheet(1, timestamp(), state.fingerprint, state.features_file, len(seen))
        SEEN.save(index.folder, sheet, {"classes": seen.classes, "weights": seen.weights.astype(np.float16)})


def _load_seen(index: Index, state: State) -> SeenClasses | None:
    """Return the stored classes of a state's matrix if they can be used."""
    matrix = state.fingerprint, state.features_file
    try:
        stored = SEEN.load(index.folder)
    except IndexDamagedError as error:
        _log.warning("%s", error)
        return None
    if stored is None or (stored.sheet.fingerprint, stored.sheet.features_file) != matrix:
        return None
    classes, weights = stored.arrays["classes"], stored.arrays["weights"]
    fits = classes.shape == weights.shape == (SHOWN, stored.sheet.rows) and stored.sheet.rows <= len(state.ids)
    if not fits or classes.dtype != np.uint16 or classes.max(initial=0) >= CLASSES:
        _log.warning("%s does not fit the index. It is not used.", SEEN.path(index.folder))
        return None
    return SeenClasses(matrix, classes, weights.astype(np.float32))


def _with_new_rows(seen: SeenClasses | None, words: Words, state: State) -> SeenClasses:
    """Return these classes extended by those of the rows that a state has added."""
    if seen is None:
        none = np.empty((SHOWN, 0))
        seen = SeenClasses((state.fingerprint, state.features_file), none.astype(np.uint16), none.astype(np.float32))
    classes, weights = [seen.classes], [seen.weights]
    for start in range(len(seen), len(state.ids), ROWS):
        shown = words.shown(np.asarray(state.rows[start : min(start + ROWS, len(state.ids))]))
        classes.append(shown[0].T)
        weights.append(shown[1].T)
    return SeenClasses(seen.matrix, np.concatenate(classes, axis=1), np.concatenate(weights, axis=1))


class WordSearch(Words):
    """Ranks the images of an index by the classes seen in each, kept with the index. Threads may share it."""

    def __init__(self, words: Words, index: LocalIndex) -> None:
        super().__init__(words.head)
        self._index = index
        self._lock = threading.Lock()
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
        state, passing = self._index.passing(filter)
        rows = np.flatnonzero(passing)
        ids, distances = state.ids[rows], self.distances(state, rows, meant, pictures)
        if after is not None:
            later = (distances > after.distance) | ((distances == after.distance) & (ids > after.id))
            ids, distances = ids[later], distances[later]
        if len(ids) > k:
            among = distances <= np.partition(distances, k - 1)[k - 1]
            ids, distances = ids[among], distances[among]
        order = np.lexsort((ids, distances))[:k]
        hits = self._index.hits(state, ids[order], distances[order], COSINE)
        if len(hits) < len(order) and self._index.state() is not state:  # a run has removed the others meanwhile
            return self._search(meant, pictures, k, filter, after)
        return hits

    def distances(
        self, state: State, rows: NDArray[np.intp], meant: NDArray[np.float32], pictures: NDArray[np.float32] | None
    ) -> NDArray[np.float64]:
        """Return how far n rows of a state are from a text's meaning and, if given, from pictures: (n,) float64."""
        fits = self._seen_in(state).fits(meant)[rows].astype(np.float64)
        if pictures is None:
            return 1.0 - fits
        return _cosine_distances(state, rows, pictures) - np.log((fits + LEAST_FIT) / (1 + LEAST_FIT)) / LIKENESS

    def _seen_in(self, state: State) -> SeenClasses:
        """Return the classes of a state's rows, computing those that are not kept."""
        with self._lock:
            seen = self._seen
            if seen is None or seen.matrix != (state.fingerprint, state.features_file):
                seen = _load_seen(self._index, state)
            if seen is None or len(seen) < len(state.ids):
                seen = _with_new_rows(seen, self, state)
            self._seen = seen
        if len(seen) > len(state.ids):  # another thread has read a newer state
            seen = SeenClasses(seen.matrix, seen.classes[:, : len(state.ids)], seen.weights[:, : len(state.ids)])
        return seen


def _cosine_distances(state: State, rows: NDArray[np.intp], vector: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine distances of n rows of a state from a (d,) vector, (n,) float64; 1 for a row of zeros."""
    products = np.empty(len(rows), dtype=np.float64)
    whole = len(rows) == len(state.rows)
    for start in range(0, len(rows), _COMPARED):
        block = slice(start, start + _COMPARED)
        products[block] = product(state.rows[block] if whole else state.rows[rows[block]], vector)
    lengths = np.sqrt(state.squared_norms[rows]) * float(np.linalg.norm(vector))
    return np.asarray(1.0 - products / np.maximum(lengths, 1e-12))
