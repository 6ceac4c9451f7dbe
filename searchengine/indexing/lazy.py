"""The extractor of a run: loaded when it is first needed, by whichever thread needs it, and noted in the manifest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, ExtractorMismatchError, IndexingError, SearchEngineError
from searchengine.extractors import Extractor, ExtractorSpec
from searchengine.images import DecodedImage
from searchengine.index.writer import IndexWriter


class LazyExtractor:
    """Stands for an extractor that a run without anything new never loads."""

    def __init__(self, spec: ExtractorSpec, load: Callable[[], Extractor], weights_file: Path | None) -> None:
        self.spec = spec
        self._load = load
        self._weights_file = weights_file
        self._extractor: Extractor | None = None
        self._failure: SearchEngineError | None = None
        self._loading = threading.Lock()

    def get(self) -> Extractor:
        """The extractor itself; ExtractorError and what else ``load`` raises, at each call anew."""
        with self._loading:
            if self._failure is not None:
                raise self._failure
            if self._extractor is None:
                try:
                    self._extractor = self._load()
                except SearchEngineError as error:
                    self._failure = error
                    raise
                except OSError as error:  # or it would pass for a fault of the picture that asked first
                    why = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
                    self._failure = ExtractorError(f"The model {self.spec.title} cannot be loaded ({why}).")
                    raise self._failure from error
            return self._extractor

    def preprocess(self, data: bytes) -> tuple[DecodedImage, NDArray[np.uint8]]:
        """One image file -> what is known of it, and its pixels as the model takes them, (h, w, 3) uint8."""
        return self.get().preprocess(data)

    def embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """n of (h, w, 3) uint8 -> (n, d) float32; IndexingError where the model gives NaN or infinity."""
        features = self.get().embed(np.stack(pixels))
        if not np.isfinite(features).all():
            raise IndexingError(
                f"The model {self.spec.title} gave NaN or infinity, so its weights or its precision cannot be right. "
                "Try --precision float32. Nothing of this batch was kept."
            )
        return features

    def check_made(self, index: IndexWriter) -> None:
        """ExtractorMismatchError unless it is what made an index."""
        if index.catalog.need("fingerprint") != self.spec.fingerprint:
            made, wanted = index.catalog.need("extractor"), self.spec.title
            which = (
                f"{made}, not by {wanted}" if made != wanted else f"{made}, but with other {self._differences(index)}"
            )
            raise ExtractorMismatchError(
                f"The index in {index.folder} was made by {which}, and the two cannot be compared. Choose another "
                "--index-dir, or give --rebuild to embed all images anew (the old index answers until the new one is "
                "whole)."
            )

    def _differences(self, index: IndexWriter) -> str:
        """What of its description differs from that of the index, in words: "weights", "input size"."""
        theirs, ours = asdict(ExtractorSpec.from_json(index.catalog.need("spec"))), asdict(self.spec)
        return " and ".join(name.replace("_", " ") for name in ours if theirs[name] != ours[name])

    def manifest(self) -> dict[str, str]:
        """What a new index says of it."""
        extractor = self.get()
        return {
            "spec": self.spec.to_json(),
            "fingerprint": self.spec.fingerprint,
            "extractor": self.spec.title,
            "weights_file": str(self._weights_file.absolute()) if self._weights_file else "",
            "precision": extractor.precision,
            "runtime": extractor.runtime,
            "device": extractor.device,
        }
