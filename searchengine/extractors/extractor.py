"""The ``Extractor`` interface, and the pipeline its implementations share: images -> batches of pixels -> features."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.errors import QueryError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import MAX_PIXELS, WHOLE, DecodedImage, Part, Pixels, Resizing, decode, read_image, resize
from searchengine.images.metadata import exif_orientation
from searchengine.images.rgb import profile_of, to_rgb, to_srgb, upright

ImageLike: TypeAlias = "Pixels | Image.Image | bytes | str | os.PathLike[str]"
Images: TypeAlias = "Pixels | Iterable[ImageLike]"
PRECISIONS = ("auto", "float32", "bfloat16")
RUNTIMES = ("auto", "openvino", "keras")


class Extractor(Protocol):
    """Turns images into features. ``precision`` is "float32" or "bfloat16", ``runtime`` "openvino" or "keras"."""

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
        """Return the features of some images, in order: a fresh (n, d) float32 array, (0, d) for no images.

        ``images`` is an (n, h, w, 3) uint8 RGB array, or an iterable of (h, w, 3) uint8 arrays of any size, PIL images,
        bytes of image files and paths. Whole images are resized as the spec says; the output of ``preprocess`` is used
        as it is. Memory stays bounded for any number of images. Thread-safe. Raises ImageError for an unusable file and
        QueryError for arrays that are not pixels.
        """
        ...

    def preprocess(
        self, data: bytes, max_pixels: int = MAX_PIXELS, preview: int | None = None, part: Part | None = None
    ) -> DecodedImage:
        """Decode one image file and resize it to the input size: (h, w, 3) RGB, as ``embed`` takes it.

        ``preview`` is the longest side of a small copy to make for display, if one is wanted. ``part`` restricts the
        pixels to a part of the picture.

        Meant for threads that decode while another embeds. Raises the errors of ``images.decode``.
        """
        ...


class BatchExtractor:
    """The pipeline shared by all runtimes: images -> batches of pixels -> raw features -> (n, d) float32.

    ``parts`` are the sizes that the layers contribute to a feature; they add up to d.
    """

    def __init__(self, spec: ExtractorSpec, parts: Sequence[int], batch_size: int) -> None:
        self.spec = spec
        self.dimension = sum(parts)
        self._parts, self._batch_size = parts, batch_size

    def embed(self, images: Images) -> NDArray[np.float32]:
        """See ``Extractor.embed``."""
        spec, parts = self.spec, self._parts
        rows = [
            normalized(self._run(batch), spec.normalize, parts) for batch in batches(spec, images, self._batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dimension), np.float32)

    def preprocess(
        self, data: bytes, max_pixels: int = MAX_PIXELS, preview: int | None = None, part: Part | None = None
    ) -> DecodedImage:
        """See ``Extractor.preprocess``."""
        return preprocess(self.spec, data, max_pixels, preview, part)

    def _run(self, batch: Pixels) -> NDArray[np.float32]:
        """(m, h, w, 3) RGB, see ``pixel_type`` -> (m, d) float32, fresh, not normalised. Thread-safe."""
        raise NotImplementedError


# -- pixels -----------------------------------------------------------------------------------------------------------


def preprocess(
    spec: ExtractorSpec,
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    preview: int | None = None,
    part: Part | None = None,
) -> DecodedImage:
    """Decode one image file and resize it to the input size: (h, w, 3) RGB. Raises the errors of ``images.decode``.

    With ``full_decode``, colour profiles are ignored too, as by Keras's ``load_img``, so that features equal those that
    others compute with the same published model.
    """
    return decode(
        data,
        at_least=spec.decoded_at_least,
        size=spec.input_size,
        part=part,
        how=resizing_of(spec),
        preview=preview,
        max_pixels=max_pixels,
        profiles=not spec.full_decode,
    )


def resizing_of(spec: ExtractorSpec) -> Resizing:
    """Return how pictures are resized to the input size."""
    return WHOLE if spec.resizing is None else Resizing.parse(spec.resizing)


def pixel_type(spec: ExtractorSpec) -> str:
    """Return the dtype of the pixels that a model takes: "uint8", or "float32" if pictures are resized exactly."""
    return "float32" if resizing_of(spec).exact else "uint8"


def batches(spec: ExtractorSpec, images: Images, size: int) -> Iterator[Pixels]:
    """Yield batches of (m, h, w, 3) RGB pixels of the input size, m <= size, with one batch in memory at a time.

    Raises ImageError for an unusable file and QueryError for arrays that are not pixels.
    """
    if isinstance(images, (bytes, str, os.PathLike, Image.Image)):
        raise QueryError("embed() takes a list of images. Put a single image into a list.")
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise QueryError(
            f"An array of images must be (n, h, w, 3) uint8; this one is {images.shape}. Pass a single image as "
            "image[None]."
        )
    remaining = iter(images)
    while batch := [input_pixels(spec, image) for image in itertools.islice(remaining, size)]:
        yield np.stack(batch)


def input_pixels(spec: ExtractorSpec, image: ImageLike, part: Part | None = None) -> Pixels:
    """Resize an image, or a part of it, to the input size: (h, w, 3) RGB. Raises the errors of ``decode``."""
    if isinstance(image, np.ndarray):
        if part is None and image.shape == (*spec.input_size, 3) and image.dtype == pixel_type(spec):
            return image
        return resize(_checked(image), spec.input_size, part, resizing_of(spec))
    if isinstance(image, Image.Image):
        pixels = _of_pillow(image, profiles=not spec.full_decode)
        return resize(pixels, spec.input_size, part, resizing_of(spec))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return preprocess(spec, bytes(image), part=part).pixels
    if isinstance(image, (str, os.PathLike)):
        return preprocess(spec, read_image(image), part=part).pixels
    raise QueryError(
        f"An image must be an array, a PIL image, the bytes of an image file or a path, not {type(image).__name__}."
    )


def _checked(pixels: Pixels) -> NDArray[np.uint8]:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise QueryError(f"Pixels must be (h, w, 3) uint8 RGB; these are {pixels.shape} {pixels.dtype}.")
    return cast("NDArray[np.uint8]", pixels)


def _of_pillow(image: Image.Image, *, profiles: bool) -> NDArray[np.uint8]:
    """Return an image as (h, w, 3) uint8 RGB, upright; the image itself is not changed."""
    turned = upright(image, exif_orientation(image.info.get("exif")))
    profile = profile_of(image, "RGB") if profiles and image.mode != "CMYK" else None
    return _checked(np.asarray(to_srgb(to_rgb(turned), profile)))


def normalized(features: NDArray[np.float32], how: str, parts: Sequence[int] = ()) -> NDArray[np.float32]:
    """Normalise (n, d) float32 features to rows of length one if ``how`` is "l2"; a row of zeros stays zero.

    If a feature combines several layers, ``parts`` are their sizes. Each part is normalised before the whole, so that a
    layer with large activations does not drown out the others.
    """
    if how == "none":
        return features
    if len(parts) > 1:
        ends = np.cumsum(parts)[:-1]
        features = np.concatenate([normalized(part, how) for part in np.split(features, ends, axis=1)], axis=1)
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))[:, None]
    rows: NDArray[np.float32] = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return rows
