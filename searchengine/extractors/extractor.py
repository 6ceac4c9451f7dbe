"""What every extractor can do, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.extractors import pixels
from searchengine.extractors.pixels import Images
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import MAX_PIXELS, DecodedImage

PRECISIONS = ("auto", "float32", "bfloat16")
RUNTIMES = ("auto", "openvino", "keras")


class Extractor(Protocol):
    """Images -> features. ``precision`` is "float32" or "bfloat16", ``runtime`` "openvino" or "keras"."""

    @property
    def spec(self) -> ExtractorSpec: ...
    @property
    def dimension(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def device(self) -> str: ...

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Features of several images, in their order: a fresh (n, d) float32; (0, d) for none.

        ``images`` is (n, h, w, 3) uint8 RGB, or any number of: (h, w, 3) uint8 arrays of any size, PIL images, bytes
        of image files, paths. The whole image is resized as the spec says. Memory stays bounded however many there
        are. Thread-safe. ImageError for a file that cannot be used, QueryError for arrays that are no pixels.
        """
        ...

    def preprocess(self, data: bytes, max_pixels: int = MAX_PIXELS, preview: int | None = None) -> DecodedImage:
        """Decode one image file and bring it to the input size: (h, w, 3) uint8 RGB, as ``embed`` takes it.

        ``preview`` is the longest side of a small copy in proportion, for people, if one is wanted.

        For threads that decode while another embeds. The errors of ``images.decode``.
        """
        ...


class BatchModel(Protocol):
    """One step of a runtime: (m, h, w, 3) uint8 RGB -> (m, d) float32, fresh, not normalised. Thread-safe."""

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def embed_in_batches(
    spec: ExtractorSpec, images: Images, model: BatchModel, *, batch_size: int, parts: Sequence[int]
) -> NDArray[np.float32]:
    """The pipeline of every runtime: images -> batches of pixels -> raw features -> (n, d) float32.

    ``parts`` are the numbers that each layer contributes to a feature; they add up to d.
    """
    rows = [
        pixels.normalized(model(batch), spec.normalize, parts) for batch in pixels.batches(spec, images, batch_size)
    ]
    return np.concatenate(rows) if rows else np.empty((0, sum(parts)), np.float32)
