"""The search engines of a server: an index as the pages need it, with what is kept or found out beside it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from searchengine.address import Address, MilvusAddress
from searchengine.derived import Cached
from searchengine.engine import SearchEngine, open_index
from searchengine.errors import IndexError_, QueryError, UnknownImageError
from searchengine.extractors import Extractor
from searchengine.index.exact import Searcher
from searchengine.index.protocol import Index
from searchengine.learn import Classifier, latest_classifier
from searchengine.learn.classifiers import NEIGHBOURS, Prediction, vote
from searchengine.query import Query
from searchengine.settings import Settings
from searchengine.web.overview import LatestEvaluation, Overview, cached_evaluation, cached_overview

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_log = logging.getLogger(__name__)


class SharedExtractors:
    """Loaded extractors by fingerprint: indexes of the same extractor share one copy.

    An extractor is released when no index uses it any more.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one is loaded at a time, which bounds the memory
        self.loaded: WeakValueDictionary[str, Extractor] = WeakValueDictionary()


class ServedEngine(SearchEngine):
    """A search engine with what is kept beside its index for the pages; it shares its extractor with others.

    That is loaded at the first search by an upload. ``name`` stands in the addresses of the index, and on the page.
    """

    def __init__(
        self,
        index: Index,
        shared: SharedExtractors | None = None,
        *,
        name: str = "index",
        precision: str = "auto",
        runtime: str = "auto",
    ) -> None:
        super().__init__(index, precision=precision, runtime=runtime)
        self.name = name
        self.nearness = Nearness(index)
        self._shared = shared or SharedExtractors()
        self._loading = self._shared.lock
        self._classifier = latest_classifier(index)
        self._overview = cached_overview(index)
        self._evaluation = cached_evaluation(index)

    @property
    def title(self) -> str:
        """The extractor in words, e.g. "VGG16 fc2, ImageNet weights, L2-normalised"."""
        return self.index.manifest("extractor") or ""

    @property
    def takes_uploads(self) -> bool:
        """Whether it can be searched by an uploaded image, which needs the model that made it."""
        return self.spec.embeds

    def warm(self) -> None:
        """Load what the first search, and the first filter, would have to wait for."""
        super().warm()
        self.index.facets()
        self.nearness.warm()

    def classifier(self) -> Classifier | None:
        """The classifier of the index, as it is now; IndexError_ where it cannot be used."""
        return self._classifier.get()

    def overview(self) -> Overview:
        """The map and the groups of the index, as they are now."""
        return self._overview.get()

    def evaluation(self) -> LatestEvaluation:
        """The evaluation of the index, as it is now."""
        return self._evaluation.get()

    def predict_labels(self, query: Query, start: NDArray[np.float32]) -> PredictedLabels | None:
        """The labels that the classifier predicts for the (1, d) start of a query; None without a classifier.

        It is sure only where the label is also that of most of the nearest images, and these are near.
        """
        try:
            classifier = self.classifier()
            if classifier is None:
                return None
            labels = classifier.predict(start)
        except (IndexError_, QueryError) as error:
            # The log names the file; the page names no path, and shows the search without a label.
            _warn_once(str(error))
            return PredictedLabels(problem="The classifier of this index cannot be used. Fit it again.")
        itself = None if query.start is None else query.start.id
        hits = self.index.search(start, NEIGHBOURS + 1)[0]
        neighbours = [hit for hit in hits if hit.id != itself][:NEIGHBOURS]
        votes = [share.label for share in vote([hit.record.labels for hit in neighbours])][:1]
        is_close = bool(neighbours) and not self.nearness.is_far(neighbours[0].distance)
        best: list[Prediction] = []
        unsure: tuple[str, ...] = ()
        if is_close and votes == [labels[0].label]:
            best = labels[:1] + [label for label in labels[1:_MAX_LABELS] if label.probability >= _MIN_PROBABILITY]
        else:
            unsure = tuple(dict.fromkeys([labels[0].label, *votes, *(label.label for label in labels[1:2])]))[:2]
        held_out = classifier.report.logistic
        accuracy = None if held_out is None else held_out.accuracy
        return PredictedLabels(tuple(best), unsure, accuracy, classifier.stale)

    def _load(self) -> Extractor:
        extractor = self._shared.loaded.get(self.index.fingerprint) or super()._load()
        self._shared.loaded[extractor.spec.fingerprint] = extractor
        return extractor


def open_engines(settings: Settings) -> list[ServedEngine]:
    """A search engine over each index that the settings name, in their order; IndexError_."""
    shared = SharedExtractors()
    return [
        ServedEngine(
            open_index(address, images_dir=settings.images_dir, exact=settings.ann == "off"),
            shared,
            name=name,
            precision=settings.precision,
            runtime=settings.runtime,
        )
        for address, name in zip(settings.index_dir, names_of(settings.index_dir), strict=True)
    ]


