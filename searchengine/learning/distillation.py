"""Train the compact model: a small network learns from a large one what pictures are like.

Run as `python -m searchengine.learning.distillation --data DIR --teacher FILE --out DIR`.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from searchengine.errors import SearchEngineError
from searchengine.extractors.compact import CompactShape, build_compact
from searchengine.learning.distiller import (
    Progress,
    build_distiller,
    compile_distiller,
    fused_normalization,
    load_checkpoint,
    save_checkpoint,
)
from searchengine.learning.lessons import Batches, Lessons, lessons_of_files, lessons_of_wholes
from searchengine.learning.photos import Augmentation, Photos, decode_once, find_photos, squashed_some
from searchengine.learning.schedule import GrowingSize, OneCycle
from searchengine.learning.teacher import Teacher
from searchengine.learning.warm_start import start_from

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKPOINT = "checkpoint.npz"


@dataclass(frozen=True)
class Recipe:
    """All that decides how a training goes. It ends after `epochs`, or, where given, after `minutes` of training."""

    epochs: float = 8.0
    minutes: float | None = None
    batch: int = 64
    peak: float = 1.5e-3
    seed: int = 1
    shape: CompactShape = field(default_factory=CompactShape)
    sizes: GrowingSize = field(default_factory=GrowingSize)
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(least_area=0.65))
    checkpoint_seconds: float = 300.0

    def progress(self, done: Progress, images: int) -> float:
        """How much of the training is done, 0..1."""
        if self.minutes is not None:
            return min(done.seconds / (60 * self.minutes), 1.0)
        return min(done.images / (self.epochs * images), 1.0)


def new_distiller(recipe: Recipe, *, teacher_dimension: int, classes: int) -> Any:
    """A student of the recipe's shape with its heads and optimiser, untrained. It takes pictures of any size."""
    import keras

    keras.utils.set_random_seed(recipe.seed)
    student = build_compact(None, recipe.shape, normalization=fused_normalization)
    distiller = build_distiller(student, teacher_dimension=teacher_dimension, classes=classes)
    compile_distiller(distiller)
    return distiller


def train(
    kinds: Sequence[Lessons],
    photos: Photos,
    recipe: Recipe,
    out: Path,
    *,
    start: Path | None = None,
) -> tuple[Any, Progress]:
    """Train, or go on training, until the recipe is done. Returns the distiller; `out` keeps its checkpoint.

    Each kind of lessons has the same share in a batch; an epoch is as many images as there are `photos`, which also
    give the classes. `start` is the folder of a packaged model that the student begins with, where there is no
    checkpoint yet.
    """
    out.mkdir(parents=True, exist_ok=True)
    distiller = new_distiller(recipe, teacher_dimension=sum(kinds[0].parts), classes=len(photos.classes))
    images = len(photos.pixels)
    done, path = Progress(), out / CHECKPOINT
    if path.exists():
        done = load_checkpoint(path, distiller)
        say(f"resumed at {done.images} images, {done.seconds / 60:.1f} minutes")
    elif start is not None:
        start_from(distiller.student, start, photos)
        say(f"beginning with the model in {start}")
    batches = Batches(kinds, recipe.augmentation, recipe.batch, recipe.seed)
    cycle = OneCycle(recipe.peak)
    saved = reported = done
    pool = ThreadPoolExecutor(1)  # the next batch is augmented while this one trains
    following = pool.submit(batches.at, done.steps, recipe.sizes.at(recipe.progress(done, images)))
    while (progress := recipe.progress(done, images)) < 1:
        began = time.monotonic()
        distiller.optimizer.learning_rate = cycle.at(progress)
        size = recipe.sizes.at(progress)
        pictures, wanted = following.result()
        following = pool.submit(batches.at, done.steps + 1, size)
        parts = distiller.train_on_batch(pictures, wanted, return_dict=True)
        if not np.isfinite(parts["loss"]):
            raise SearchEngineError(f"the loss is no longer finite at step {done.steps}; lower --peak and resume")
        spent = done.seconds + time.monotonic() - began
        done = Progress(done.images + recipe.batch, spent, done.steps + 1)
        if done.seconds - reported.seconds > 20:
            speed = (done.images - reported.images) / (done.seconds - reported.seconds)
            shown = "  ".join(f"{name} {float(value):.4f}" for name, value in parts.items())
            say(f"{progress:6.1%}  {done.images} images  {size} px  {speed:.0f} images/s  {shown}")
            distiller.reset_metrics()
            reported = done
        if done.seconds - saved.seconds > recipe.checkpoint_seconds:
            save_checkpoint(path, distiller, done)
            saved = done
    pool.shutdown()
    save_checkpoint(path, distiller, done)
    return distiller, done


def summary(photos: Photos, recipe: Recipe, done: Progress) -> dict[str, Any]:
    """What the card of an exported model says of its training."""
    return {
        "photos": len(photos.pixels),
        "classes": len(photos.classes),
        "images_drawn": done.images,
        "steps": done.steps,
        "minutes": round(done.seconds / 60, 1),
        "batch": recipe.batch,
        "peak_learning_rate": recipe.peak,
        "sizes": [list(step) for step in recipe.sizes.steps],
        "seed": recipe.seed,
    }


