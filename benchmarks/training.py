"""The gain from a learnt metric on unseen images and on unseen classes; prints Markdown tables.

    python benchmarks/training.py --images DIR/clothing713 --classes DIR/caltech49

Each DIR has one folder per class. The backbone is frozen. Its own features, by cosine, are compared with the embeddings
of `searchengine train` with its default settings (and other values of --blend), by the same code.

--images: five folds by image. The images of the held-out fold are queries, both within the fold, each for the others of
its class, and in the training part, as a new photo would be. --classes: half of the classes are drawn as training
classes, five times. The images of the other classes are queries among themselves; so is a held-out fifth of the images
of the training classes.

Training stops by a validation part of the training images. Held-out images are used only once, at the end. Intervals
are 95 %, bootstrap: over the queries of all folds for --images, over classes (with all their queries in all draws) for
--classes. Gains are paired, query by query.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photos import labelled_files

from searchengine.analyse.evaluation.ranking import Collection, Queries, measure
from searchengine.extractors import load_extractor
from searchengine.extractors.cache import file_hashes
from searchengine.extractors.extractor import normalized
from searchengine.extractors.frameworks import import_keras
from searchengine.learn.fitting import stratified_folds
from searchengine.learn.triplets import Recipe
from searchengine.learn.triplets.epochs import (
    Scores,
    best_of,
    further_epochs,
    score,
    start_training,
    validation_triplets,
)
from searchengine.learn.triplets.learner import TRIPLETS, Learner, new_head
from searchengine.learn.triplets.sampling import validation_part

FOLDS = 5
DRAWS = 2000
Rows = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Photos:
    """Raw features (n, d) float32, class numbers (n,), and (n,) numbers that are equal for files with equal content."""

    name: str
    features: Rows
    labels: Numbers
    groups: Numbers


@dataclass(frozen=True)
class Asked:
    """The class of each query, and (q, 2) float64 AP and P@1 before and after."""

    labels: Numbers
    before: NDArray[np.float64]
    after: NDArray[np.float64]


class Plain:
    """The features without a learnt metric."""

    def __init__(self, features: Rows) -> None:
        self._features = features

    def draw(self, rows: Numbers, random: np.random.Generator) -> Rows:
        return self._features[rows]

    def plain(self, rows: Numbers) -> Rows:
        return self._features[rows]


def embedded(folder: Path, model: str) -> Photos:
    """Return the raw features of the images in a folder."""
    files, names = labelled_files(folder)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int64)
    say(f"{folder.name}: embedding {len(files)} images")
    extractor = load_extractor(model, normalize="none")
    features = np.concatenate([extractor.embed(files[i : i + 64]) for i in range(0, len(files), 64)])
    groups = np.unique([file_hashes(file)["sha256"] for file in files], return_inverse=True)[1]
    return Photos(folder.name, features, labels, groups.astype(np.int64))


def learnt(photos: Photos, rows: Numbers, recipe: Recipe) -> Rows:
    """Return embeddings of all images by a metric learnt from some."""
    keras = import_keras()
    start = time.perf_counter()
    training, validation = validation_part(
        photos.labels[rows], photos.groups[rows], split=recipe.split, share=recipe.validation, seed=recipe.seed
    )
    training, validation = rows[training], rows[validation]
    head = new_head(photos.features[training], recipe.dim, recipe.seed)
    inputs = keras.Input((photos.features.shape[1],))
    learner = Learner(keras.Model(inputs, head.on(inputs)), head.weights, Plain(photos.features), photos.labels, recipe)
    labels = photos.labels[validation]
    triplets = validation_triplets(labels, recipe.seed)

    def judge() -> Scores:
        return score(learner.embed(validation), labels, triplets)

    state = start_training(learner, judge, {})
    for later in further_epochs(learner, training, judge, state):
        state = later
    learner.restore_weights(state.best)
    best, seconds = best_of(state.epochs), time.perf_counter() - start
    say(f"{photos.name}: validation mAP {best.mean_average_precision:.3f} in epoch {best.number}; {seconds:.0f} s")
    return learner.embed(np.arange(len(photos.labels)))


def asked(labels: Numbers, features: Rows, queries: Numbers, database: Numbers) -> NDArray[np.float64]:
    """Return (q, 2) float64 AP and P@1 of queries in a database, by distance, without the query itself."""
    of_rows = [(str(label),) for label in labels[database].tolist()]
    places = {row: place for place, row in enumerate(database.tolist())}
    measured = measure(
        Collection.of_features(features[database], of_rows),
        Queries(
            [(str(label),) for label in labels[queries].tolist()],
            [np.array([places[row]] if row in places else [], dtype=np.int64) for row in queries.tolist()],
            lambda part: features[queries[part]],
        ),
        "euclidean",
    )
    columns = [measured.names.index(name) for name in ("mAP", "P@1")]
    return measured.values[:, columns]


def by_image(photos: Photos, recipe: Recipe) -> dict[str, Asked]:
    """Return five folds by image."""
    own = normalized(photos.features, "l2")
    folds = stratified_folds(photos.labels, photos.groups, FOLDS, 0)
    parts: dict[str, list[Asked]] = {"among themselves": [], "in the training part": []}
    for fold in range(FOLDS):
        held, rows = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        embeddings = learnt(photos, rows, recipe)
        for name, database in zip(parts, (held, rows), strict=True):
            before, after = (asked(photos.labels, features, held, database) for features in (own, embeddings))
            parts[name].append(Asked(photos.labels[held], before, after))
    return {name: together(folds) for name, folds in parts.items()}


def by_class(photos: Photos, recipe: Recipe) -> dict[str, Asked]:
    """Return five draws of half of the classes."""
    own = normalized(photos.features, "l2")
    classes = np.unique(photos.labels)
    parts: dict[str, list[Asked]] = {"of classes never seen": [], "of the learnt classes": []}
    for draw in range(FOLDS):
        seen = np.random.default_rng(draw).permutation(classes)[: len(classes) // 2]
        is_seen = np.isin(photos.labels, seen)
        fifth = (stratified_folds(photos.labels, photos.groups, FOLDS, draw) == 0) & is_seen
        embeddings = learnt(photos, np.flatnonzero(is_seen & ~fifth), replace(recipe, seed=draw))
        for name, held in zip(parts, (np.flatnonzero(~is_seen), np.flatnonzero(fifth)), strict=True):
            before, after = (asked(photos.labels, features, held, held) for features in (own, embeddings))
            parts[name].append(Asked(photos.labels[held], before, after))
    return {name: together(draws) for name, draws in parts.items()}


def together(parts: list[Asked]) -> Asked:
    """Return the queries of all folds."""
    return Asked(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "before", "after")))


def gains(outcome: Asked, groups: Numbers) -> tuple[float, float, float]:
    """Return the relative gain in mAP with its interval: groups of queries are drawn with replacement."""
    number = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(number, values[:, 0]) for values in (outcome.before, outcome.after)])  # (2, g)
    random = np.random.default_rng(0)
    drawn = random.integers(0, sums.shape[1], (DRAWS, sums.shape[1]))  # (r, g)
    before, after = sums[:, drawn].sum(axis=2)
    low, high = np.percentile(after / before - 1, [2.5, 97.5])
    return float(sums[1].sum() / sums[0].sum() - 1), float(low), float(high)


def line(name: str, protocol: str, blend: float, asked: Asked, groups: Numbers) -> str:
    """Return one line of the table."""
    gain, low, high = gains(asked, groups)
    before, after = asked.before.mean(axis=0), asked.after.mean(axis=0)
    return (
        f"| {name} | {protocol} | {blend:g} | {len(asked.labels)} | {before[0]:.3f} | {after[0]:.3f} "
        f"| {gain:+.1%} ({low:+.1%} to {high:+.1%}) | {before[1]:.3f} | {after[1]:.3f} |"
    )


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Parse the arguments, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, action="append", default=[], metavar="DIR", help="folders held out by image"
    )
    parser.add_argument(
        "--classes", type=Path, action="append", default=[], metavar="DIR", help="folders held out by class"
    )
    parser.add_argument("--model", default="efficientnet-lite0", help="the backbone (default: %(default)s)")
    parser.add_argument("--blend", type=float, action="append", help=f"may be repeated (default: {Recipe().blend})")
    parser.add_argument("--triplets", choices=TRIPLETS, default=Recipe().triplets, help="default: %(default)s")
    options = parser.parse_args()
    for folder in (*options.images, *options.classes):
        if not folder.is_dir():
            parser.error(f"{folder} is not there: give folders that hold one folder a class")
    if not options.images and not options.classes:
        parser.error("name --images or --classes")
    columns = ("set", "held-out images ask", "blend", "queries", "mAP before", "after", "gain (95 % interval)",
               "P@1 before", "after")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for folder in (*options.images, *options.classes):
        photos = embedded(folder, options.model)
        for blend in options.blend or [Recipe().blend]:
            recipe = Recipe(triplets=options.triplets, blend=blend)
            if folder in options.images:
                for name, outcome in by_image(photos, recipe).items():
                    print(line(photos.name, name, blend, outcome, np.arange(len(outcome.labels))), flush=True)
            if folder in options.classes:
                for name, outcome in by_class(photos, recipe).items():
                    print(line(photos.name, name, blend, outcome, outcome.labels), flush=True)


if __name__ == "__main__":
    main()
