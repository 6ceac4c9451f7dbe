"""The search engines of one server: one an index, which share what is large."""

from __future__ import annotations

from threading import Lock
from weakref import WeakValueDictionary

from searchengine.engine import SearchEngine, open_index
from searchengine.extractors import Extractor
from searchengine.index.local import LocalIndex
from searchengine.settings import Settings


class SharedExtractors:
    """Extractors that are loaded, by fingerprint: two indexes made by the same one hold a single copy of it.

    One is let go of when no index needs it any more.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one is loaded at a time, so that memory is not needed twice
        self.loaded: WeakValueDictionary[str, Extractor] = WeakValueDictionary()


class ServedEngine(SearchEngine):
    """A search engine among others in one process. Its extractor is loaded when a picture is first searched for."""

    def __init__(self, index: LocalIndex, shared: SharedExtractors, *, precision: str, runtime: str) -> None:
        super().__init__(index, precision=precision, runtime=runtime)
        self._shared = shared

    def extractor(self) -> Extractor:
        """The extractor that made the index; another index's, if that was made by the same."""
        fingerprint = self.index.fingerprint
        loaded = self._extractor
        if loaded is not None and loaded[0] == fingerprint:
            return loaded[1]
        with self._shared.lock:
            found = self._shared.loaded.get(fingerprint)
            if found is None:
                found = super().extractor()
                fingerprint = found.spec.fingerprint  # the index may have been rebuilt just now
                self._shared.loaded[fingerprint] = found
            self._extractor = (fingerprint, found)
            return found


def open_engines(settings: Settings) -> list[ServedEngine]:
    """A search engine over each index that the settings name, in their order; IndexError_."""
    shared = SharedExtractors()
    return [
        ServedEngine(
            open_index(folder, images_dir=settings.images_dir),
            shared,
            precision=settings.precision,
            runtime=settings.runtime,
        )
        for folder in settings.index_dir
    ]
