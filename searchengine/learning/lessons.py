"""What the compact model is taught by: views of photos, what the teacher says of each, and the batches drawn from them.

The teacher sees the very part of a photo that the pupil sees. A pupil that is told of every part what the teacher says
of the whole learns its training photos by heart, and less that holds for others (Beyer et al. 2022, Knowledge
distillation: a good teacher is patient and consistent, https://arxiv.org/abs/2106.05237).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from searchengine.errors import SearchEngineError
from searchengine.learning.photos import UNREADABLE, digest_of_files, find_photos, resized
from searchengine.learning.teacher import SIZE, Directions, answers_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from searchengine.learning.photos import Augmentation, Photos, Pixels
    from searchengine.learning.teacher import Answers

    Box = tuple[float, float, float, float]

VIEW = 112  # the side of a view of a photo of full size
EACH = 2  # views of such a photo: the whole, and a part of it
SAMPLE = 16_000  # views by which the mean of the teacher's answers is measured


@dataclass(frozen=True)
class Lessons:
    """Views and what the teacher says of them: pixels (n, s, s, 3) uint8, answers (n, d) float16 in parts of d.

    Labels (n,) int64 are below 0 where the class is unknown. Views of another kind have another mean, so each kind's
    directions are about its own.
    """

    pixels: Pixels
    answers: Answers
    parts: tuple[int, ...]
    labels: npt.NDArray[np.int64]

    @cached_property
    def _directions(self) -> Directions:
        return Directions.of(np.asarray(self.answers[:SAMPLE], np.float32), self.parts)

    def targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What the pupil should say of these views: unit rows (n, d) float32."""
        return self._directions(np.asarray(self.answers[rows], np.float32))


def part_of(width: int, height: int, rng: np.random.Generator, *, least: float, most: float) -> Box:
    """A random box (left, top, right, bottom) of `least` to `most` of the area, stretched by at most 4 to 3."""
    area, stretch = rng.uniform(least, most), np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3)))
    wide, high = min(1.0, np.sqrt(area * stretch)) * width, min(1.0, np.sqrt(area / stretch)) * height
    left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
    return left, top, left + wide, top + high


def lessons_of_wholes(photos: Photos, teacher: Path, cache: Path) -> Lessons:
    """Every photo whole. Answers are kept in `cache/wholes.npy`."""
    told = answers_once(
        teacher, cache / "wholes", len(photos.pixels), {"photos": photos.source}, lambda i, j: list(photos.pixels[i:j])
    )
    return Lessons(photos.pixels, told.answers, told.parts, photos.labels)


def lessons_of_files(folder: Path, teacher: Path, kept: Path, *, seed: int = 7) -> Lessons:
    """Two views of every photo below a folder, of any size and kind: the whole, and 15 % to 80 % of it.

    The pupil gets 112 x 112 pixels of a view, the teacher its own size of the same, so that it sees what is lost. A
    photo that cannot be read is told of and becomes a black view. Views and answers are kept in files whose names begin
    with `kept`. Raises SearchEngineError where there are no photos, or what is kept was made from others.
    """
    files = find_photos(folder)
    files = [files[i] for i in np.random.default_rng(seed).permutation(len(files))]
    count = len(files) * EACH
    views_file = kept.with_name(f"{kept.name}.pixels.npy")
    if not views_file.exists():
        kept.with_name(f"{kept.name}.done").unlink(missing_ok=True)  # answers without their views teach nothing
    views = _open_views(views_file, count, VIEW)

    def of_file(number: int) -> list[Pixels]:
        try:
            picture = _opened(files[number])
        except UNREADABLE as error:
            print(f"{files[number]} cannot be read: {error}", file=sys.stderr)  # noqa: T201
            picture = Image.new("RGB", (VIEW, VIEW))
        rng, (width, height) = np.random.default_rng((seed, number)), picture.size
        boxes = [(0.0, 0.0, float(width), float(height)), part_of(width, height, rng, least=0.15, most=0.8)]
        views[number * EACH : (number + 1) * EACH] = [resized(picture, VIEW, box) for box in boxes]
        return [resized(picture, SIZE, box) for box in boxes]

    def pictures(first: int, after: int) -> Sequence[Pixels]:
        return [view for number in range(first // EACH, after // EACH) for view in of_file(number)]

    source = {"photos": digest_of_files(folder, files), "seed": seed}
    told = answers_once(teacher, kept, count, source, pictures)
    return Lessons(views, told.answers, told.parts, np.full(count, -1, np.int64))


def _opened(file: Path) -> Image.Image:
    """An upright RGB picture of at most 600 pixels a side, or little more than 400 where its format allows that."""
    with Image.open(file) as opened:
        opened.draft("RGB", (400, 400))
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    upright.thumbnail((600, 600))
    return upright


def _open_views(file: Path, count: int, side: int) -> Pixels:
    """Room for views on disk: (count, side, side, 3) uint8, what is there already kept.

    Raises SearchEngineError where that has another shape: answers may still belong to it, so it is not written over.
    """
    shape = (count, side, side, 3)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    kept: Pixels = np.lib.format.open_memmap(file, "r+")
    if kept.shape != shape:
        raise SearchEngineError(f"{file} was made from other photos ({len(kept)} rows); remove it to make it anew")
    return kept


class Order:
    """The rows 0..n-1 over and over, each time shuffled anew: a function of seed and position alone."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def rows(self, position: int, count: int) -> npt.NDArray[np.int64]:
        """The `count` row numbers that come after `position` have been drawn."""
        wanted = np.arange(position, position + count)
        rows = np.empty(count, np.int64)
        for epoch in sorted({int(epoch) for epoch in wanted // self.n}):
            here = wanted // self.n == epoch
            if epoch != self._epoch:
                self._order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
                self._epoch = epoch
            rows[here] = self._order[wanted[here] % self.n]
        return rows


class Batches:
    """Endless batches in an order that is a function of seed and step alone, so a resumed run goes on in step.

    Every kind of lessons makes up the same share of each batch.
    """

    def __init__(self, kinds: Sequence[Lessons], augmentation: Augmentation, batch: int, seed: int) -> None:
        self.augmentation, self.seed = augmentation, seed
        self._kinds = kinds
        shares = [batch // len(kinds) + (kind < batch % len(kinds)) for kind in range(len(kinds))]
        self._shares = shares
        self._orders = [Order(len(lessons.answers), seed + kind) for kind, lessons in enumerate(kinds)]

    def rows(self, step: int) -> list[npt.NDArray[np.int64]]:
        """Row numbers of the views in a batch, for each kind of lessons."""
        return [order.rows(step * share, share) for order, share in zip(self._orders, self._shares, strict=True)]

    def at(self, step: int, size: int) -> tuple[Pixels, dict[str, npt.NDArray[Any]]]:
        """Augmented pictures (batch, size, size, 3) uint8, and what is wanted of them."""
        rng = np.random.default_rng((self.seed, 1, step))
        chosen = list(zip(self._kinds, self.rows(step), strict=True))
        pictures = [lessons.pixels[row] for lessons, rows in chosen for row in rows]
        wanted = {
            "teacher": np.concatenate([lessons.targets(rows) for lessons, rows in chosen]),
            "label": np.concatenate([lessons.labels[rows] for lessons, rows in chosen]).astype(np.int32),
        }
        return self.augmentation.batch(pictures, size, rng), wanted
