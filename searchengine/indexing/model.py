"""The extractor of a run: how it is chosen, loaded when first needed, and recorded in the index."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, ExtractorMismatchError, IndexingError, SearchEngineError
from searchengine.extractors import (
    Extractor,
    ExtractorOptions,
    ExtractorRecipe,
    ExtractorSpec,
    spec_of,
)
from searchengine.extractors.loading import say_on_stderr, source_of
from searchengine.files import file_size, path_from_text, path_to_text
from searchengine.images import DECODING, DecodedImage, Pixels
from searchengine.index.protocol import Writer
from searchengine.index.storage import Storage
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.verify import recorded
from searchengine.progress import Progress, Say
from searchengine.text.search import keep_words

_NUMBER_BYTES = 4  # of a float32
_LITTLE = 10**8  # bytes, for which there is always room
_LONG_FEATURE = 10_000  # numbers, more than a layer with pooling has
_EXTRACTOR_OPTIONS = ("model", "layer", "pooling", "normalize", "weights", "preprocessing", "input_size")


def choose_spec(options: IndexingOptions, storage: Storage) -> tuple[ExtractorSpec, Path | None]:
    """Return the extractor that the options name, by default the one that made the index, and its weights file.

    Raises:
        ExtractorError: there is no such model, layer or file, or the options contradict each other.
    """
    known = recorded(storage.address) if options.model is None else None
    given = {name: getattr(options, name) for name in _EXTRACTOR_OPTIONS if getattr(options, name) not in (None, ())}
    if options.scaled_decoding:
        given["full_decode"] = False
    if known is None:
        chosen = ExtractorOptions(**given)
        return spec_of(chosen), chosen.weights_file
    if not known.spec.embeds and not known.spec.is_imported:
        raise IndexingError(known.spec.missing)
    file = path_from_text(known.weights_file) if known.weights_file else None
    if not given or not known.spec.embeds:
        return known.spec, file
    unpooled = {"pooling": "none"} if "layer" in given else {}
    chosen = replace(source_of(known.spec.model).options(known.spec, file), **{**unpooled, **given})
    return spec_of(chosen), chosen.weights_file


def computed_by(extractor: Extractor) -> dict[str, str]:
    """Return how an extractor computes features, as entries of the manifest."""
    return {"precision": extractor.precision, "runtime": extractor.runtime, "device": extractor.device}


class RunExtractor:
    """An extractor that the first thread that needs it loads; a run without new content never does.

    ``words`` is True if the index is to be searched by words.
    """

    def __init__(
        self, recipe: ExtractorRecipe, say: Say, extractor: Extractor | None = None, *, words: bool = True
    ) -> None:
        self.recipe = recipe
        self.spec = recipe.spec
        self._say = say
        self._extractor = extractor
        self._words = words
        self._failure: SearchEngineError | None = None
        self._loading = threading.Lock()

    @classmethod
    def of(cls, extractor: Extractor, *, words: bool = True) -> RunExtractor:
        """Make one from an extractor that is already loaded."""
        recipe = ExtractorRecipe(extractor.spec, None, extractor.precision, extractor.runtime, gpu=True)
        return cls(recipe, say_on_stderr, extractor, words=words)

    @classmethod
    def chosen(cls, options: IndexingOptions, storage: Storage, progress: Progress) -> RunExtractor:
        """Make one for the extractor that the options or the index name. Raises the errors of ``choose_spec``."""
        spec, weights_file = choose_spec(options, storage)
        return cls(ExtractorRecipe(spec, weights_file, options.precision, options.runtime, gpu=True), progress.say)

    def get(self) -> Extractor:
        """Return the extractor. Raises ExtractorError or another error of loading, the same at each call."""
        with self._loading:
            if self._failure is not None:
                raise self._failure
            if self._extractor is None:
                try:
                    self._extractor = self.recipe.load(self._say)
                except SearchEngineError as error:
                    self._failure = error
                    raise
                except OSError as error:  # otherwise it would be taken for a fault of the image that was read first
                    why = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
                    self._failure = ExtractorError(f"The model {self.spec.title} cannot be loaded ({why}).")
                    raise self._failure from error
            return self._extractor

    def preprocess(self, data: bytes) -> DecodedImage:
        """Decode an image file to the pixels that the model takes, (h, w, 3)."""
        return self.get().preprocess(data)

    def embed(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """Embed n images, (h, w, 3) RGB, -> (n, d) float32. Raises IndexingError if the model gives NaN or infinity."""
        return check_finite(self.get().embed(pixels), self.spec)

    def check_made(self, index: Writer) -> None:
        """Raise ExtractorMismatchError unless the index was made by this extractor."""
        if index.manifest("fingerprint") == self.spec.fingerprint:
            return
        actual, wanted = index.manifest("extractor"), self.spec.title
        theirs, ours = asdict(ExtractorSpec.from_json(index.manifest("spec") or "")), asdict(self.spec)
        differences = " and ".join(name.replace("_", " ") for name in ours if theirs[name] != ours[name])
        which = f"{actual}, not by {wanted}" if actual != wanted else f"{actual}, but with other {differences}"
        raise ExtractorMismatchError(
            f"The index in {index.address} was made by {which}, and the two cannot be compared. Choose another "
            "--index-dir, or give --rebuild to embed all images again (the old index stays in use until the new one is "
            "complete)."
        )

    def keep_words(self, folder: Path) -> None:
        """Store the data for search by words, and the tags of the images, in the folder of an index."""
        if self._words:
            keep_words(folder, self.spec, self.recipe.weights_file)

    def manifest(self, computed: dict[str, str]) -> dict[str, str]:
        """Return what a new index records about the extractor and the computation."""
        weights_file = self.recipe.weights_file
        return {
            "spec": self.spec.to_json(),
            "fingerprint": self.spec.fingerprint,
            "extractor": self.spec.title,
            "weights_file": path_to_text(weights_file.absolute()) if weights_file else "",
            **computed,
            "normalized": str(int(self.spec.normalize == "l2")),
            "decoding": str(DECODING),  # of the oldest feature
            "refused_by": str(DECODING),  # of all skipped files
        }


def check_finite(features: NDArray[np.float32], spec: ExtractorSpec) -> NDArray[np.float32]:
    """Return the features unchanged. Raises IndexingError if they contain NaN or infinity."""
    if not np.isfinite(features).all():
        raise IndexingError(
            f"The model {spec.title} gave NaN or infinity, so its weights or its precision cannot be right. Try "
            "--precision float32. Nothing of this batch was kept."
        )
    return features


def is_current(decoding: str | None) -> bool:
    """Return whether an entry of the manifest names the current decoding; old indexes have no entry."""
    return decoding is not None and decoding.isdecimal() and int(decoding) >= DECODING


def decoding_remark(decoding: str | None) -> str | None:
    """Return a remark about an index whose images were decoded differently; None if there is nothing to say."""
    if is_current(decoding):
        return None
    return (
        "Some images are now decoded differently than when this index was made: hardly any ordinary JPEG and PNG "
        "files, but many files of other kinds. Their features have not changed; to embed all images again, index with "
        "--rebuild."
    )


def size_remark(dimension: int, images: int, index_dir: Path) -> str | None:
    """Return a remark about the disk space of features that are very long or do not fit; None for others."""
    needed = dimension * _NUMBER_BYTES * images
    if dimension <= _LONG_FEATURE and needed <= _LITTLE:
        return None
    free = shutil.disk_usage(index_dir).free
    if dimension <= _LONG_FEATURE and needed <= free:
        return None
    return (
        f"A feature has {dimension} numbers: {images} images take {file_size(needed)}, "
        f"{'BUT ONLY ' if needed > free else ''}{file_size(free)} are free there. Convolutional layers give fewer "
        "numbers with --pooling avg or gem."
    )
