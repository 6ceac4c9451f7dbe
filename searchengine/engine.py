"""Search an index with the extractor that made it: query image -> feature -> nearest images."""

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
from searchengine.text.words import Tag, tags_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from searchengine.query import Source

FeatureOf: TypeAlias = Callable[[Example], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Results(Sequence[Hit]):
    """The answer to a query: a sequence of hits, best first.

    Attributes:
        hits: at most k hits.
        total: the number of ranked images: those that pass the filter, except examples that are left out.
        cursor: where the next page begins; None if there is none.
        metric: the metric of the distances.
        ranked_by: how the images were ranked, in words.
        start: the (1, d) float32 feature of the example that the search started from, if any.
        remark: a sentence if the search was approximate, or if its metric is slow.
        doubt: a sentence if no image seems to show what the words of the query say.
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
    """Open an index for reading, without a model.

    Args:
        index_dir: the index folder, or ``milvus://HOST:PORT/COLLECTION``.
        images_dir: the current image folder, if it has moved since it was indexed.
        exact: search exactly, even if there is a structure for approximate search.

    Raises:
        IndexNotFoundError, IndexVersionError, IndexDamagedError; for an index in Milvus, only at its first use.
    """
    return storage_of(index_dir).read(None if images_dir is None else Path(images_dir), exact=exact)


class SearchEngine:
    """An index and the extractor that made it. Threads may share it; open it after a fork.

    The extractor is loaded for the first query image, or by ``warm``. Searching by id needs no extractor.
    """

    def __init__(self, index: Index, *, precision: str = "auto", runtime: str = "auto") -> None:
        self.index = index
        self._precision = precision
        self._runtime = runtime
        self._loading = threading.Lock()
        self._extractor: Extractor | None = None
        self._words: tuple[str, TextSearch] | None = None  # the fingerprint of the index, its search by words

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
        """Open an index, to be searched with the extractor that made it.

        Args:
            index_dir: the index folder, or ``milvus://HOST:PORT/COLLECTION``.
            images_dir: the current image folder, if it has moved since it was indexed.
            precision: the precision in which query images are embedded: "auto", "float32" or "bfloat16".
            runtime: "auto", "openvino" or "keras".
            exact: search exactly, even if there is a structure for approximate search.

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
        """Find the images that best match a query.

        Args:
            query: a query, or an example to start from: an id of the index, the bytes or path of an image file, a PIL
                image, (h, w, 3) uint8 RGB pixels, or a (d,) feature. An image searched by id comes before its copies.
            k: the number of hits for an example, at least 1.
            metric: the metric for an example; None for the metric of the index.
            feature_of: turns an example into a (1, d) feature; by default, the method of the same name.

        Raises:
            ImageError: an image cannot be used.
            UnknownImageError: the index has no image with that id.
            QueryError: there is nothing to rank by, k is invalid, or the features were imported and have no model.
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
        hits, cursor = _page(query, ranking, newest)
        return Results(
            hits=hits,
            total=ranking.total(),
            cursor=cursor,
            metric=ranking.metric,
            ranked_by=ranked_by,
            start=start,
            remark=self.index.search_remark(ranking.metric),
            doubt=self._doubt(query, ranking, hits),
        )

    def _by_distance(self, query: Query, start: NDArray[np.float32]) -> Ranking:
        """Rank by the distance from the starting point."""
        assert query.start is not None
        itself = query.start.id if query.start.box is None else None
        metric = check_metric(query.metric or self.index.metric)
        return Ranking(self.index, start, metric, query.filter, itself=itself)

    def _by_feedback(
        self, query: Query, start: NDArray[np.float32] | None, feature_of: FeatureOf, newest: int
    ) -> Ranking:
        """Rank by likes and dislikes. The examples and all files with the same content are left out.

        The distances are measured from a direction: by the metric of the index if it ranks like the cosine, and by the
        cosine otherwise. They are not comparable with the distances of a plain search.
        """
        ids = frozenset(example.id for example in query.examples if example.id is not None)
        sources = (example.source for example in query.examples)
        files = [read_image(source) if isinstance(source, os.PathLike) else source for source in sources]
        contents = frozenset(content_hash(file).hex() for file in files if isinstance(file, bytes))
        liked, disliked = (self._features_of(examples, feature_of) for examples in (query.liked, query.disliked))
        # Random images stand for everything that was not asked for.
        vector = direction(
            query.rule_used, liked, disliked, start, lambda: self.index.draw(RANDOM_NEGATIVES, newest, ids)
        )
        metric, normalized = self.index.metric, self.index.normalized
        metric = metric if rank_alike(metric, COSINE, normalized=normalized) else COSINE
        return Ranking(self.index, vector, metric, query.filter, ids=ids, contents=contents)

    def _by_words(self, query: Query, by_pictures: Ranking | None) -> Ranking:
        """Rank by words, combined with the pictures if there are any; otherwise images of that name come first."""
        assert query.text is not None
        vector = None if by_pictures is None or by_pictures.vector is None else by_pictures.vector.reshape(-1)
        order = self.words().order(query.text, vector)
        if by_pictures is not None:
            return replace(by_pictures, order=order, metric=COSINE, itself=None)
        first = frozenset(self.index.named(query.text))
        return Ranking(self.index, None, COSINE, query.filter, order=order, first=first)

    def _doubt(self, query: Query, ranking: Ranking, hits: Sequence[Hit]) -> str | None:
        """Return a sentence if even the best image hardly shows what the words say."""
        if query.text is None or query.examples or ranking.first:  # an image of that name leaves no doubt
            return None
        if not hits or hits[0].rank > 1:
            return None
        return self.words().doubt(query.text, self.index.feature(hits[0].id))

    # -- words ------------------------------------------------------------------------------------------------------

    def words(self) -> TextSearch:
        """Return the search by words for this index; QueryError if its model has none, MissingPackageError."""
        fingerprint = self.index.fingerprint
        if self._words is None or self._words[0] != fingerprint:
            try:
                self._words = fingerprint, text_search(self.index)  # two threads may both do this; either result serves
            except ExtractorError as error:
                raise QueryError(str(error)) from error
        return self._words[1]

    @property
    def knows_words(self) -> bool:
        """Whether the index can be searched by words, possibly after installing a package."""
        try:
            self.words()
        except MissingPackageError:
            return True
        except QueryError:
            return False
        return True

    def tags(self, image_id: int) -> list[Tag]:
        """Return what the network sees in an image, right or wrong; nothing if it knows no classes."""
        try:
            return [tag for _, tags in tags_of(self.words(), self.index, [image_id]) for tag in tags]
        except (QueryError, MissingPackageError):
            return []

    # -- features of examples ---------------------------------------------------------------------------------------

    def feature_of(self, example: Example) -> NDArray[np.float32]:
        """Return the (1, d) float32 feature of an example; for a whole image of the index, the stored one."""
        source = example.source
        if example.id is not None:
            if example.box is None:
                return self.index.feature(example.id)[None]  # (d,) -> (1, d)
            return self.embed(self.record(example.id).read(), box=example.box)
        if example.is_feature:
            return np.atleast_2d(cast("NDArray[np.float32]", source)).astype(np.float32)  # (d,) -> (1, d)
        return self.embed(cast("bytes", source), box=example.box)

    def _features_of(self, examples: Sequence[Example], feature_of: FeatureOf) -> NDArray[np.float32]:
        """Return the (n, d) float32 features of n examples; n may be 0."""
        none = np.empty((0, self.index.dimension), dtype=np.float32)
        return np.concatenate([none, *(feature_of(example) for example in examples)])

    def embed(
        self, image: bytes | str | os.PathLike[str] | Image | NDArray[np.uint8], *, box: Box | None = None
    ) -> NDArray[np.float32]:
        """Embed one image, or the part in a box -> (1, d) float32, comparable with the features of the index."""
        extractor = self.extractor()
        part = None if box is None else box.part
        return extractor.embed([input_pixels(extractor.spec, image, part)])

    # -- images -----------------------------------------------------------------------------------------------------

    def record(self, image_id: int) -> ImageRecord:
        """Return the record of an image; UnknownImageError if there is none."""
        return self.index.records([image_id])[0]

    @property
    def spec(self) -> ExtractorSpec:
        """The specification of the extractor; ``embeds`` is false for imported features."""
        return _spec_of(self.index.spec)

    # -- the extractor ----------------------------------------------------------------------------------------------

    def extractor(self) -> Extractor:
        """Return the extractor that made the index; loaded once, and again after a rebuild with another one."""
        fingerprint = self.index.fingerprint
        # Checked without the lock first: engines share it, and a loaded extractor need not wait for another to load.
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
        """Load the extractor and embed once, so that the first query is fast. Imported features need nothing."""
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


def _page(query: Query, ranking: Ranking, newest: int | None) -> tuple[tuple[Hit, ...], Cursor | None]:
    """Return the requested page of a ranking, and the cursor of the next one."""
    before = query.cursor
    after = None if before is None else (before.distance, before.id)
    hits, place = ranking.page(query.k, after, distinct=query.distinct, copies=query.copies)
    shown = 0 if before is None else before.rank
    cursor = None if place is None else Cursor(*place, rank=shown + len(hits), newest=newest)
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, shown + 1)), cursor
