"""Query image -> feature -> nearest images: an index and the extractor that made it, together."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import QueryError
from searchengine.extractors import Extractor, ExtractorSpec, cache, extractor_from_spec
from searchengine.feedback import DEFAULT_RULE, Examples, check_rule, search_by_feedback
from searchengine.files import path_from_text
from searchengine.images import read_image
from searchengine.index.answers import search_by_id
from searchengine.index.local import LocalIndex
from searchengine.index.types import Hit, ImageRecord, content_hash

if TYPE_CHECKING:
    from PIL.Image import Image

    Example: TypeAlias = int | bytes | str | os.PathLike[str] | Image | NDArray[np.uint8] | NDArray[np.float32]


def open_index(index_dir: str | os.PathLike[str], *, images_dir: str | os.PathLike[str] | None = None) -> LocalIndex:
    """Open an index for reading; no model is needed.

    Args:
        index_dir: the index folder.
        images_dir: where the image folder is now, if it has moved since it was indexed.

    Raises:
        IndexNotFoundError, IndexVersionError, IndexDamagedError
    """
    return LocalIndex.open(index_dir, images_dir=images_dir)


class SearchEngine:
    """Answers "what looks like this?". Safe to share between threads; open it after a fork.

    The extractor is loaded at the first query image, or by ``warm``. To search by an id needs none.
    """

    def __init__(self, index: LocalIndex, *, precision: str = "auto", runtime: str = "auto") -> None:
        self.index = index
        self._precision = precision
        self._runtime = runtime
        self._loading = threading.Lock()
        self._extractor: tuple[str, Extractor] | None = None  # with the fingerprint of the index it was loaded for

    @classmethod
    def open(
        cls,
        index_dir: str | os.PathLike[str],
        *,
        images_dir: str | os.PathLike[str] | None = None,
        precision: str = "auto",
        runtime: str = "auto",
    ) -> SearchEngine:
        """Open the index in a folder, to be searched with the extractor that made it.

        Args:
            index_dir: the index folder.
            images_dir: where the image folder is now, if it has moved since it was indexed.
            precision: "auto", "float32" or "bfloat16", of the model that embeds queries.
            runtime: "auto", "openvino" or "keras".

        Raises:
            IndexNotFoundError, IndexVersionError, IndexDamagedError
        """
        return cls(open_index(index_dir, images_dir=images_dir), precision=precision, runtime=runtime)

    # -- search -----------------------------------------------------------------------------------------------------

    def search(
        self,
        image: bytes | str | os.PathLike[str] | Image | NDArray[np.uint8],
        k: int = 20,
        *,
        max_pixels: int | None = None,
        metric: str | None = None,
    ) -> list[Hit]:
        """The k images of the collection nearest to an image.

        Args:
            image: an image file's bytes or path, a PIL image, or (h, w, 3) uint8 RGB pixels.
            k: at least 1; more than there are gives all.
            max_pixels: refuse an image file of more pixels.
            metric: for this search; None for the one of the index.

        Raises:
            ImageError: the image cannot be used.
            QueryError: k is no whole number of at least 1, or the features were imported and have no model.
            ExtractorError: the model is not available, or there is no such metric.
        """
        return self.index.search(self.embed(image, max_pixels=max_pixels), k, metric)[0]

    def search_id(self, image_id: int, k: int = 20, *, metric: str | None = None) -> list[Hit]:
        """The k images nearest to one of the collection, itself first, before its copies; UnknownImageError."""
        return search_by_id(self.index, image_id, k, metric)

    def recommend(
        self,
        liked: Sequence[Example],
        disliked: Sequence[Example] = (),
        k: int = 20,
        *,
        query: Example | None = None,
        rule: str | None = None,
        max_pixels: int | None = None,
    ) -> list[Hit]:
        """The k images that are like those liked and unlike those disliked; these themselves are left out.

        Args:
            liked: ids of the collection, images as ``search`` takes them, or features as ``embed`` makes them.
            disliked: likewise; may be empty.
            k: at least 1; more than there are gives all.
            query: the image with which the search began, if there is one; it is left out too.
            rule: one of ``searchengine.feedback.RULES``; None for the default, which measured better.
            max_pixels: refuse an image file of more pixels.

        Raises:
            ImageError: an image cannot be used.
            UnknownImageError: the index holds no image of that id.
            QueryError: nothing is liked, an image is both liked and disliked, no such rule, a wrong k.
            ExtractorError: the model is not available.
        """
        rule = check_rule(rule or DEFAULT_RULE)
        both = {id_ for id_ in liked if isinstance(id_, int)} & {id_ for id_ in disliked if isinstance(id_, int)}
        if both:
            raise QueryError(f"Image {min(both)} is both liked and disliked. Leave one of them out.")
        return search_by_feedback(
            self.index,
            self._examples(liked, max_pixels),
            self._examples(disliked, max_pixels),
            k,
            query=None if query is None else self._examples([query], max_pixels),
            rule=rule,
        )

    def _examples(self, examples: Sequence[Example], max_pixels: int | None) -> Examples:
        """Features of ids, images and features; an image that is named twice counts once."""
        ids: set[int] = set()
        hashes: set[str] = set()
        rows = [np.empty((0, self.index.dimension), dtype=np.float32)]
        for example in examples:
            if isinstance(example, int | np.integer):
                if int(example) not in ids:
                    ids.add(int(example))
                    rows.append(self.index.feature(int(example))[None])  # (d,) -> (1, d)
                continue
            if isinstance(example, np.ndarray) and example.dtype != np.uint8:
                rows.append(np.atleast_2d(example).astype(np.float32))  # (d,) -> (1, d)
                continue
            if isinstance(example, str | os.PathLike):
                example = read_image(example)
            if isinstance(example, bytes):
                content = content_hash(example).hex()
                if content in hashes:
                    continue
                hashes.add(content)
            rows.append(self.embed(cast("bytes | Image | NDArray[np.uint8]", example), max_pixels=max_pixels))
        return Examples(np.concatenate(rows), frozenset(ids), frozenset(hashes))

    def embed(
        self, image: bytes | str | os.PathLike[str] | Image | NDArray[np.uint8], *, max_pixels: int | None = None
    ) -> NDArray[np.float32]:
        """One image -> (1, d) float32, comparable with the features of the index."""
        extractor = self.extractor()
        data = (
            image if isinstance(image, bytes) else read_image(image) if isinstance(image, str | os.PathLike) else None
        )
        if data is None:
            return extractor.embed([image])
        decoded = extractor.preprocess(data) if max_pixels is None else extractor.preprocess(data, max_pixels)
        return extractor.embed([decoded.pixels])

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
        now = self.index.state()  # one moment: a rebuild may put another model's features in place
        fingerprint = now.fingerprint
        loaded = self._extractor
        if loaded is not None and loaded[0] == fingerprint:
            return loaded[1]
        with self._loading:
            if self._extractor is None or self._extractor[0] != fingerprint:
                weights = self.index.manifest("weights_file")
                extractor = extractor_from_spec(
                    ExtractorSpec.from_json(now.spec),
                    weights_file=path_from_text(weights) if weights else None,
                    precision=self._precision,
                    runtime=self._runtime,
                )
                cache.note_use(extractor.spec, self.index.folder)
                self._extractor = (fingerprint, extractor)
            return self._extractor[1]

    def warm(self) -> None:
        """Load the extractor and embed once, so that the first query need not wait; imported features have none."""
        if not self.spec.embeds:
            return
        extractor = self.extractor()
        height, width = extractor.spec.input_size
        extractor.embed(np.zeros((1, height, width, 3), dtype=np.uint8))

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()


@lru_cache(maxsize=16)
def _spec_of(text: str) -> ExtractorSpec:
    return ExtractorSpec.from_json(text)
