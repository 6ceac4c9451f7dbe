"""A query asked of an index: by a picture of the collection, even of another index's, or by one that was uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine import images
from searchengine.errors import ImageError, UnknownImageError
from searchengine.index.types import Hit, ImageRecord
from searchengine.web.incoming import RequestError, Upload
from searchengine.web.judging import Judged
from searchengine.web.queries import UploadedQuery, read_query
from searchengine.web.renditions import file_is_there, read_file
from searchengine.web.seam import Engine
from searchengine.web.served import Collection

NO_MODEL = (
    "The features of this index were imported without the model that made them, so a picture of your own cannot be "
    "searched by. Search by one of its rows: choose it on the first page."
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """What came of a query; ``self_id`` is the picture searched by, where the index holds it.

    ``records`` are those of the hits, in their order.
    """

    hits: list[Hit]
    records: list[ImageRecord]
    self_id: int | None


class UploadReader:
    """Reads and embeds one uploaded picture as each index wants it, and but once for those that want it alike."""

    def __init__(self, upload: Upload, max_pixels: int) -> None:
        self._upload = upload
        self._max_pixels = max_pixels
        self._read: dict[str, UploadedQuery] = {}
        self._embedded: dict[str, NDArray[np.float32]] = {}

    def read(self, collection: Collection) -> UploadedQuery:
        """Decoded for that index; RequestError where a picture says nothing to it, ImageError."""
        if not collection.takes_pictures:
            raise RequestError(NO_MODEL)
        fingerprint = collection.engine.spec.fingerprint
        if fingerprint not in self._read:
            self._read[fingerprint] = read_query(self._upload, collection.engine.extractor(), self._max_pixels)
        return self._read[fingerprint]

    def embed(self, collection: Collection) -> NDArray[np.float32]:
        """Its feature for that index, (1, d) float32; RequestError, ImageError, ExtractorError."""
        query = self.read(collection)
        fingerprint = collection.engine.spec.fingerprint
        if fingerprint not in self._embedded:
            self._embedded[fingerprint] = collection.engine.embed(query.pixels)
        return self._embedded[fingerprint]


def rank_feature(collection: Collection, feature: NDArray[np.float32], k: int, metric: str | None) -> Ranking:
    """The k nearest to the feature of an uploaded picture, (1, d) float32."""
    engine = collection.engine
    return Ranking(*with_records(engine, engine.search_feature(feature, k, metric=metric)), None)


def rank_judged(collection: Collection, judged: Judged, query: int | NDArray[np.float32] | None, k: int) -> Ranking:
    """The k that are like the query, an id or a (1, d) feature, and what is liked, and unlike what is disliked.

    QueryError where these cannot be ranked by.
    """
    engine = collection.engine
    hits = engine.recommend(judged.liked, judged.disliked, k, query=query, rule=judged.rule)
    return Ranking(*with_records(engine, hits), None)


def rank_image(collection: Collection, image_id: int, k: int, metric: str | None) -> Ranking:
    """The k nearest to a picture of the same index."""
    engine = collection.engine
    hits = engine.search_id(image_id, k) if metric is None else engine.search_id(image_id, k, metric=metric)
    return Ranking(*with_records(engine, hits), image_id)


def rank_foreign(collection: Collection, owner: Collection, record: ImageRecord, k: int, metric: str | None) -> Ranking:
    """The k nearest to a picture of another index: to the same one here, or else to what its file shows.

    RequestError where neither can be had.
    """
    if collection is owner:
        return rank_image(collection, record.id, k, metric)
    image_id = collection.engine.find(record)
    if image_id is not None:
        return rank_image(collection, image_id, k, metric)
    if not collection.takes_pictures:
        raise RequestError(f"“{record.path}” is not in {collection.name}, which can only be searched by its own rows.")
    if not file_is_there(record):
        raise RequestError(f"“{record.path}” is not in {collection.name}, and there is no file to search by.")
    try:
        upload = Upload(read_file(record), record.path.rsplit("/", 1)[-1])
        # Its own index took it at this size; what bounds an upload is for strangers.
        feature = UploadReader(upload, images.MAX_PIXELS).embed(collection)
    except ImageError as error:  # damaged since it was indexed
        why = f"“{record.path}” is not in {collection.name}, and its file cannot be searched by. {error}"
        raise RequestError(why) from error
    return rank_feature(collection, feature, k, metric)


def with_records(engine: Engine, hits: Sequence[Hit]) -> tuple[list[Hit], list[ImageRecord]]:
    """Hits and their records; one that was removed since the search is left out."""
    told = [hit.record for hit in hits if hit.record is not None]
    if len(told) == len(hits):
        return list(hits), told
    try:
        return list(hits), engine.records([hit.id for hit in hits])
    except UnknownImageError:
        found = {}
        for hit in hits:
            try:
                found[hit.id] = engine.record(hit.id)
            except UnknownImageError:
                continue
        return [hit for hit in hits if hit.id in found], list(found.values())
