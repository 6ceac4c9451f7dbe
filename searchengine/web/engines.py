"""The search engines of a server: what the pages need of one, and how several share an extractor."""

from __future__ import annotations

from threading import Lock
from weakref import WeakValueDictionary

from searchengine.engine import SearchEngine, open_index
from searchengine.extractors import Extractor
from searchengine.index.protocol import Index
from searchengine.learn import Classifier, latest_classifier
from searchengine.settings import Settings
from searchengine.web.overview import LatestEvaluation, Overview, cached_evaluation, cached_overview


class SharedExtractors:
    """Loaded extractors by fingerprint: indexes of the same extractor share one copy.

    An extractor is released when no index uses it any more.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one is loaded at a time, which bounds the memory
        self.loaded: WeakValueDictionary[str, Extractor] = WeakValueDictionary()


class ServedEngine(SearchEngine):
    """A search engine with what is kept beside its index for the pages; it shares its extractor with others.

    That is loaded at the first search by an upload.
    """

    def __init__(
        self,
        index: Index,
        shared: SharedExtractors | None = None,
        *,
        precision: str = "auto",
        runtime: str = "auto",
    ) -> None:
        super().__init__(index, precision=precision, runtime=runtime)
        self._shared = shared or SharedExtractors()
        self._loading = self._shared.lock
        self._classifier = latest_classifier(index)
        self._overview = cached_overview(index)
        self._evaluation = cached_evaluation(index)

    def classifier(self) -> Classifier | None:
        """The classifier of the index, as it is now; IndexError_ where it cannot be used."""
        return self._classifier.get()

    def overview(self) -> Overview:
        """The map and the groups of the index, as they are now."""
        return self._overview.get()

    def evaluation(self) -> LatestEvaluation:
        """The evaluation of the index, as it is now."""
        return self._evaluation.get()

    def _load(self) -> Extractor:
        extractor = self._shared.loaded.get(self.index.fingerprint) or super()._load()
        self._shared.loaded[extractor.spec.fingerprint] = extractor
        return extractor


def open_engines(settings: Settings) -> list[ServedEngine]:
    """A search engine over each index that the settings name, in their order; IndexError_."""
    shared = SharedExtractors()
    return [
        ServedEngine(
            open_index(folder, images_dir=settings.images_dir, exact=settings.ann == "off"),
            shared,
            precision=settings.precision,
            runtime=settings.runtime,
        )
        for folder in settings.index_dir
    ]
