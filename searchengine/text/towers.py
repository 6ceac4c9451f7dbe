"""What knows words for an index: the text tower of its own model, or else the classes that its network knows."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.extractors.loading import exported_model
from searchengine.extractors.sources import source_of
from searchengine.extractors.spec import ExtractorSpec
from searchengine.extractors.text_tower import TextTower
from searchengine.files import path_from_text
from searchengine.index.local import LocalIndex
from searchengine.index.protocol import Index, Order
from searchengine.progress import Say
from searchengine.text.packages import check_packages
from searchengine.text.seen import WordSearch
from searchengine.text.words import Seen, Words, few_words


class TextSearch(Protocol):
    """Texts -> features of an index. Threads may share it."""

    def feature(self, text: str) -> NDArray[np.float32]:
        """A text -> (1, d) float32 of length 1, to be compared with features by the cosine; QueryError."""
        ...

    def order(self, text: str) -> Order | None:
        """How a text ranks images, where that is not by the cosine of its ``feature``; QueryError."""
        ...

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """A sentence, where the best picture for a text, (d,) float32, hardly shows what it says; else None."""
        ...

    def seen(self, features: NDArray[np.float32]) -> Seen:
        """(n, d) float32 -> the classes of ImageNet that the network sees in each; none where it knows none."""
        ...


class TowerWords:
    """The text tower of CLIP or SigLIP, which was trained together with the image tower of the index."""

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower

    def feature(self, text: str) -> NDArray[np.float32]:
        """See ``TextSearch``."""
        return self._tower.embed([few_words(text)])

    def order(self, text: str) -> Order | None:
        """See ``TextSearch``."""
        return None

    def doubt(self, text: str, best: NDArray[np.float32]) -> str | None:
        """See ``TextSearch``. Nothing is known of the likenesses of a tower that was not measured."""
        return None

    def seen(self, features: NDArray[np.float32]) -> Seen:
        """See ``Words.seen``: nothing, because it knows no fixed classes."""
        none = np.empty(0, dtype=np.intp)
        return none, none, np.empty(0, dtype=np.float32)


def text_search(index: Index, say: Say | None = None) -> TextSearch:
    """What knows words for an index; with ``say``, weights may be downloaded.

    MissingPackageError; ExtractorError says why nothing knows any.
    """
    spec = ExtractorSpec.from_json(index.spec)
    if not source_of(spec.model).has_text_tower:
        check_packages()
        words = Words.of(index, say)
        return WordSearch(words, index) if isinstance(index, LocalIndex) else words
    weights = index.manifest("weights_file")
    model = exported_model(spec, weights_file=path_from_text(weights) if weights else None, progress=say)
    return TowerWords(TextTower(model.xml.parent))
