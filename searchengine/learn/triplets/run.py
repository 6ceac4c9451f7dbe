"""Folders of labelled images -> a ``.keras`` file whose output is an embedding: the whole way."""

from __future__ import annotations

import contextlib
import json
import re
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.extractors import ExtractorSpec, extractor_from_spec
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.pixels import normalized
from searchengine.files import flush, locked
from searchengine.learn.triplets import checkpoint, curves, fitting, gathering, network
from searchengine.learn.triplets.checkpoint import Checkpoint
from searchengine.learn.triplets.curves import Epoch
from searchengine.learn.triplets.gathering import Found, Gathered
from searchengine.learn.triplets.learner import Learner
from searchengine.learn.triplets.recipe import Recipe
from searchengine.learn.triplets.scores import Scores, score, validation_triplets
from searchengine.learn.triplets.sources import Features, Pictures
from searchengine.learn.triplets.splitting import validation_part
from searchengine.progress import QUIET, Progress

FREE = frozenset({"epochs", "patience"})  # may change while a run goes on


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it. ``before`` are the scores of the backbone's own features, ``after`` those of the best epoch."""

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
    """What is learnt from, and what the backbone is worth by itself."""

    data: Gathered
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    triplets: NDArray[np.int64]
    before: Scores

    def score(self, embeddings: NDArray[np.float32]) -> Scores:
        return score(embeddings, self.data.labels[self.validation], self.triplets)


def work_folder(out: Path) -> Path:
    """Where a run keeps its state and its features."""
    return out.with_name(f"{out.stem}.training")


def train_metric(
    folders: Sequence[Path],
    out: Path,
    spec: ExtractorSpec,
    progress: Progress | None = None,
    *,
    recipe: Recipe | None = None,
    weights_file: Path | None = None,
    labels: str = "folder",
    exclude: Sequence[str] = (),
    precision: str = "auto",
    runtime: str = "auto",
    restart: bool = False,
) -> Trained:
    """Learn a metric, or go on learning it, and write the model.

    Args:
        folders: of images.
        out: the ``.keras`` file; the curves come beside it, and a folder with the state of the run.
        spec: the backbone, cut where the new layer begins; its normalisation does not matter.
        progress: how far it is, and a sentence an epoch.
        recipe: how.
        weights_file: of the backbone, if they are one's own.
        labels: "folder" or a file, as for an index.
        exclude: patterns of what is left out.
        precision: of the frozen backbone.
        runtime: of the frozen backbone.
        restart: begin anew where there is the state of a run.

    Raises:
        LearningError: nothing can be learnt, the state on disk is of another run, the disk is full, or the loss is no
            number any more: then the best state is written all the same.
        IndexingError: a folder or a labels file is not there.
        ExtractorError, WeightsNotFoundError: the backbone cannot be had.
    """
    began = time.monotonic()
    recipe, progress = recipe or Recipe(), progress or QUIET
    check_out(out)
    found = gathering.find_labelled(folders, labels=labels, exclude=exclude)
    with _alone(out):
        raw = spec.unnormalized
        task = _prepared(found, raw, out, progress, recipe, weights_file, precision, runtime)
        _say_what(task, found, progress)
        built = network.load_backbone(raw, weights_file, progress.say)
        model, learner = _network(built, task, recipe)
        settings = {**asdict(recipe), "spec": raw.to_json(), "images": task.data.version}
        final, diverged = _learn(learner, task, recipe, settings, out, progress, restart)
        learner.restore_weights(final.last.weights)
        _write_model(model, work_folder(out) / "last.keras")
        learner.restore_weights(final.best)
        _write_model(model, out)
    best = curves.best_of(final.epochs)
    if diverged:
        raise LearningError(
            f"In epoch {len(final.epochs)} the loss was no number any more. {out} holds the best state until then, of "
            f"epoch {best.number}. Choose a smaller --learning-rate than {recipe.learning_rate:g}, and --restart."
        )
    return Trained(
        out,
        task.before,
        Scores(best.triplet_accuracy, best.precision, best.mean_average_precision),
        best.number,
        final.epochs,
        len(task.data.classes),
        len(task.training),
        len(task.validation),
        found.unlabelled,
        task.data.skipped,
        time.monotonic() - began,
    )


