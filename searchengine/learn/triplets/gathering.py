"""Folders of labelled images -> features and labels to learn from; each image is decoded and embedded once."""

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
from searchengine.images import resize
from searchengine.indexing.labels import labels_from
from searchengine.indexing.roots import assign_roots
from searchengine.indexing.scan import Candidate, check_roots, make_plan
from searchengine.learn.triplets.augmentation import Augmentation
from searchengine.learn.triplets.records import Records
from searchengine.progress import Progress

_BATCH = 32
_THREADS = os.cpu_count() or 1
_SOURCE = 1.5  # times the input size: from so large a picture the augmented ones are cut


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file and its label, of several the first."""

    path: str
    file: bytes
    label: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the folders hold: ``unlabelled`` counts images that have no label."""

    images: tuple[Labelled, ...]
    unlabelled: int


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Images that can be learnt from, in the order of their paths; their features stand in ``records``.

    ``labels`` (n,) int64 are numbers of ``classes``; ``groups`` (n,) int64 are equal where the content is; ``places``
    (n,) int64 are the records.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    places: NDArray[np.int64]
    records: Records
    skipped: tuple[tuple[str, str], ...]
    version: str  # 16 hexadecimal digits that differ whenever an image or a label does


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    content: bytes | None
    pixels: NDArray[np.uint8] | None = None  # (1 + views, h, w, 3)
    reason: str | None = None


def find_labelled(folders: Sequence[Path], *, labels: str = "folder", exclude: Sequence[str] = ()) -> Found:
    """The files in the folders, and their labels as an index would have them.

    Raises IndexingError for a folder or a labels file that is not there, LearningError where nothing has a label.
    """
    roots = assign_roots([], check_roots(folders))
    plan = make_plan(roots, {}, {}, labels=labels_from(labels), exclude=exclude)
    names = {root.id: root.name for root in roots}
    found = []
    for candidate in plan.candidates:
        label = next((one.strip() for one in candidate.labels if one.strip()), "")
        if label:
            found.append(Labelled(_shown(candidate, names), candidate.file, label))
    if not found:
        raise LearningError(
            f"Nothing in {', '.join(map(str, folders))} has a label, so there is nothing to learn from. Put the images "
            "of each class into a folder of its own, or name them in a table: --labels FILE.csv, with the columns path "
            "and label."
        )
    classes = sorted({one.label for one in found})
    if len(classes) < 2:
        raise LearningError(
            f"All images have the one label {classes[0]!r}: what is alike is learnt from what is not. Give the folder "
            "above, with a subfolder for each of at least two classes."
        )
    return Found(tuple(found), len(plan.candidates) - len(found))


def _shown(candidate: Candidate, names: dict[int, str]) -> str:
    path = os.fsdecode(candidate.path)
    return path if len(names) == 1 else f"{names[candidate.root]}/{path}"


def gather(
    found: Found,
    extractor: Extractor,
    folder: Path,
    progress: Progress,
    *,
    views: int = 0,
    seed: int = 0,
    keep_pixels: bool = False,
) -> Gathered:
    """Embed every image once, and its augmented views; what was embedded before is taken from ``folder``.

    Args:
        found: what to embed.
        extractor: of raw features, not normalised.
        folder: where the records are kept.
        progress: told of each image.
        views: augmented variants of each image beside itself.
        seed: of the augmentation, which is a function of it and the content of the image.
        keep_pixels: keep (h, w, 3) pixels too, for a backbone that learns.

    Raises:
        LearningError: fewer than two classes are left after what cannot be read, or the disk is full.
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
        progress.start(len(found.images), 0)
        pending: dict[bytes, NDArray[np.uint8]] = {}
        for image, read in _read_ahead(found.images, extractor, records, views, seed):
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
            f"{file} cannot be written: {error.strerror or error}. Free some space; the same command goes on where "
            "this one stopped."
        ) from error
    return _gathered(found.images, contents, records, skipped)


def _gathered(
    images: Sequence[Labelled], contents: list[bytes | None], records: Records, skipped: list[tuple[str, str]]
) -> Gathered:
    usable = [(image, content) for image, content in zip(images, contents, strict=True) if content is not None]
    places = records.places([content for _, content in usable])
    finite = np.array([bool(np.isfinite(records.features(places[i : i + 1])).all()) for i in range(len(places))], bool)
    if len(places) and not finite.any():
        raise LearningError("The backbone gives features that are no numbers: its weights are damaged.")
    usable = [one for one, good in zip(usable, finite.tolist(), strict=True) if good]
    classes = tuple(sorted({image.label for image, _ in usable}))
    if len(classes) < 2:
        raise LearningError(
            f"Of {len(images)} images {len(skipped)} cannot be used, and fewer than two classes are left: nothing can "
            f"be learnt. The first: {skipped[0][0]}: {skipped[0][1]}"
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
    """By threads, a few files ahead of the model."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Labelled, Future[_Read]]] = deque()
        try:
            for image in images:
                waiting.append((image, pool.submit(_read, image, extractor, records, views, seed)))
                if len(waiting) >= 4 * _THREADS:
                    one, future = waiting.popleft()
                    yield one, future.result()
            while waiting:
                one, future = waiting.popleft()
                yield one, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _read(image: Labelled, extractor: Extractor, records: Records, views: int, seed: int) -> _Read:
    try:
        with open(image.file, "rb") as stream:  # noqa: PTH123  (a path of bytes)
            data = stream.read()
    except OSError as error:
        return _Read(None, reason=f"The file cannot be read: {error.strerror or error}.")
    content = hashlib.blake2b(data, digest_size=16).digest()
    if content in records:
        return _Read(content)
    try:
        decoded, pixels = extractor.preprocess(data)
    except ImageError as error:
        return _Read(content, reason=str(error))
    if not views:
        return _Read(content, pixels[None])
    size = extractor.spec.input_size
    side = round(_SOURCE * max(size))
    random = np.random.default_rng([seed, *content])
    varied = Augmentation().batch([resize(decoded.pixels, (side, side))] * views, max(size), random)
    return _Read(content, np.stack([pixels, *(resize(one, size) for one in varied)]))
