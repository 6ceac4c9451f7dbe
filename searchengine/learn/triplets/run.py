"""Trains a metric: folders of labelled images -> a ``.keras`` file that maps pictures to embeddings."""

from __future__ import annotations

import contextlib
import json
import re
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.extractors import ExtractorRecipe, ExtractorSpec
from searchengine.extractors.extractor import normalized
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.networks import BuiltModel
from searchengine.files import flush, locked, parse_json
from searchengine.indexing import IndexingOptions
from searchengine.learn.triplets.epochs import (
    Checkpoint,
    Epoch,
    Scores,
    best_of,
    further_epochs,
    load_checkpoint,
    save_checkpoint,
    score,
    start_training,
    validation_triplets,
    write_history,
)
from searchengine.learn.triplets.inputs import (
    Features,
    Pictures,
    TrainingExtractor,
    TrainingImages,
    check_labels,
    gather,
)
from searchengine.learn.triplets.learner import (
    Learner,
    NotFiniteError,
    Recipe,
    batches_of,
    joined,
    load_backbone,
    new_head,
    thawed,
)
from searchengine.learn.triplets.sampling import validation_part
from searchengine.progress import QUIET, Progress

_FREE_SETTINGS = frozenset({"epochs", "patience"})  # may be changed when a run is resumed


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train a metric.

    Attributes:
        recipe: the network and the training steps.
        labels: "folder" or a file, as for an index.
        exclude: patterns of files to leave out.
        weights_file: weights for the backbone, unless the published ones are used.
        precision: precision of the frozen backbone.
        runtime: runtime of the frozen backbone.
        restart: start again instead of resuming.
    """

    recipe: Recipe = field(default_factory=Recipe)
    labels: str = "folder"
    exclude: Sequence[str] = ()
    weights_file: Path | None = None
    precision: str = "auto"
    runtime: str = "auto"
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training run.

    ``before`` are the scores of the backbone's features, ``after`` those of the best epoch, which has the number
    ``best``.
    """

    model: Path
    before: Scores
    after: Scores
    best: int
    epochs: tuple[Epoch, ...]
    classes: int
    training: int
    validation: int
    unlabelled: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """The images, how they are split, and the scores of the backbone alone."""

    data: TrainingImages
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    triplets: NDArray[np.int64]
    before: Scores

    def score(self, learner: Learner) -> Scores:
        return score(learner.embed(self.validation), self.data.labels[self.validation], self.triplets)


def work_folder(out: Path) -> Path:
    """Return the folder with the state and the features of a run."""
    return out.with_name(f"{out.stem}.training")


def _checkpoint_file(out: Path) -> Path:
    return work_folder(out) / "checkpoint.npz"


def train_metric(
    folders: Sequence[Path],
    out: Path,
    spec: ExtractorSpec,
    options: TrainingOptions | None = None,
    progress: Progress = QUIET,
) -> Trained:
    """Train a metric, or resume its training, and write the model.

    Args:
        folders: folders of images.
        out: the ``.keras`` file to write. A CSV table of the epochs and a folder with the state of the run are put
            beside it.
        spec: the backbone, cut where the new layer begins; its normalisation is ignored.
        options: how to train.
        progress: reports the images, then the batches, and a sentence for each epoch.

    Raises:
        LearningError: nothing can be learnt, the state on disk belongs to another run, the disk is full, or the loss
            became NaN or infinite; in the last case the best state is written nevertheless.
        IndexingError: a folder or a labels file is missing.
        ExtractorError: the backbone cannot be loaded.
        WeightsNotFoundError: the weights of the backbone are missing.
    """
    began = time.monotonic()
    options = options or TrainingOptions()
    recipe = options.recipe
    check_out(out)
    check_labels(folders, labels=options.labels, exclude=options.exclude)
    with _exclusive(out):
        raw = spec.unnormalized
        task = _prepare(folders, out, raw, options, progress)
        _report_split(task, progress)
        built = load_backbone(raw, options.weights_file, progress.say)
        model, learner = _build(built, task, recipe)
        settings = {**asdict(recipe), "spec": raw.to_json(), "images": task.data.version}
        state = None if options.restart else load_checkpoint(_checkpoint_file(out), settings, free=_FREE_SETTINGS)
        if state is None:
            state = start_training(learner, lambda: task.score(learner), settings)
        else:
            learner.restore(state.last)
            progress.say(f"Resuming after epoch {state.epochs[-1].number}.")
        final, diverged = _learn(learner, task, state, out, progress)
        learner.restore_weights(learner.blended(final.last.weights))
        _write_model(model, work_folder(out) / "last.keras")
        learner.restore_weights(final.best)
        _write_model(model, out)
    best = best_of(final.epochs)
    if diverged:
        raise LearningError(
            f"The loss became NaN or infinite in epoch {len(final.epochs)}. {out} holds the best state before that, of "
            f"epoch {best.number}. Start again with --restart and a --learning-rate below {recipe.learning_rate:g}."
        )
    return Trained(
        out,
        task.before,
        best.scores,
        best.number,
        final.epochs,
        len(task.data.classes),
        len(task.training),
        len(task.validation),
        task.data.unlabelled,
        task.data.skipped,
        time.monotonic() - began,
    )


