"""Folders of labelled images -> features and labels; each image is decoded and embedded once."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ImageError, LearningError
from searchengine.extractors import Extractor
from searchengine.files import read_regular
from searchengine.images import decode, find, resize
from searchengine.indexing.labels import labels_from
from searchengine.indexing.roots import assign_roots, check_roots
from searchengine.indexing.scan import Candidate, make_plan
from searchengine.learn.triplets.augmentation import Augmentation
from searchengine.learn.triplets.records import Records
from searchengine.progress import Progress

_BATCH = 32
_THREADS = os.cpu_count() or 1
_VIEW_SOURCE = 1.5  # augmented views are cut from a picture this many times larger than the input


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image file and its label, the first of several."""

    path: str
    file: bytes
    label: str


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """The labelled images of some folders; ``unlabelled`` counts the others."""

    images: tuple[Labelled, ...]
    unlabelled: int


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    content: bytes | None
    pixels: NDArray[np.uint8] | None = None  # (1 + views, h, w, 3)
    reason: str | None = None


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
            images.append(Labelled(_display_path(candidate, names), candidate.file, label))
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
    files: LabelledFiles,
    extractor: Extractor,
    folder: Path,
    progress: Progress,
    *,
    views: int = 0,
    seed: int = 0,
    keep_pixels: bool = False,
) -> Gathered:
    """Embed each image and its augmented views, unless ``folder`` has their features from an earlier run.

    Args:
        files: what to embed.
        extractor: of raw features, not normalised.
        folder: where the records are kept.
        progress: advances with each image.
        views: augmented variants of each image besides itself.
        seed: of the augmentation, which depends on it and on the content of the image alone.
        keep_pixels: keep (h, w, 3) pixels too, for a backbone that learns.

    Raises:
        LearningError: fewer than two classes have images that can be read, or the disk is full.
    """
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
        pending: dict[bytes, NDArray[np.uint8]] = {}
        for image, read in _read_ahead(files.images, extractor, records, views, seed):
            if read.reason is not None:
                progress.skipped(image.path, read.reason)
                skipped.append((image.path, read.reason))
            elif read.pixels is not None and read.content is not None:
                pending[read.content] = read.pixels
            contents.append(read.content if read.reason is None else None)
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
) -> Gathered:
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
    return Gathered(
        classes,
        np.array([numbers[image.label] for image, _ in usable], dtype=np.int64),
        np.unique([content.hex() for _, content in usable], return_inverse=True)[1].astype(np.int64),
        places[finite],
        records,
        tuple(skipped),
        version.hexdigest()[:16],
    )


def _embed(pending: dict[bytes, NDArray[np.uint8]], extractor: Extractor, records: Records) -> None:
    if not pending:
        return
    pixels = np.stack(list(pending.values()))  # (m, 1 + views, h, w, 3)
    features = extractor.embed(pixels.reshape(-1, *pixels.shape[2:]))  # (m * (1 + views), d)
    records.append(list(pending), features.reshape(*pixels.shape[:2], -1), pixels[:, 0])


def _read_ahead(
    images: Sequence[Labelled], extractor: Extractor, records: Records, views: int, seed: int
) -> Iterator[tuple[Labelled, _Read]]:
    """Each image with its content, decoded by threads a few files ahead of the model."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Labelled, Future[_Read]]] = deque()
        try:
            for image in images:
                waiting.append((image, pool.submit(_read, image, extractor, records, views, seed)))
                if len(waiting) >= 4 * _THREADS:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _read(image: Labelled, extractor: Extractor, records: Records, views: int, seed: int) -> _Read:
    try:
        data = read_regular(image.file)
    except OSError as error:
        return _Read(None, reason=f"The file cannot be read: {error.strerror or error}.")
    content = hashlib.blake2b(data, digest_size=16).digest()
    if content in records:
        return _Read(content)
    size = extractor.spec.input_size
    side = round(_VIEW_SOURCE * max(size))
    try:
        pixels = extractor.preprocess(data).pixels
        if not views:
            return _Read(content, pixels[None])
        source = decode(data, at_least=extractor.spec.decoded_at_least, size=(side, side)).pixels
    except ImageError as error:
        return _Read(content, reason=str(error))
    random = np.random.default_rng([seed, *content])
    varied = Augmentation().batch([source] * views, max(size), random)
    return _Read(content, np.stack([pixels, *(resize(view, size) for view in varied)]))
