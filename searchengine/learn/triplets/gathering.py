"""Folders of labelled images -> features and labels; each image is decoded and embedded once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.extractors import Extractor
from searchengine.images import DecodedImage, Pixels, decode, find, resize
from searchengine.indexing.labels import labels_from
from searchengine.indexing.reading import Preprocess, read_ahead
from searchengine.indexing.roots import assign_roots, check_roots
from searchengine.indexing.scan import Candidate, make_plan
from searchengine.learn.triplets.inputs import Records, varied
from searchengine.learn.triplets.recipe import Recipe
from searchengine.processors import processors
from searchengine.progress import Progress

_BATCH = 32
_THREADS = processors()
_VIEW_SOURCE = 1.5  # augmented views are cut from a picture this many times larger than the input


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image file and its label, the first of several."""

    path: str
    candidate: Candidate
    label: str


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """The labelled images of some folders; ``unlabelled`` counts the others."""

    images: tuple[Labelled, ...]
    unlabelled: int


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImages:
    """Images to learn from, in the order of their paths; their features are in ``records``.

    ``labels`` (n,) int64 are positions in ``classes``; ``groups`` (n,) int64 are equal for equal content; ``places``
    (n,) int64 are positions of records.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    places: NDArray[np.int64]
    records: Records
    skipped: tuple[tuple[str, str], ...]
    version: str  # 16 hexadecimal digits: of all contents and labels


def find_labelled(folders: Sequence[Path], *, labels: str = "folder", exclude: Sequence[str] = ()) -> LabelledFiles:
    """The images in the folders, with the labels that an index would give them.

    Raises IndexingError for a missing folder or labels file, LearningError with fewer than two labels.
    """
    roots = assign_roots([], check_roots(folders))
    walks = [(root, find(root.folder, exclude=exclude)) for root in roots]
    plan = make_plan(walks, {}, {}, labels=labels_from(labels))
    names = {root.id: root.name for root in roots}
    images = []
    for candidate in plan.candidates:
        label = next((label.strip() for label in candidate.labels if label.strip()), "")
        if label:
            images.append(Labelled(_display_path(candidate, names), candidate, label))
    if not images:
        raise LearningError(
            f"No image in {', '.join(map(str, folders))} has a label, so there is nothing to learn from. Put the "
            "images of each class into a folder of its own, or list them in a table with the columns path and label: "
            "--labels FILE.csv."
        )
    classes = sorted({image.label for image in images})
    if len(classes) < 2:
        raise LearningError(
            f"All images have the same label, {classes[0]!r}: learning needs at least two classes. Name the parent "
            "folder, with a subfolder for each class."
        )
    return LabelledFiles(tuple(images), len(plan.candidates) - len(images))


def _display_path(candidate: Candidate, names: dict[int, str]) -> str:
    path = os.fsdecode(candidate.path)
    return path if len(names) == 1 else f"{names[candidate.root]}/{path}"


def gather(
    files: LabelledFiles, extractor: Extractor, folder: Path, recipe: Recipe, progress: Progress
) -> TrainingImages:
    """Embed each image, unless ``folder`` has its features from an earlier run.

    For a frozen backbone its augmented views are embedded too, which depend on the seed and on the content of the image
    alone; for one that learns, (h, w, 3) pixels are kept.

    Args:
        files: what to embed.
        extractor: of raw features, not normalised.
        folder: where the records are kept.
        recipe: says how many views there are, and whether the backbone learns.
        progress: advances with each image.

    Raises:
        LearningError: fewer than two classes have images that can be read, or the disk is full.
    """
    keep_pixels, seed = recipe.thaw is not None, recipe.seed
    views = 0 if keep_pixels else recipe.views
    made_with = json.dumps([extractor.spec.to_json(), extractor.precision, views, seed if views else 0, keep_pixels])
    file = folder / f"features-{hashlib.sha256(made_with.encode()).hexdigest()[:16]}.bin"
    contents: list[bytes | None] = []
    skipped: list[tuple[str, str]] = []
    try:
        records = Records(
            file,
            views=1 + views,
            dimension=extractor.dimension,
            pixels=extractor.spec.input_size if keep_pixels else None,
        )
        progress.start(len(files.images), 0)
        pending: dict[bytes, Pixels] = {}
        candidates = [image.candidate for image in files.images]
        preprocess = _with_views(extractor, views, seed)
        readings = read_ahead(candidates, preprocess, records, threads=_THREADS, ahead=4 * _THREADS)
        for image, reading in zip(files.images, readings, strict=True):
            content = reading.content_hash
            if reading.reason is not None or content is None:
                reason = reading.reason or "The file has gone."
                progress.skipped(image.path, reason)
                skipped.append((image.path, reason))
                content = None
            elif reading.picture is not None:
                pending[content] = reading.picture.pixels.reshape(1 + views, *extractor.spec.input_size, 3)
            contents.append(content)
            if len(pending) >= max(1, _BATCH // (1 + views)):
                _embed(pending, extractor, records)
                pending = {}
            progress.advance(1)
        _embed(pending, extractor, records)
    except OSError as error:
        raise LearningError(
            f"{file} cannot be written: {error.strerror or error}. Free some space; the same command resumes "
            "where this one stopped."
        ) from error
    return _gathered(files.images, contents, records, skipped)


def _gathered(
    images: Sequence[Labelled], contents: list[bytes | None], records: Records, skipped: list[tuple[str, str]]
) -> TrainingImages:
    usable = [(image, content) for image, content in zip(images, contents, strict=True) if content is not None]
    places = records.places([content for _, content in usable])
    finite = np.array([bool(np.isfinite(records.features(places[i : i + 1])).all()) for i in range(len(places))], bool)
    if len(places) and not finite.any():
        raise LearningError("All features of the backbone are NaN or infinite: its weights are damaged.")
    usable = [pair for pair, good in zip(usable, finite.tolist(), strict=True) if good]
    classes = tuple(sorted({image.label for image, _ in usable}))
    if len(classes) < 2:
        raise LearningError(
            f"{len(skipped)} of {len(images)} images cannot be used, which leaves fewer than two classes to learn "
            f"from. The first is {skipped[0][0]}: {skipped[0][1]}"
            if skipped
            else "Fewer than two classes are left."
        )
    numbers = {label: number for number, label in enumerate(classes)}
    version = hashlib.sha256()
    for image, content in usable:
        version.update(content + image.label.encode("utf-8", "surrogatepass") + b"\0")
    return TrainingImages(
        classes,
        np.array([numbers[image.label] for image, _ in usable], dtype=np.int64),
        np.unique([content.hex() for _, content in usable], return_inverse=True)[1].astype(np.int64),
        places[finite],
        records,
        tuple(skipped),
        version.hexdigest()[:16],
    )


def _embed(pending: dict[bytes, Pixels], extractor: Extractor, records: Records) -> None:
    if not pending:
        return
    pixels = np.stack(list(pending.values()))  # (m, 1 + views, h, w, 3)
    features = extractor.embed(pixels.reshape(-1, *pixels.shape[2:]))  # (m * (1 + views), d)
    records.append(list(pending), features.reshape(*pixels.shape[:2], -1), pixels[:, 0])


def _with_views(extractor: Extractor, views: int, seed: int) -> Preprocess:
    """Prepare an image and its augmented views, one below the other: ((1 + views) * h, w, 3) uint8."""

    def preprocess(data: bytes) -> DecodedImage:
        image = extractor.preprocess(data)
        if not views:
            return image
        size = extractor.spec.input_size
        side = round(_VIEW_SOURCE * max(size))
        source = decode(data, at_least=extractor.spec.decoded_at_least, size=(side, side)).pixels
        random = np.random.default_rng([seed, *hashlib.blake2b(data, digest_size=16).digest()])
        variants = varied([source.astype(np.uint8, copy=False)] * views, max(size), random)
        pixels: list[Pixels] = [image.pixels, *(resize(variant, size) for variant in variants)]
        return replace(image, pixels=np.concatenate(pixels))

    return preprocess