def check_out(out: Path) -> None:
    """Raise LearningError unless a model can be written to ``out``."""
    if out.suffix != ".keras":
        raise LearningError(f"{out} must end in .keras, the format in which the model is saved.")
    if out.is_dir():
        raise LearningError(f"{out} is a folder. Give the name of a file that ends in .keras.")
    try:
        work_folder(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LearningError(f"{work_folder(out)} cannot be created: {error.strerror}. Choose another --out.") from error


def _prepare(
    folders: Sequence[Path], out: Path, spec: ExtractorSpec, options: TrainingOptions, progress: Progress
) -> _Task:
    recipe = options.recipe
    backbone = ExtractorRecipe(spec, options.weights_file, options.precision, options.runtime, gpu=True)
    extractor = TrainingExtractor(backbone, recipe, progress.say)
    indexing = IndexingOptions(labels=options.labels, exclude=options.exclude)
    data = gather(folders, extractor, work_folder(out), indexing, progress)
    training, validation = validation_part(
        data.labels, data.groups, split=recipe.split, share=recipe.validation, seed=recipe.seed
    )
    triplets = validation_triplets(data.labels[validation], recipe.seed)
    features = normalized(data.features[validation, 0], "l2")
    return _Task(data, training, validation, triplets, score(features, data.labels[validation], triplets))


def _report_split(task: _Task, progress: Progress) -> None:
    data = task.data
    class_sizes = np.bincount(data.labels[task.training], minlength=len(data.classes))
    single = [name for name, count in zip(data.classes, class_sizes.tolist(), strict=True) if count == 1]
    if data.unlabelled:
        progress.say(f"{data.unlabelled} images have no label and are left out.")
    if single:
        names = f"{', '.join(single[:5])}{' and others' if len(single) > 5 else ''}"
        progress.say(f"Classes with a single image serve as negatives only: {names}.")
    progress.say(
        f"{len(task.training)} images of {len(np.unique(data.labels[task.training]))} classes to learn from, "
        f"{len(task.validation)} of {len(np.unique(data.labels[task.validation]))} to validate with."
    )


def _build(built: BuiltModel, task: _Task, recipe: Recipe) -> tuple[Any, Learner]:
    """Return the whole model and its learner, which trains on stored features or, with a thawed backbone, on pixels."""
    keras = import_keras()
    data = task.data
    features = data.features[task.training, 0]
    head = new_head(features, recipe.dim, recipe.seed)
    model = joined(built, head)
    if recipe.thaw is None:
        inputs = keras.Input((features.shape[1],))
        source = Features(data.features, dropout=recipe.dropout)
        return model, Learner(keras.Model(inputs, head.on(inputs)), head.weights, source, data.labels, recipe)
    assert data.pixels is not None
    variables = [*thawed(built, recipe.thaw), *head.weights]
    pictures = Pictures(data.pixels, augmented=recipe.views > 0)
    return model, Learner(model, variables, pictures, data.labels, recipe)


def _learn(learner: Learner, task: _Task, state: Checkpoint, out: Path, progress: Progress) -> tuple[Checkpoint, bool]:
    """Train from a state, saving the state after each epoch.

    Returns the last sound state, and whether training ended because the loss became NaN or infinite.
    """
    batches = len(batches_of(0, task.data.labels[task.training], learner.recipe))
    progress.start(learner.recipe.epochs * batches, state.epochs[-1].number * batches, unit="batches")
    last = state
    try:
        for last in further_epochs(learner, task.training, lambda: task.score(learner), state, progress.advance):
            save_checkpoint(_checkpoint_file(out), last)
            write_history(out.with_name(f"{out.stem}.curves.csv"), last.epochs)
            progress.say(_epoch_line(last.epochs[-1], best_of(last.epochs)))
    except NotFiniteError:
        return last, True
    return last, False


def _epoch_line(epoch: Epoch, best: Epoch) -> str:
    mark = " *" if epoch is best else ""
    return (
        f"epoch {epoch.number:3}: loss {epoch.loss:.4f}, D(a,p) < D(a,n) {epoch.triplet_accuracy:.3f}, P@1 "
        f"{epoch.precision:.3f}, mAP {epoch.mean_average_precision:.3f}{mark}"
    )


def _write_model(model: Any, file: Path) -> None:
    part = file.with_name(f".{file.stem}.part.keras")  # Keras requires this ending
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns about how NumPy copies
            model.save(part)
        _make_repeatable(part)
        flush(part)
        part.replace(file)
    except OSError as error:
        raise LearningError(
            f"{file} cannot be written: {error.strerror or error}. Free some space, then give the same command again; "
            "it only has to write the model."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _make_repeatable(file: Path) -> None:
    """Make the same network give the same bytes whenever it is saved: an index identifies its model by their hash.

    Keras writes the time, and numbers shared objects by their address in memory.
    """
    with zipfile.ZipFile(file) as saved:
        parts = {info.filename: saved.read(info) for info in saved.infolist()}
    metadata = parse_json(parts["metadata.json"])
    parts["metadata.json"] = json.dumps({**metadata, "date_saved": ""}).encode()
    numbers: dict[str, int] = {}
    parts["config.json"] = re.sub(
        r'(?<="shared_object_id": )\d+',
        lambda match: str(numbers.setdefault(match[0], len(numbers))),
        parts["config.json"].decode(),
    ).encode()
    with zipfile.ZipFile(file, "w") as rewritten:
        for name, data in parts.items():
            rewritten.writestr(zipfile.ZipInfo(name), data)  # dated 1980


@contextlib.contextmanager
def _exclusive(out: Path) -> Iterator[None]:
    """Allow one run at a time; the lock is released when the process ends."""
    try:
        with locked(work_folder(out) / "lock"):
            yield
    except BlockingIOError as error:
        raise LearningError(f"Another run is training {out}. Wait for it to end, or choose another --out.") from error
