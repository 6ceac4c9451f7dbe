"""What a learnt metric is worth on images, and on classes, that it has not seen; prints Markdown tables.

    python benchmarks/training.py --images DIR/clothing713 --classes DIR/caltech49

Each DIR holds one folder a class. The backbone is the compact model, frozen; what is compared are its own features, by
cosine, and the embeddings of `searchengine train`, by the same code.

--images: five folds by image. The held-out fold asks: among itself, each image for the others of its class; and in
the training part, as a new photo would. --classes: five times half of the classes are drawn to learn from, and the
images of the other classes ask among themselves.

Settings are chosen anew for each fold, from a small grid, by the mAP on a validation part of its training images (for
--classes, of its training classes); that part also stops the training. What is held out is looked at once, at the end.
Intervals are 95 %, bootstrap: over the queries of all folds for --images, over classes (with all their queries in all
draws) for --classes. Both gains are paired, query by query.
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

from searchengine.analyse.evaluation.measuring import Queries, measure
from searchengine.analyse.evaluation.ranking import Collection
from searchengine.analyse.evaluation.relevance import Relevance
from searchengine.extractors import load_extractor
from searchengine.extractors.cache import file_hashes
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.pixels import normalized
from searchengine.learn.folds import stratified
from searchengine.learn.triplets import Recipe
from searchengine.learn.triplets.checkpoint import best_of
from searchengine.learn.triplets.learner import Learner, continue_training, start_training
from searchengine.learn.triplets.network import new_head
from searchengine.learn.triplets.recipe import TRIPLETS
from searchengine.learn.triplets.validation import score, validation_part, validation_triplets

FOLDS = 5
DRAWS = 2000
GRID = [{"dim": 128, "weight_decay": 1.0}, {"dim": 384, "weight_decay": 10.0, "learning_rate": 1e-4}]
Rows = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Photos:
    """Raw compact features (n, d) float32, class numbers (n,), and (n,) numbers that are equal where the files are."""

    name: str
    features: Rows
    labels: Numbers
    groups: Numbers


@dataclass(frozen=True)
class Asked:
    """Of each query its class, and (q, 2) float64 AP and P@1 before and after."""

    labels: Numbers
    before: NDArray[np.float64]
    after: NDArray[np.float64]


class Plain:
    """Features as they are."""

    def __init__(self, features: Rows) -> None:
        self._features = features

    def draw(self, rows: Numbers, random: np.random.Generator) -> Rows:
        return self._features[rows]

    def plain(self, rows: Numbers) -> Rows:
        return self._features[rows]


def embedded(folder: Path) -> Photos:
    """Each image of a folder once through the compact model."""
    files, names = labelled_files(folder)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int64)
    say(f"{folder.name}: embedding {len(files)} images")
    extractor = load_extractor("compact", normalize="none")
    features = np.concatenate([extractor.embed(files[i : i + 64]) for i in range(0, len(files), 64)])
    groups = np.unique([file_hashes(file)["sha256"] for file in files], return_inverse=True)[1]
    return Photos(folder.name, features, labels, groups.astype(np.int64))


def learnt(photos: Photos, rows: Numbers, recipe: Recipe) -> tuple[Rows, float, int]:
    """Embeddings of all images by a metric learnt from some; the validation mAP; the epoch that was kept."""
    keras = import_keras()
    training, validation = validation_part(
        photos.labels[rows], photos.groups[rows], split=recipe.split, share=recipe.validation, seed=recipe.seed
    )
    training, validation = rows[training], rows[validation]
    head = new_head(photos.features[training], recipe.dim, recipe.seed)
    inputs = keras.Input((photos.features.shape[1],))
    learner = Learner(keras.Model(inputs, head.on(inputs)), head.weights, Plain(photos.features), photos.labels, recipe)
    labels = photos.labels[validation]
    triplets = validation_triplets(labels, recipe.seed)
    state, _ = continue_training(
        learner,
        training,
        lambda: score(learner.embed(validation), labels, triplets),
        recipe,
        start_training(learner, lambda: score(learner.embed(validation), labels, triplets), {}),
    )
    learner.restore_weights(state.best)
    best = best_of(state.epochs)
    return learner.embed(np.arange(len(photos.labels))), best.mean_average_precision, best.number


def chosen(photos: Photos, rows: Numbers, recipe: Recipe) -> Rows:
    """As ``learnt``, by the settings of the grid that are best on the validation part of these rows."""
    start = time.perf_counter()
    tried = []
    for settings in GRID:
        embeddings, value, epoch = learnt(photos, rows, replace(recipe, **settings))
        tried.append((value, settings, epoch, embeddings))
    value, settings, epoch, embeddings = max(tried, key=lambda one: one[0])
    told = ", ".join(f"{one[0]:.3f}" for one in tried)
    seconds = time.perf_counter() - start
    say(f"{photos.name}: validation mAP {told}; chosen {settings}, epoch {epoch}; {seconds:.0f} s")
    return embeddings


def asked(labels: Numbers, features: Rows, queries: Numbers, database: Numbers) -> NDArray[np.float64]:
    """(q, 2) float64 AP and P@1 of queries in a database, by distance; a query has no place in its own ranking."""
    of_rows = [(str(label),) for label in labels[database].tolist()]
    places = {row: place for place, row in enumerate(database.tolist())}
    measured = measure(
        Collection.of_features(features[database]),
        Relevance(of_rows),
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
    """Five folds by image."""
    own = normalized(photos.features, "l2")
    folds = stratified(photos.labels, photos.groups, FOLDS, 0)
    found: dict[str, list[Asked]] = {"among themselves": [], "in the training part": []}
    for fold in range(FOLDS):
        held, rows = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        embeddings = chosen(photos, rows, replace(recipe, split="image", validation=0.25))
        for name, database in zip(found, (held, rows), strict=True):
            before, after = (asked(photos.labels, one, held, database) for one in (own, embeddings))
            found[name].append(Asked(photos.labels[held], before, after))
    return {name: together(parts) for name, parts in found.items()}


def by_class(photos: Photos, recipe: Recipe) -> Asked:
    """Five draws of half of the classes."""
    own = normalized(photos.features, "l2")
    classes = np.unique(photos.labels)
    found = []
    for draw in range(FOLDS):
        seen = np.random.default_rng(draw).permutation(classes)[: len(classes) // 2]
        rows, held = (np.flatnonzero(np.isin(photos.labels, seen) == is_seen) for is_seen in (True, False))
        embeddings = chosen(photos, rows, replace(recipe, split="class", validation=0.35, seed=draw))
        before, after = (asked(photos.labels, one, held, held) for one in (own, embeddings))
        found.append(Asked(photos.labels[held], before, after))
    return together(found)


def together(parts: list[Asked]) -> Asked:
    """All queries of all folds."""
    return Asked(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("labels", "before", "after")))


def gains(found: Asked, groups: Numbers) -> tuple[float, float, float]:
    """The relative gain in mAP with its interval: groups of queries are drawn with replacement."""
    number = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(number, one[:, 0]) for one in (found.before, found.after)])  # (2, g)
    random = np.random.default_rng(0)
    drawn = random.integers(0, sums.shape[1], (DRAWS, sums.shape[1]))  # (r, g)
    before, after = sums[:, drawn].sum(axis=2)
    low, high = np.percentile(after / before - 1, [2.5, 97.5])
    return float(sums[1].sum() / sums[0].sum() - 1), float(low), float(high)


def line(name: str, protocol: str, found: Asked, groups: Numbers) -> str:
    """One line of the table."""
    gain, low, high = gains(found, groups)
    before, after = found.before.mean(axis=0), found.after.mean(axis=0)
    return (
        f"| {name} | {protocol} | {len(found.labels)} | {before[0]:.3f} | {after[0]:.3f} | {gain:+.1%} ({low:+.1%} to "
        f"{high:+.1%}) | {before[1]:.3f} | {after[1]:.3f} |"
    )


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="DIR", help="held out by image")
    parser.add_argument("--classes", type=Path, action="append", default=[], metavar="DIR", help="held out by class")
    parser.add_argument("--triplets", choices=TRIPLETS, default=Recipe().triplets, help="default: %(default)s")
    options = parser.parse_args()
    for folder in (*options.images, *options.classes):
        if not folder.is_dir():
            parser.error(f"{folder} is not there: give folders that hold one folder a class")
    if not options.images and not options.classes:
        parser.error("name --images or --classes")
    recipe = Recipe(triplets=options.triplets)
    print("| set | held-out images ask | queries | mAP before | after | gain (95 % interval) | P@1 before | after |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for folder in options.images:
        photos = embedded(folder)
        for name, found in by_image(photos, recipe).items():
            print(line(photos.name, name, found, np.arange(len(found.labels))), flush=True)
    for folder in options.classes:
        photos = embedded(folder)
        found = by_class(photos, recipe)
        print(line(photos.name, "of classes never seen, among themselves", found, found.labels), flush=True)


if __name__ == "__main__":
    main()
