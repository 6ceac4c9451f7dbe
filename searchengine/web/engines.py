"""The search engines of a server: each index with its extractor and the data that the pages show about it."""

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
from searchengine.learn import latest_classifier
from searchengine.learn.classifiers import NEIGHBOURS, Prediction, vote
from searchengine.query import Query
from searchengine.settings import Settings
from searchengine.web.overview import cached_evaluation, cached_overview

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_log = logging.getLogger(__name__)


class SharedExtractors:
    """Loaded extractors by fingerprint, so that indexes of the same extractor share one copy.

    An extractor is released when no index uses it any more.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # load one at a time, to limit memory
        self.loaded: WeakValueDictionary[str, Extractor] = WeakValueDictionary()


class ServedEngine(SearchEngine):
    """A search engine with the derived data of its index: classifier, map, groups and evaluation.

    The extractor is loaded at the first search by an upload, and shared with other indexes of the same extractor.
    ``name`` appears in the addresses of the index and on its pages. ``classifier.get()`` returns None if there is no
    classifier, and raises IndexError_ if it cannot be used.
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
        self.classifier = latest_classifier(index)
        self.overview = cached_overview(index)
        self.evaluation = cached_evaluation(index)

    @property
    def title(self) -> str:
        """The extractor, e.g. "VGG16 fc2, ImageNet weights, L2-normalised"."""
        return self.index.manifest("extractor") or ""

    def warm(self) -> None:
        """Load everything that the first search and the first filter would have to wait for."""
        super().warm()
        self.index.facets()
        self.nearness.warm()

    def predict_labels(self, query: Query, start: NDArray[np.float32]) -> PredictedLabels | None:
        """Predict labels for the (1, d) start of a query; return None without a classifier.

        A label counts as certain only if most of the nearest images have it too and the nearest one is near.
        """
        try:
            classifier = self.classifier.get()
            if classifier is None:
                return None
            labels = classifier.predict(start)
        except (IndexError_, QueryError) as error:
            # The log names the file. The page shows no path, and the results without a label.
            _warn_once(str(error))
            return PredictedLabels(problem="The classifier of this index cannot be used. Train it again.")
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
    """Open every index in the settings, in their order; raise IndexError_ if one cannot be opened."""
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
    """Return a name for each index that can be used in an address.

    The name is that of its folder, with the parent folder's name in front where two are the same. A Milvus collection
    counts as a folder of its server.
    """
    folders = [
        Path("/", address.host, address.collection)
        if isinstance(address, MilvusAddress)
        else address.expanduser().absolute()
        for address in addresses
    ]
    plain = [_url_safe(folder.name) for folder in folders]
    names: list[str] = []
    for folder, name in zip(folders, plain, strict=True):
        if plain.count(name) > 1:
            name = _url_safe(f"{folder.parent.name}-{folder.name}")
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names


def _url_safe(name: str) -> str:
    return _NOT_IN_A_NAME.sub("-", name).strip(".-") or "index"


# -- predicted labels -------------------------------------------------------------------------------------------------

_MAX_LABELS = 3
_MIN_PROBABILITY = 0.01  # for a second or third label to be shown


@dataclass(frozen=True, slots=True)
class PredictedLabels:
    """The labels predicted for the start of a query.

    Attributes:
        best: the most probable labels, best first; empty if the prediction is uncertain.
        unsure: the labels in question if it is uncertain.
        accuracy: the share of held-out images that were labelled correctly; None if none could be held out.
        stale: whether images or labels have changed since the classifier was fitted.
        problem: why there is no prediction.
    """

    best: tuple[Prediction, ...] = ()
    unsure: tuple[str, ...] = ()
    accuracy: float | None = None
    stale: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON representation."""
        if self.problem:
            return {"error": self.problem}
        labels = [{"label": prediction.label, "probability": prediction.probability} for prediction in self.best]
        unsure = {"not_sure": self.unsure} if self.unsure else {}
        return {"labels": labels, **unsure, "accuracy": self.accuracy, "stale": self.stale}


@lru_cache(maxsize=32)
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


# -- whether a neighbour is near --------------------------------------------------------------------------------------

_SAMPLE = 24  # images whose neighbours are searched, in one pass over the features
_MIN_IMAGES = 40  # a smaller collection has no typical distance
_QUANTILE = 0.95


class Nearness:
    """The distance beyond which a nearest neighbour counts as far, measured on the collection itself.

    What a distance means depends on the extractor and on the collection, so a fixed number would not work. A neighbour
    is far if it is farther than 95 % of the nearest neighbours in the collection, and also farther than half the median
    distance between two images. The second condition is for collections of near copies, where everything that is
    merely similar would otherwise be far.

    The limit is measured when the server warms up, or at first use. It is measured again when another extractor has
    made the collection, and, in the background, when the collection has doubled.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._limit = Cached(self._key, self._measure, in_background=lambda old, new: old[0] == new[0])

    def warm(self) -> None:
        """Measure the limit now."""
        with suppress(UnknownImageError):
            self._limit.get()

    def is_far(self, distance: float) -> bool:
        """Return whether a nearest neighbour at this distance is far."""
        try:
            return distance > self._limit.get()
        except UnknownImageError:  # an image was removed during the measurement; the next call repeats it
            return False

    def _key(self) -> tuple[str, int]:
        """Return what the limit depends on: the extractor, and the bit length of the size, 0 if it is too small."""
        images = len(self._index)
        return self._index.fingerprint, images.bit_length() if images >= _MIN_IMAGES else 0

    def _measure(self) -> float:
        if len(self._index) < _MIN_IMAGES:
            return float("inf")
        ids = [record.id for record in self._index.sample(_SAMPLE)]
        features = np.stack([self._index.feature(id_) for id_ in ids])  # (n, d) float32
        neighbours = self._index.search(features, 2)
        median = self._median_distance(features)
        distances = sorted(
            next((hit.distance for hit in hits if hit.id != id_), float("inf"))
            for id_, hits in zip(ids, neighbours, strict=True)
        )
        typical = distances[int(_QUANTILE * (len(distances) - 1))]
        return max(typical, median / 2) if median > 0 else typical  # half of a negative inner product is meaningless

    def _median_distance(self, features: NDArray[np.float32]) -> float:
        """Return the median distance between two different rows, or 0 if there are fewer than two."""
        neighbours = Searcher.of_rows(features, self._index.metric).nearest(features, max(len(features), 1))
        pairs = [
            distance
            for row, ranked in enumerate(neighbours)
            for other, distance in zip(ranked.positions, ranked.distances, strict=True)
            if other > row
        ]
        return float(np.median(pairs)) if pairs else 0.0
