"""Folders of labelled images -> training inputs: features or pixels of the images and of random variants of them.

The images are indexed like any others, into the folder of the run. So each is decoded and embedded once, unreadable
files are reported, and a run that was stopped resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from searchengine.errors import ImageError, LearningError
from searchengine.extractors import ExtractorRecipe
from searchengine.files import output_file
from searchengine.images import DecodedImage, Pixels, Walk, decode, resize
from searchengine.index.local import LocalIndex
from searchengine.index.storage import storage_of
from searchengine.index.types import ImageRecord
from searchengine.indexing.labels import labels_from
from searchengine.indexing.model import RunExtractor
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.run import update_with
from searchengine.indexing.scan import assign_roots, check_roots, make_plan
from searchengine.learn.training_set import training_set
from searchengine.learn.triplets.learner import Recipe
from searchengine.processors import processors
from searchengine.progress import Progress, Say

_BATCH = 32  # pictures, including their variants, that are embedded at a time
_VIEW_SOURCE = 1.5  # augmented views are cropped from a picture this many times larger than the input


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImages:
    """Labelled images in the order of their ids in the index of the run.

    Attributes:
        classes: the names of the classes.
        labels: (n,) int64, positions in ``classes``.
        groups: (n,) int64, equal for files with equal content.
        features: (n, 1 + views, d) float32, the features of each image, then of its augmented views.
        pixels: (n, h, w, 3) uint8; only for a backbone that learns.
        unlabelled: the number of images without a label.
        skipped: the path of each unusable file, and the reason.
        version: 16 hexadecimal digits that change with the images and labels.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    features: NDArray[np.float32]
    pixels: Pixels | None
    unlabelled: int
    skipped: tuple[tuple[str, str], ...]
    version: str


def check_labels(folders: Sequence[Path], *, labels: str = "folder", exclude: Sequence[str] = ()) -> None:
    """Raise LearningError unless the images have two different labels, before hours are spent on their features.

    Raises IndexingError if a folder or the labels file is missing.
    """
    roots = assign_roots([], check_roots(folders))
    walks = [(root, Walk(root.folder, exclude=exclude)) for root in roots]
    candidates = make_plan(walks, labels_from(labels)).candidates
    classes = sorted({candidate.labels[0] for candidate in candidates if candidate.labels})
    if not classes:
        raise LearningError(
            f"No image in {', '.join(map(str, folders))} has a label, so there is nothing to learn from. Put the "
            "images of each class into a separate folder, or list them in a table with the columns path and label: "
            "--labels FILE.csv."
        )
    if len(classes) < 2:
        raise LearningError(
            f"All images have the same label, {classes[0]!r}, but learning needs at least two classes. Give the parent "
            "folder, with a subfolder for each class."
        )