def names_of(addresses: Sequence[Address]) -> list[str]:
    """A name for each index, fit for an address: its folder's own, with its parent's where two are the same.

    A collection in Milvus counts as a folder of its server.
    """
    folders = [
        Path("/", address.host, address.collection)
        if isinstance(address, MilvusAddress)
        else address.expanduser().absolute()
        for address in addresses
    ]
    plain = [_cleaned(folder.name) for folder in folders]
    names: list[str] = []
    for folder, name in zip(folders, plain, strict=True):
        if plain.count(name) > 1:
            name = _cleaned(f"{folder.parent.name}-{folder.name}")
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names


def _cleaned(name: str) -> str:
    return _NOT_IN_A_NAME.sub("-", name).strip(".-") or "index"


# -- labels of a query ------------------------------------------------------------------------------------------------

_MAX_LABELS = 3
_MIN_PROBABILITY = 0.01  # of a label after the first


@dataclass(frozen=True, slots=True)
class PredictedLabels:
    """The most probable labels, best first; ``problem`` says why there are none.

    ``best`` is empty, and ``unsure`` has the labels that it may be, where the nearest images carry another label, or
    none of them is near. ``accuracy`` is the share of held-out images that were labelled right, None where none could
    be held out. ``stale``: images or labels have changed since the classifier was fitted.
    """

    best: tuple[Prediction, ...] = ()
    unsure: tuple[str, ...] = ()
    accuracy: float | None = None
    stale: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        if self.problem:
            return {"error": self.problem}
        labels = [{"label": prediction.label, "probability": prediction.probability} for prediction in self.best]
        unsure = {"not_sure": self.unsure} if self.unsure else {}
        return {"labels": labels, **unsure, "accuracy": self.accuracy, "stale": self.stale}


@lru_cache(maxsize=32)
def _warn_once(sentence: str) -> None:
    _log.warning("%s", sentence)


# -- when the nearest image is not near -------------------------------------------------------------------------------

_SAMPLE = 24  # images of the collection, searched in one pass over its features
_MIN_IMAGES = 40  # a smaller collection has no usual distance
_QUANTILE = 0.95


class Nearness:
    """When the nearest image is not near, judged by how near the images of the collection are to one another.

    What a distance means depends on the extractor and on the collection, so no fixed number would do. A neighbour is
    far when it is farther than 95 % of nearest neighbours here, and farther than half the median distance between two
    images; the latter for collections of near copies, in which everything that is merely similar would be far.

    It is measured when the server warms up, or at the first question; again when another extractor has made the
    collection; and again in the background, while the old figure is used, when the collection has doubled.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._limit = Cached(self._key, self._measure, in_background=lambda old, new: old[0] == new[0])

    def warm(self) -> None:
        """Measure now."""
        with suppress(UnknownImageError):
            self._limit.get()

    def is_far(self, distance: float) -> bool:
        """Whether a nearest neighbour at this distance is far."""
        try:
            return distance > self._limit.get()
        except UnknownImageError:  # an image was removed meanwhile: the next question measures again
            return False

    def _key(self) -> tuple[str, int]:
        """What the limit holds for: an extractor, and the size of the collection by powers of two; 0 if too small."""
        images = len(self._index)
        return self._index.fingerprint, images.bit_length() if images >= _MIN_IMAGES else 0

    def _measure(self) -> float:
        if len(self._index) < _MIN_IMAGES:
            return float("inf")  # nothing is far
        ids = [record.id for record in self._index.sample(_SAMPLE)]
        features = np.stack([self._index.feature(id_) for id_ in ids])  # (n, d) float32
        neighbours = self._index.search(features, 2)
        between = self._between(features)
        distances = sorted(
            next((hit.distance for hit in hits if hit.id != id_), float("inf"))
            for id_, hits in zip(ids, neighbours, strict=True)
        )
        usual = distances[int(_QUANTILE * (len(distances) - 1))]
        return max(usual, between / 2) if between > 0 else usual  # half a negative inner product means nothing

    def _between(self, features: NDArray[np.float32]) -> float:
        """The median distance between two different rows of these; 0 where there are fewer than two."""
        neighbours = Searcher.of_rows(features, self._index.metric).nearest(features, max(len(features), 1))
        pairs = [
            distance
            for row, ranked in enumerate(neighbours)
            for other, distance in zip(ranked.positions, ranked.distances, strict=True)
            if other > row
        ]
        return float(np.median(pairs)) if pairs else 0.0