def say(line: str) -> None:
    """A line of progress, to standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def parser() -> argparse.ArgumentParser:
    """The command line of this module."""
    made = argparse.ArgumentParser(
        prog="python -m searchengine.learning.distillation",
        description="Train the compact model from photos and a teacher network, and export it for the package.",
        epilog="""The photos lie in DIR/<class>/, in Tiny-ImageNet's case in its train/ folder. They are decoded once,
        and what the teacher says of each is computed once; both are kept in --out, which also holds the checkpoint.
        A run that was stopped, even by kill -9, goes on with the same command. KERAS_BACKEND chooses what trains:
        tensorflow on processors, jax or torch on a GPU. On two cores a useful model takes about an hour and a half;
        with TensorFlow set TF_ENABLE_ONEDNN_OPTS=1, which is a quarter faster where it is not the default.""",
    )
    made.add_argument("--data", type=Path, required=True, metavar="DIR", help="photos, one folder a class")
    made.add_argument(
        "--teacher", type=Path, required=True, metavar="FILE", help="teacher network: .tflite, .xml or .onnx"
    )
    made.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="decoded photos, the teacher's answers and the checkpoint",
    )
    made.add_argument(
        "--more",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="further photos, of any size and kind, without classes; each such folder has the same share in a batch as "
        "--data (may be given several times)",
    )
    made.add_argument(
        "--epochs",
        type=float,
        default=8.0,
        help="so many times as many views as --data has photos are drawn (default: 8)",
    )
    made.add_argument("--minutes", type=float, help="train for so long instead, whatever the number of epochs")
    made.add_argument("--batch", type=int, default=64, help="photos a step (default: 64)")
    made.add_argument("--peak", type=float, default=1.5e-3, help="highest learning rate (default: 0.0015)")
    made.add_argument(
        "--sizes",
        type=_sizes,
        default=GrowingSize(),
        metavar="SIZE:UNTIL,...",
        help="picture sizes and the share of the training until which each serves (default: 48:0.72,64:1)",
    )
    made.add_argument("--seed", type=int, default=1, help="of weights, order and augmentation (default: 1)")
    made.add_argument(
        "--start-from",
        type=Path,
        metavar="DIR",
        help="begin with the packaged model in this folder instead of random weights",
    )
    made.add_argument("--export", type=Path, metavar="DIR", help="write the packaged form there when training is done")
    made.add_argument("--export-only", action="store_true", help="export the checkpoint as it is, without training on")
    made.add_argument(
        "--size",
        type=int,
        choices=range(64, 129, 16),
        default=112,
        help="picture size of the exported model (default: 112)",
    )
    made.add_argument(
        "--sharp",
        type=Path,
        metavar="DIR",
        help="1000 photos or more of full size, of many kinds, such as those of --more: on 4096 of them the exported "
        "model's batch normalisation and origin are measured, because small photos that were enlarged have others "
        "(default: those of --data)",
    )
    return made


def _sizes(text: str) -> GrowingSize:
    """As argparse wants it: of another error it would not pass on the sentence."""
    try:
        return GrowingSize.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _check(options: argparse.Namespace) -> None:
    """Raise SearchEngineError, before anything is computed, where something that is needed at the end is missing."""
    names = [folder.resolve().name for folder in options.more]
    if len(set(names)) < len(names):
        raise SearchEngineError("the folders of --more need different names: what is kept of each is named so")
    for folder in options.more:
        find_photos(folder)
    Teacher(options.teacher)
    if options.export_only and not (options.out / CHECKPOINT).is_file():
        raise SearchEngineError(
            f"{options.out} holds no {CHECKPOINT}, so there is nothing to export; train first, without --export-only"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Decode, embed, train, export. Returns the exit status."""
    options = parser().parse_args(arguments)
    recipe = Recipe(
        epochs=options.epochs,
        minutes=options.minutes,
        batch=options.batch,
        peak=options.peak,
        seed=options.seed,
        sizes=options.sizes,
    )
    try:
        _check(options)
        sharp = None if options.sharp is None else squashed_some(options.sharp, options.size)
        photos = decode_once(options.data, options.out)
        more = [(folder, options.out / f"more-{folder.resolve().name}") for folder in options.more]
        kinds = [lessons_of_wholes(photos, options.teacher, options.out)]
        kinds += [lessons_of_files(folder, options.teacher, kept) for folder, kept in more]
        if options.export_only:
            dimension, classes = sum(kinds[0].parts), len(photos.classes)
            distiller = new_distiller(recipe, teacher_dimension=dimension, classes=classes)
            done = load_checkpoint(options.out / CHECKPOINT, distiller)
            say(f"exporting at {done.images} images")
        else:
            distiller, done = train(kinds, photos, recipe, options.out, start=options.start_from)
        if options.export is not None:
            from searchengine.learning.packaging import package

            package(
                distiller,
                photos,
                recipe.shape,
                options.export,
                size=options.size,
                summary=summary(photos, recipe, done),
                sharp=sharp,
            )
    except SearchEngineError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