class TrainingExtractor(RunExtractor):
    """The backbone of a run. The feature of an image is followed by those of its augmented views, d numbers each.

    The views depend only on the seed and the content of the image. A backbone that learns has none, because new views
    are drawn from the pixels at each step.
    """

    def __init__(self, backbone: ExtractorRecipe, recipe: Recipe, say: Say) -> None:
        super().__init__(backbone, say, words=False)
        self.learns = recipe.thaw is not None
        self.views, self.seed = 0 if self.learns else recipe.views, recipe.seed

    def preprocess(self, data: bytes) -> DecodedImage:
        """Return the pixels of an image and of its views, stacked vertically: ((1 + views) * h, w, 3) uint8."""
        image = super().preprocess(data)
        if not self.views:
            return image
        size = self.spec.input_size
        side = round(_VIEW_SOURCE * max(size))
        source = decode(data, at_least=self.spec.decoded_at_least, size=(side, side)).pixels
        random = np.random.default_rng([self.seed, *hashlib.blake2b(data, digest_size=16).digest()])
        variants = augmented([source.astype(np.uint8, copy=False)] * self.views, max(size), random)
        return replace(image, pixels=np.concatenate([image.pixels, *(resize(variant, size) for variant in variants)]))

    def embed(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """Embed n images of ((1 + views) * h, w, 3) as (n, (1 + views) * d) float32.

        Raises IndexingError for NaN or infinity.
        """
        pictures = np.stack(pixels).reshape(-1, *self.spec.input_size, 3)
        return super().embed(list(pictures)).reshape(len(pixels), -1)


def gather(
    folders: Sequence[Path],
    extractor: TrainingExtractor,
    folder: Path,
    options: IndexingOptions,
    progress: Progress,
) -> TrainingImages:
    """Index the images of the folders with their augmented views; results of an earlier run in ``folder`` are reused.

    Raises:
        LearningError: fewer than two classes have readable images.
        IndexingError: the disk is full, or the model computes NaN.
    """
    computed = (extractor.spec.to_json(), extractor.recipe.precision, extractor.recipe.runtime)
    made_with = [
        *computed,
        extractor.views,
        extractor.views and extractor.seed,
        *(str(path.absolute()) for path in folders),
    ]
    index_dir = folder / f"index-{hashlib.sha256(json.dumps(made_with).encode()).hexdigest()[:16]}"
    batch = max(1, _BATCH // (1 + extractor.views))
    run_options = replace(options, prune_all=True, ann="off", batch_size=batch)
    summary = update_with(extractor, folders, storage_of(index_dir), run_options, progress)
    if not summary.images:
        raise LearningError(f"None of the {summary.skipped} images can be used; the reasons are listed above.")
    with closing(LocalIndex.open(index_dir)) as index:
        data = training_set(index)
        skipped = tuple(index.skipped())
        classes, numbers = np.unique(data.labels, return_inverse=True)
        if len(classes) < 2:
            raise LearningError(
                f"All usable images are of the class {str(classes[0])!r}, but learning needs at least two classes: "
                f"{len(skipped)} images cannot be used."
            )
        pixels = None
        if extractor.learns:
            file = index_dir / f"pixels-{data.version}.npy"
            pixels = _kept_pixels(file, index.records(data.ids.tolist()), extractor, progress)
        return TrainingImages(
            tuple(map(str, classes)),
            numbers.astype(np.int64),
            data.groups,
            data.features.reshape(len(data.ids), 1 + extractor.views, -1),
            pixels,
            data.unlabelled,
            skipped,
            data.version,
        )


def _kept_pixels(file: Path, records: Sequence[ImageRecord], extractor: RunExtractor, progress: Progress) -> Pixels:
    """Return the pixels of images as the backbone takes them, (n, h, w, 3) uint8, mapped from a file written once."""

    def read(record: ImageRecord) -> Pixels:
        try:
            return np.clip(extractor.preprocess(record.read()).pixels, 0, 255).astype(np.uint8)
        except ImageError as error:
            raise LearningError(f"{record.path} has changed: {error} Run the same command again.") from error

    if not file.exists():
        progress.start(len(records), what="decoding")
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(records), *extractor.spec.input_size, 3)}
        with (
            output_file(file) as part,
            part.open("wb") as opened,
            ThreadPoolExecutor(processors(), thread_name_prefix="decode") as pool,
        ):
            np.lib.format.write_array_header_1_0(opened, header)
            for picture in pool.map(read, records):
                opened.write(picture.tobytes())
                progress.advance()
    kept: Pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    return kept


# -- data augmentation -------------------------------------------------------------------------------------------------

_MIN_AREA = 0.4  # share of a picture that a crop keeps at least
_STRETCH = 4 / 3
_FLIP, _ROTATE, _BLUR, _GREY = 0.5, 0.25, 0.15, 0.15  # probabilities
_DEGREES = 15.0
_BLUR_RADIUS = 0.02  # maximum, relative to the side of a picture
_COLOUR = 0.3  # strength


def augmented(pictures: Sequence[Pixels] | Pixels, size: int, random: np.random.Generator) -> Pixels:
    """Return a new variant of each picture: n of (s, s, 3) uint8 -> (n, size, size, 3) uint8."""
    return _recoloured(np.stack([_cropped(picture, size, random) for picture in pictures]), random)


