"""How an index is searched by words: by the text tower of its own model, or else by the classes its network knows."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors.loading import ExtractorRecipe, source_of
from searchengine.extractors.text_tower import TextTower
from searchengine.index.filters import Cursor, Filter
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import COSINE
from searchengine.index.protocol import Index, Order
from searchengine.index.types import Hit
from searchengine.progress import Say
from searchengine.text.encoder import check_packages
from searchengine.text.seen import WordSearch
from searchengine.text.words import Recognised, Words, few_words


class TextSearch(Protocol):
    """What ranks the images of an index by words. Threads may share it."""

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """How a text ranks the images and, where a (d,) direction of pictures is given, both together; QueryError."""
        ...

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """A sentence, where the best picture for a text, (d,) float32, hardly shows what it says; else None."""
        ...

    def recognised(self, features: NDArray[np.float32]) -> Recognised:
        """(n, d) float32 -> the classes of ImageNet that the network sees in each; none where it knows none."""
        ...


class DirectionWords(Words):
    """Classes of ImageNet, where what is seen in each picture is not kept: a text is one direction among the features.

    So it is in Milvus, which searches by a vector.
    """

    def __init__(self, words: Words, index: Index) -> None:
        super().__init__(words.head)
        self._index = index

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """See ``TextSearch``."""
        return _by_cosine(self._index, self.feature(text), pictures)


class TowerWords:
    """The text tower of CLIP or SigLIP, which was trained together with the image tower of the index."""

    def __init__(self, tower: TextTower, index: Index) -> None:
        self._tower = tower
        self._index = index

    def order(self, text: str, pictures: NDArray[np.float32] | None = None) -> Order:
        """See ``TextSearch``."""
        return _by_cosine(self._index, self._tower.embed([few_words(text)]), pictures)

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """See ``TextSearch``. Nothing is known of the likenesses of a tower that was not measured."""
        return None

    def recognised(self, features: NDArray[np.float32]) -> Recognised:
        """See ``Words.recognised``: nothing, because it knows no fixed classes."""
        none = np.empty(0, dtype=np.intp)
        return none, none, np.empty(0, dtype=np.float32)


def _by_cosine(index: Index, text: NDArray[np.float32], pictures: NDArray[np.float32] | None) -> Order:
    """By the cosine with the (1, d) feature of a text, of length 1, or with what lies halfway to that of pictures."""
    vector = text
    if pictures is not None:
        vector = text + pictures[None] / np.float32(max(float(np.linalg.norm(pictures)), 1e-12))

    def order(k: int, filter: Filter, after: Cursor | None) -> list[Hit]:
        return index.search(vector, k, COSINE, filter=filter, after=after)[0]

    return order


def text_search(index: Index, say: Say | None = None) -> TextSearch:
    """What knows words for an index; with ``say``, weights may be downloaded.

    MissingPackageError; ExtractorError says why nothing knows any.
    """
    recipe = ExtractorRecipe.of_manifest(index.spec, index.manifest("weights_file"))
    if not _has_text_tower(recipe.spec.model):
        check_packages()
        words = Words.of(index, say)
        return WordSearch(words, index) if isinstance(index, LocalIndex) else DirectionWords(words, index)
    return TowerWords(TextTower(recipe.export(say).xml.parent), index)


def _has_text_tower(model: str) -> bool:
    """Whether a text tower is exported with a model; not with one that this version does not know."""
    try:
        return source_of(model).has_text_tower
    except ExtractorError:
        return False  # the index may keep what words need of it all the same