def check_out(out: Path) -> None:
    """LearningError unless a model can be written there."""
    if out.suffix != ".keras":
        raise LearningError(f"{out} must end in .keras: that is the format in which the model is saved.")
    if out.is_dir():
        raise LearningError(f"{out} is a folder. Give the name of a file.")
    try:
        work_folder(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LearningError(f"{work_folder(out)} cannot be made: {error.strerror}. Choose another --out.") from error


def _prepared(
    found: Found,
    spec: ExtractorSpec,
    out: Path,
    progress: Progress,
    recipe: Recipe,
    weights_file: Path | None,
    precision: str,
    runtime: str,
) -> _Task:
    extractor = extractor_from_spec(
        spec, weights_file=weights_file, precision=precision, runtime=runtime, gpu=True, progress=progress.say
    )
    frozen = recipe.thaw is None
    data = gathering.gather(
        found,
        extractor,
        work_folder(out),
        progress,
        views=recipe.views if frozen else 0,
        seed=recipe.seed,
        keep_pixels=not frozen,
    )
    training, validation = validation_part(
        data.labels, data.groups, split=recipe.split, share=recipe.validation, seed=recipe.seed
    )
    triplets = validation_triplets(data.labels[validation], recipe.seed)
    features = normalized(data.records.features(data.places[validation]), "l2")
    return _Task(data, training, validation, triplets, score(features, data.labels[validation], triplets))


def _say_what(task: _Task, found: Found, progress: Progress) -> None:
    data = task.data
    of_class = np.bincount(data.labels[task.training], minlength=len(data.classes))
    single = [name for name, count in zip(data.classes, of_class.tolist(), strict=True) if count == 1]
    if found.unlabelled:
        progress.say(f"{found.unlabelled} images have no label and are left out")
    if single:
        progress.say(
            f"of {', '.join(single[:5])}{' and others' if len(single) > 5 else ''} there is one image only: it "
            "serves as a negative"
        )
    progress.say(
        f"{len(task.training)} images of {len(np.unique(data.labels[task.training]))} classes to learn from, "
        f"{len(task.validation)} of {len(np.unique(data.labels[task.validation]))} to validate with"
    )


def _network(built: Any, task: _Task, recipe: Recipe) -> tuple[Any, Learner]:
    """The whole model, and what learns: the head on ready features, or more of it on pictures."""
    keras = import_keras()
    data = task.data
    features = data.records.features(data.places[task.training])
    head = network.new_head(features, recipe.dim, recipe.seed)
    model = network.joined(built, head)
    if recipe.thaw is None:
        inputs = keras.Input((features.shape[1],))
        source = Features(data.records, data.places, views=recipe.views, dropout=recipe.dropout)
        return model, Learner(keras.Model(inputs, head.on(inputs)), head.weights, source, data.labels, recipe)
    variables = [*network.thawed(built, recipe.thaw), *head.weights]
    pictures = Pictures(data.records, data.places, augmented=recipe.views > 0)
    return model, Learner(model, variables, pictures, data.labels, recipe)


def _learn(
    learner: Learner,
    task: _Task,
    recipe: Recipe,
    settings: dict[str, Any],
    out: Path,
    progress: Progress,
    restart: bool,
) -> tuple[Checkpoint, bool]:
    """Epoch after epoch until the recipe is done; whether it ended because the loss was no number any more."""
    file = work_folder(out) / "checkpoint.npz"

    def judge() -> Scores:
        return task.score(learner.embed(task.validation))

    def keep(state: Checkpoint) -> None:
        checkpoint.save(file, state)
        curves.write_curves(out, state.epochs, task.before)
        progress.say(_epoch_line(state.epochs[-1], curves.best_of(state.epochs)))

    state = None if restart else checkpoint.load(file, settings, free=FREE)
    if state is None:
        state = fitting.begin(learner, judge, settings)
    else:
        learner.restore(state.last)
        progress.say(f"going on after epoch {state.epochs[-1].number}")
    batches = learner.batches(task.training)
    progress.start(recipe.epochs * batches, state.epochs[-1].number * batches, unit="batches")
    return fitting.fit(learner, task.training, judge, recipe, state, keep=keep, advance=progress.advance)


def _epoch_line(epoch: Epoch, best: Epoch) -> str:
    mark = " *" if epoch is best else ""
    return (
        f"epoch {epoch.number:3}: loss {epoch.loss:.4f}, D(a,p) < D(a,n) {epoch.triplet_accuracy:.3f}, P@1 "
        f"{epoch.precision:.3f}, mAP {epoch.mean_average_precision:.3f}{mark}"
    )


def _write_model(model: Any, file: Path) -> None:
    saved = file.with_name(f".{file.stem}.part.keras")  # Keras saves to nothing that does not end so
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Keras, on how NumPy copies
            model.save(saved)
        _make_repeatable(saved)
        flush(saved)
        saved.replace(file)
    except OSError as error:
        raise LearningError(
            f"{file} cannot be written: {error.strerror or error}. Free some space; the same command only has to write "
            "it."
        ) from error
    finally:
        saved.unlink(missing_ok=True)


def _make_repeatable(file: Path) -> None:
    """The same network gives the same bytes, whenever it is saved: an index knows its model by them.

    Keras notes the time, and tells objects that occur several times by where they lie in memory.
    """
    with zipfile.ZipFile(file) as saved:
        parts = {info.filename: saved.read(info) for info in saved.infolist()}
    about = json.loads(parts["metadata.json"])
    parts["metadata.json"] = json.dumps({**about, "date_saved": ""}).encode()
    numbers: dict[str, int] = {}
    parts["config.json"] = re.sub(
        r'(?<="shared_object_id": )\d+',
        lambda found: str(numbers.setdefault(found[0], len(numbers))),
        parts["config.json"].decode(),
    ).encode()
    with zipfile.ZipFile(file, "w") as anew:
        for name, data in parts.items():
            anew.writestr(zipfile.ZipInfo(name), data)  # of 1980


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One run at a time; the lock goes with the process."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(work_folder(out) / "lock"))
        except BlockingIOError as error:
            raise LearningError(
                f"Another run is training {out} now. Wait until it is done, or choose another --out."
            ) from error
        yield