def _cropped(pixels: Pixels, size: int, random: np.random.Generator) -> Pixels:
    """Crop a random part of a picture, perhaps stretched, rotated, blurred or flipped: (s, s, 3) -> (size, size, 3)."""
    side = pixels.shape[0]
    area = random.uniform(_MIN_AREA, 1.0)
    stretch = np.exp(random.uniform(-np.log(_STRETCH), np.log(_STRETCH)))
    width = min(side, side * np.sqrt(area * stretch))
    height = min(side, side * np.sqrt(area / stretch))
    left, top = random.uniform(0, side - width), random.uniform(0, side - height)
    picture = Image.fromarray(pixels)
    if random.random() < _ROTATE:
        angle = random.uniform(-_DEGREES, _DEGREES)
        corners = (0, 0, 0) if random.random() < 0.5 else tuple(random.integers(0, 256, 3).tolist())
        picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corners)
    box = (left, top, left + width, top + height)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if random.random() < _BLUR:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 1) * _BLUR_RADIUS * size))
    part = np.asarray(picture)
    return part[:, ::-1] if random.random() < _FLIP else part


def _recoloured(batch: Pixels, random: np.random.Generator) -> Pixels:
    """Vary brightness, contrast and saturation, sometimes down to grey: (n, s, s, 3) uint8 -> the same shape."""
    n = len(batch)
    factors = np.exp(random.uniform(-_COLOUR, _COLOUR, (3, n, 1, 1, 1))).astype(np.float32)
    brightness, contrast, saturation = factors
    saturation[random.random(n) < _GREY] = 0
    x = batch.astype(np.float32)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)  # (n, s, s, 3) -> (n, s, s)
    x = grey[..., None] + (x - grey[..., None]) * saturation
    middle = grey.mean(axis=(1, 2))[:, None, None, None]
    recoloured: Pixels = np.clip((middle + (x - middle) * contrast) * brightness + 0.5, 0, 255).astype(np.uint8)
    return recoloured


# -- inputs of a training step -----------------------------------------------------------------------------------------


class Features:
    """Training inputs for a frozen backbone: (b,) rows -> (b, d) float32 features.

    ``features`` is (n, 1 + views, d); ``dropout`` is the share of numbers that a step leaves out.
    """

    def __init__(self, features: NDArray[np.float32], *, dropout: float) -> None:
        self._features, self._dropout = features, dropout

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.float32]:
        """Return a random view of each row, with dropout.

        The remaining numbers are scaled up to preserve their mean (Srivastava et al. 2014).
        """
        features = self._features[rows, random.integers(0, self._features.shape[1], len(rows))]
        if self._dropout:
            mask = random.random(features.shape, dtype=np.float32) >= self._dropout
            features = features * mask / np.float32(1.0 - self._dropout)
        return features

    def plain(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of the images themselves."""
        return np.asarray(self._features[rows, 0])


class Pictures:
    """Training inputs for a backbone that learns: (b,) rows -> (b, h, w, 3) uint8 pixels.

    ``pixels`` is (n, h, w, 3) uint8; ``augmented`` says whether a step sees random variants of them.
    """

    def __init__(self, pixels: Pixels, *, augmented: bool) -> None:
        self._pixels, self._augmented = pixels, augmented

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> Pixels:
        """Return the pixels of each row, as a new variant if they are to be augmented."""
        pictures = self.plain(rows)
        if not self._augmented:
            return pictures
        height, width = pictures.shape[1:3]
        side = max(height, width)
        square = [resize(picture, (side, side)) for picture in pictures]
        variants = augmented(square, side, random)
        return np.stack([resize(variant, (height, width)) for variant in variants])

    def plain(self, rows: NDArray[np.int64]) -> Pixels:
        """Return the pixels of the images themselves."""
        return self._pixels[rows]
