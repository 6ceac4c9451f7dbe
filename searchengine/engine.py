"""Query image -> feature -> nearest images: an index and the extractor that made it, together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray

from searchengine.address import AnyAddress
from searchengine.errors import ExtractorError, MissingPackageError, QueryError
from searchengine.extractors import Extractor, ExtractorRecipe, ExtractorSpec, cache
from searchengine.extractors.extractor import input_pixels
from searchengine.feedback import RANDOM_NEGATIVES, direction, rule_title
from searchengine.images import read_image
from searchengine.index.filters import Cursor
from searchengine.index.metrics import COSINE, check_metric, metric_title, rank_alike
from searchengine.index.protocol import Index
from searchengine.index.storage import storage_of
from searchengine.index.types import Hit, ImageRecord, content_hash
from searchengine.query import DEFAULT_K, Box, Example, Query
from searchengine.ranking import Ranking
from searchengine.text.search import TextSearch, text_search
from searchengine.text.seen import Tag, tags_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from searchengine.query import Source

FeatureOf: TypeAlias = Callable[[Example], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Results(Sequence[Hit]):
    """The answer to a query: a sequence of hits, the best first.

    Attributes:
        hits: k of them at most.
        total: how many images are ranked in all: those that pass the filter, less the examples that are left out.
        cursor: where the answer continues; None where nothing follows.
        metric: what the distances of the hits are measured in.
        ranked_by: how it was ranked, in words.
        start: the (1, d) float32 feature of the example that the search started from, if there is one.
        remark: a sentence, where the search was approximate, or takes long by its metric.
        doubt: a sentence, where no image seems to show what the words of the query say.
    """

    hits: tuple[Hit, ...]
    total: int
    cursor: Cursor | None
    metric: str
    ranked_by: str
    start: NDArray[np.float32] | None = None
    remark: str | None = None
    doubt: str | None = None

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


def open_index(
    index_dir: AnyAddress, *, images_dir: str | os.PathLike[str] | None = None, exact: bool = False
) -> Index:
    """Open an index for reading; no model is needed.

    Args:
        index_dir: the index folder, or ``milvus://HOST:PORT/COLLECTION``.
        images_dir: where the image folder is now, if it has moved since it was indexed.
        exact: search exactly, even where there is a structure for approximate search.

    Raises:
        IndexNotFoundError, IndexVersionError, IndexDamagedError; an index in Milvus raises when it is first used.
    """
    return storage_of(index_dir).read(None if images_dir is None else Path(images_dir), exact=exact)


class SearchEngine:
    """Answers "what looks like this?". Safe to share between threads; open it after a fork.

    The extractor is loaded at the first query image, or by ``warm``. To search by an id needs none.
    """

    def __init__(self, index: Index, *, precision: str = "auto", runtime: str = "auto") -> None:
        self.index = index
        self._precision = precision
        self._runtime = runtime
        self._loading = threading.Lock()
        self._extractor: Extractor | None = None
        self._words: tuple[str, TextSearch] | None = None  # with the fingerprint of the index that they were made for

    @classmethod
    def open(
        cls,
        index_dir: AnyAddress,
        *,
        images_dir: str | os.PathLike[str] | None = None,
        precision: str = "auto",
        runtime: str = "auto",
        exact: bool = False,
    ) -> SearchEngine:
        """Open the index in a folder, to be searched with the extractor that made it.

        Args:
            index_dir: the index folder, or ``milvus://HOST:PORT/COLLECTION``.
            images_dir: where the image folder is now, if it has moved since it was indexed.
            precision: "auto", "float32" or "bfloat16", of the model that embeds queries.
            runtime: "auto", "openvino" or "keras".
            exact: search exactly, even where there is a structure for approximate search.

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError
        """
        return cls(open_index(index_dir, images_dir=images_dir, exact=exact), precision=precision, runtime=runtime)

    # -- search -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: Query | Source | str,
        k: int = DEFAULT_K,
        *,
        metric: str | None = None,
        feature_of: FeatureOf | None = None,
    ) -> Results:
        """What looks like the examples of a query.

        Args:
            query: a query, or the example to start from: an id of the index, an image file's bytes or path, a PIL
                image, (h, w, 3) uint8 RGB pixels, or a (d,) feature. An id comes first itself, before its copies.
            k: for an example: how many hits, at least 1; more than there are gives all.
            metric: for an example: of this search; None for that of the index.
            feature_of: how an example becomes a (1, d) feature; None for the method of that name.

        Raises:
            ImageError: an image cannot be used.
            UnknownImageError: the index holds no image of that id.
            QueryError: there is nothing to rank by, a wrong k, or the features were imported and have no model.
            UnknownNameError: there is no such metric.
            ExtractorError: the model is not available.
        """
        if not isinstance(query, Query):
            query = Query.of(query, k=k, metric=metric)
        feature_of = feature_of or self.feature_of
        start = None if query.start is None else feature_of(query.start)
        newest = None
        if query.judged:
            newest = (query.cursor and query.cursor.newest) or self.index.newest
            ranking = self._by_feedback(query, start, feature_of, newest)
            ranked_by = f"what you liked and disliked ({rule_title(query.rule_used)})"
        elif start is not None:
            ranking = self._by_distance(query, start)
            ranked_by = metric_title(ranking.metric)
        elif query.text is None:
            raise QueryError("There is nothing to search by. Name a picture, or at least one liked image.")
        else:
            ranking, ranked_by = None, ""
        if query.text is not None:
            ranking = self._by_words(query, ranking)
            ranked_by = f"the words and {ranked_by}" if ranked_by else "the words"
        assert ranking is not None
        results = replace(
            _results(query, ranking, ranked_by, start, newest), remark=self.index.search_remark(ranking.metric)
        )
        if query.text is None or query.examples or ranking.first:  # images that have the words as a name leave no doubt
            return results
        return self._with_doubt(query.text, results)

    def _by_words(self, query: Query, pictures: Ranking | None) -> Ranking:
        """By the words of a query and by its pictures. Without pictures, images of that name come first."""
        assert query.text is not None
        vector = None if pictures is None or pictures.vector is None else pictures.vector.reshape(-1)
        order = self.words().order(query.text, vector)
        if pictures is not None:
            return replace(pictures, order=order, metric=COSINE, itself=None)
        first = frozenset(self.index.named(query.text))
        return Ranking(self.index, None, COSINE, query.filter, order=order, first=first)

    def _with_doubt(self, text: str, results: Results) -> Results:
        """Add a remark where even the best image hardly shows what a text means."""
        if not results or results[0].rank > 1:
            return results
        return replace(results, doubt=self.words().doubt(text, self.index.feature(results[0].id)))

    def words(self) -> TextSearch:
        """The search by words for this index. QueryError if its model knows none; MissingPackageError."""
        fingerprint = self.index.fingerprint
        if self._words is None or self._words[0] != fingerprint:
            try:
                self._words = (fingerprint, text_search(self.index))  # if two threads make one, either will do
            except ExtractorError as error:
                raise QueryError(str(error)) from error
        return self._words[1]

    @property
    def knows_words(self) -> bool:
        """Whether the index can be searched by words, perhaps once a package is installed."""
        try:
            self.words()
        except MissingPackageError:
            return True
        except QueryError:
            return False
        return True

    def tags(self, image_id: int) -> list[Tag]:
        """What the network of the index sees in an image, right or wrong; empty where it knows no classes."""
        try:
            return [tag for _, tags in tags_of(self.words(), self.index, [image_id]) for tag in tags]
        except (QueryError, MissingPackageError):
            return []

    def _by_distance(self, query: Query, start: NDArray[np.float32]) -> Ranking:
        """By the distance from the example that the search starts from."""
        assert query.start is not None
        itself = query.start.id if query.start.box is None else None
        metric = check_metric(query.metric or self.index.metric)
        return Ranking(self.index, start, metric, query.filter, itself=itself)

    def _by_feedback(
        self, query: Query, start: NDArray[np.float32] | None, feature_of: FeatureOf, newest: int
    ) -> Ranking:
        """By what is liked and disliked; the examples themselves are left out, with all files of their content.

        Distances compare images with a direction: in the metric of the index where that ranks like the cosine, and as
        cosine otherwise. They are not comparable with those of a plain search.
        """
        ids = frozenset(example.id for example in query.examples if example.id is not None)
        sources = (example.source for example in query.examples)
        files = [read_image(source) if isinstance(source, os.PathLike) else source for source in sources]
        contents = frozenset(content_hash(file).hex() for file in files if isinstance(file, bytes))
        liked, disliked = (self._features_of(examples, feature_of) for examples in (query.liked, query.disliked))
        # Random images stand for what was not asked for.
        vector = direction(
            query.rule_used, liked, disliked, start, lambda: self.index.draw(RANDOM_NEGATIVES, newest, ids)
        )
        metric, normalized = self.index.metric, self.index.normalized
        metric = metric if rank_alike(metric, COSINE, normalized=normalized) else COSINE
        return Ranking(self.index, vector, metric, query.filter, ids=ids, contents=contents)

    # -- features of examples ---------------------------------------------------------------------------------------

    def feature_of(self, example: Example) -> NDArray[np.float32]:
        """The (1, d) float32 feature of an example: of an image of the index as it is stored, if it is whole."""
        source = example.source
        if example.id is not None:
            if example.box is None:
                return self.index.feature(example.id)[None]  # (d,) -> (1, d)
            return self.embed(self.record(example.id).read(), box=example.box)
        if example.is_feature:
            return np.atleast_2d(cast("NDArray[np.float32]", source)).astype(np.float32)  # (d,) -> (1, d)
        return self.embed(cast("bytes", source), box=example.box)

    def _features_of(self, examples: Sequence[Example], feature_of: FeatureOf) -> NDArray[np.float32]:
        """(n, d) float32; n may be 0."""
        none = np.empty((0, self.index.dimension), dtype=np.float32)
        return np.concatenate([none, *(feature_of(example) for example in examples)])

    def embed(
        self, image: bytes | str | os.PathLike[str] | Image | NDArray[np.uint8], *, box: Box | None = None
    ) -> NDArray[np.float32]:
        """One image, or the part of it in a box -> (1, d) float32, comparable with the features of the index."""
        extractor = self.extractor()
        part = None if box is None else box.part
        return extractor.embed([input_pixels(extractor.spec, image, part)])

    # -- the collection ---------------------------------------------------------------------------------------------

    def record(self, image_id: int) -> ImageRecord:
        """What is known of one image; UnknownImageError."""
        return self.index.records([image_id])[0]

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor as a value; it ``embeds`` unless the features were imported."""
        return _spec_of(self.index.spec)

    # -- the extractor ----------------------------------------------------------------------------------------------

    def extractor(self) -> Extractor:
        """The extractor that made the index; loaded once, and again when the index was rebuilt with another."""
        fingerprint = self.index.fingerprint
        if self._extractor is None or self._extractor.spec.fingerprint != fingerprint:
            with self._loading:
                if self._extractor is None or self._extractor.spec.fingerprint != fingerprint:
                    self._extractor = self._load()
        return self._extractor

    def _load(self) -> Extractor:
        weights_file = self.index.manifest("weights_file")
        extractor = ExtractorRecipe.of_manifest(self.index.spec, weights_file, self._precision, self._runtime).load()
        cache.note_use(extractor.spec, self.index.folder)
        return extractor

    def warm(self) -> None:
        """Load the extractor and embed once, so that the first query need not wait; nothing for imported features."""
        if not self.spec.embeds:
            return
        extractor = self.extractor()
        height, width = extractor.spec.input_size
        extractor.embed(np.zeros((1, height, width, 3), dtype=np.uint8))

    def close(self) -> None:
        """Close the index."""
        self.index.close()


@lru_cache(maxsize=16)
def _spec_of(text: str) -> ExtractorSpec:
    return ExtractorSpec.from_json(text)


def _results(
    query: Query, ranking: Ranking, ranked_by: str, start: NDArray[np.float32] | None, newest: int | None
) -> Results:
    """The requested page of a ranking."""
    before = query.cursor
    after = None if before is None else (before.distance, before.id)
    hits, place = ranking.page(query.k, after, distinct=query.distinct, copies=query.copies)
    shown = 0 if before is None else before.rank
    cursor = None if place is None else Cursor(*place, rank=shown + len(hits), newest=newest)
    ranks = enumerate(hits, shown + 1)
    return Results(
        tuple(replace(hit, rank=rank) for rank, hit in ranks),
        ranking.total(),
        cursor,
        ranking.metric,
        ranked_by,
        start,
    )
