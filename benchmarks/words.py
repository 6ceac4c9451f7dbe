"""How well words find: the names of classes as queries over labelled pictures, by ConSE and by ours, with intervals.

    python benchmarks/words.py --indexes DIR --caltech49 DIR --clothing713 DIR --coco128 DIR

The three are folders of pictures; caltech49 and clothing713 hold one folder for each class, coco128 holds ``images``
and ``labels`` in the layout of YOLO. Each is indexed below --indexes by EfficientNet-Lite0, where it is not yet.
Relevant is what has the class; P@10 and mAP are means over the classes, with 95 % intervals over resampled classes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from word_classes import BROADER, COCO, IN_IMAGENET, numbers_of

from searchengine import update_index
from searchengine.analyse.evaluation.metrics import measured, names
from searchengine.analyse.evaluation.statistics import interval, resampled_means
from searchengine.engine import SearchEngine
from searchengine.index.local import LocalIndex
from searchengine.query import Query
from searchengine.text import words
from searchengine.text.encoder import TextEncoder
from searchengine.text.search import WordSearch
from searchengine.text.words import Words, class_titles

EXAMPLES = 8  # pictures of a query that are tried beside its words
FEWEST = 3  # pictures of a class of coco128, and of a broader word
TAGGED_FROM = (0.05, 0.1, 0.2, 0.3, 0.5)  # probabilities; the third is that of the product
TEMPERATURES = (0.05, 0.07, 0.1, 0.15, 0.2)
Array = npt.NDArray[np.float64]
Scorer = Callable[[str], npt.NDArray[np.floating]]  # a text -> (n,) of each picture, larger is better


@dataclass(frozen=True)
class Collection:
    """An index, and which of its pictures are relevant to each query: (n,) bool."""

    name: str
    index: LocalIndex
    relevant: dict[str, npt.NDArray[np.bool_]]

    def broader(self) -> Collection:
        """The same with words that mean several of its classes, or other words for one."""
        none = np.zeros(len(self.index), dtype=np.bool_)
        relevant = {
            text: sum((self.relevant.get(name, none) for name in names.split(",")), start=none)
            for text, names in BROADER.items()
        }
        return replace(self, relevant={text: rows for text, rows in relevant.items() if rows.sum() >= FEWEST})


def indexed(folder: Path, images: Path) -> LocalIndex:
    """The index of a folder of pictures, made if it is missing."""
    if not folder.exists():
        update_index(images, folder, model="efficientnet-lite0")
    return LocalIndex.open(folder)


def by_folder(name: str, indexes: Path, images: Path) -> Collection:
    """A class is a folder; its name is the query."""
    index = indexed(indexes / name, images)
    folders = np.array([path.partition("/")[0] for path in index.paths])
    return Collection(name, index, {f.replace("_", " ").lower(): folders == f for f in sorted(set(folders))})


def by_boxes(name: str, indexes: Path, images: Path) -> Collection:
    """A class is what boxes are labelled with; those that few pictures show are left out."""
    index = indexed(indexes / name, images / "images")
    shown = np.zeros((len(index), len(COCO)), dtype=np.bool_)
    for row, path in enumerate(index.paths):
        file = images / "labels" / f"{Path(path).stem}.txt"
        if file.exists():
            shown[row, [int(line.split()[0]) for line in file.read_text().splitlines()]] = True
    counts = shown.sum(axis=0)
    return Collection(name, index, {c: shown[:, i] for i, c in enumerate(COCO) if counts[i] >= FEWEST})


def conse(index: LocalIndex, encoder: TextEncoder) -> Scorer:
    """ConSE as published, with one name a class: each picture is the mean of its ten most probable classes."""
    vectors = encoder.embed(class_titles())
    probabilities = Words.of(index).probabilities(np.asarray(index.features))
    best = np.argpartition(-probabilities, 10, axis=1)[:, :10]
    texts = np.einsum("nk,nkd->nd", np.take_along_axis(probabilities, best, axis=1), vectors[best])
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return lambda text: np.asarray(texts @ encoder.embed([text])[0])


def direction(index: LocalIndex) -> Scorer:
    """By the cosine with one direction among the features, as the product ranks in Milvus."""
    known, features = Words.of(index), np.asarray(index.features)
    return lambda text: np.asarray(features @ known.feature(text)[0])


class Ours:
    """As the product ranks, with or without the (d,) feature of a picture beside the words."""

    def __init__(self, index: LocalIndex) -> None:
        self.words = WordSearch(Words.of(index), index)
        self._now = index.state()

    def __call__(self, text: str, picture: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.floating]:
        """Of each image, larger is better."""
        return -self.words.distances(self._now, self._now.live, self.words.meant(text), picture)


def with_a_picture(collection: Collection) -> dict[str, Array]:
    """Average precision by a picture of the class, by words, by both, and by one direction: (queries,) each.

    Of each query, the mean over some random pictures, which are left out of the ranking.
    """
    random, score = np.random.default_rng(0), Ours(collection.index)
    features = np.asarray(collection.index.features)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    rows: dict[str, list[float]] = {"picture": [], "words": [], "both": [], "one direction": []}
    for text, relevant in collection.relevant.items():
        fits, direction_of_text = score(text), score.words.feature(text)[0]
        precisions = []
        for example in random.permutation(np.flatnonzero(relevant))[:EXAMPLES]:
            picture = features[example]
            scores = (
                features @ picture,
                fits,
                score(text, picture),
                features @ (picture + direction_of_text),
            )
            others = np.arange(len(features)) != example
            precisions.append([measures(each[others], relevant[others])["mAP"] for each in scores])
        for values, mean in zip(rows.values(), np.mean(precisions, axis=0), strict=True):
            values.append(mean)
    return {name: np.array(values) for name, values in rows.items()}


def measures(score: npt.NDArray[np.floating], relevant: npt.NDArray[np.bool_]) -> dict[str, float]:
    """The measures of the ranking by a score."""
    places = np.flatnonzero(relevant[np.argsort(-score, kind="stable")]) + 1
    return dict(zip(names(), measured(places, np.ones(len(places))).tolist(), strict=True))


def measure(collection: Collection, score: Scorer) -> tuple[Array, Array]:
    """Precision of the first 10 and average precision of each query: (q,) each."""
    tens, averages = [], []
    for text, relevant in collection.relevant.items():
        of_text = measures(score(text), relevant)
        tens.append(of_text["P@10"])
        averages.append(of_text["mAP"])
    return np.array(tens), np.array(averages)


def line(title: str, values: Array) -> str:
    """The mean with its interval."""
    low, high = interval(resampled_means(values[:, None], np.random.default_rng(0)))
    return f"{title} {values.mean():.3f} ({low[0]:.3f} to {high[0]:.3f})"


def held_out(collection: Collection) -> str:
    """mAP where the breadth is chosen on every other class and judged on the rest, and the other way round."""
    by_breadth = []
    for words.RANKING_TEMPERATURE in TEMPERATURES:
        by_breadth.append(measure(collection, Ours(collection.index))[1])
    words.RANKING_TEMPERATURE = 0.1
    table = np.array(by_breadth)  # (breadths, queries)
    judged, chosen = [], []
    for half in (0, 1):
        best = int(table[:, half::2].mean(axis=1).argmax())
        chosen.append(TEMPERATURES[best])
        judged.append(table[best, 1 - half :: 2])
    spread = ", ".join(f"{t:g}: {row.mean():.3f}" for t, row in zip(TEMPERATURES, table, strict=True))
    return f"{line('held out mAP', np.concatenate(judged))}; chosen {chosen[0]:g} and {chosen[1]:g}; all: {spread}"


def presence(collection: Collection, others: list[str]) -> str:
    """Of the queries that are said to show nothing, how many do not (precision); of those that show nothing, of how
    many that is said (recall). In random draws, what no picture of the draw shows; in the whole, the others' classes.
    """
    known, features = Words.of(collection.index), np.asarray(collection.index.features)
    ranked = Ours(collection.index)
    score = {text: ranked(text) for text in [*collection.relevant, *others]}
    random = np.random.default_rng(0)

    def is_denied(text: str, rows: npt.NDArray[np.intp]) -> bool:
        best = rows[int(np.argmax(score[text][rows]))]
        return known.doubt(text, features[best]) is not None

    parts = []
    for size in (12, 24, 100, len(features)):
        shown, missing = [], []  # whether it is denied
        for _ in range(1 if size == len(features) else 40):
            rows = random.permutation(len(features))[:size]
            for text, relevant in collection.relevant.items():
                (shown if relevant[rows].any() else missing).append(is_denied(text, rows))
        rows = np.arange(len(features))
        missing += [is_denied(text, rows) for text in others] if size == len(features) else []
        # as if half of all queries were for what is not there
        denied = np.mean(missing) + np.mean(shown)
        precision = np.mean(missing) / denied if denied else float("nan")
        parts.append(
            f"of {size}: recall {np.mean(missing):.0%}, precision {precision:.0%}, wrongly {np.mean(shown):.0%}"
        )
    return f"said to show nothing, {'; '.join(parts)}"


def tags(collection: Collection) -> str:
    """How right tags are, by the probability from which they are shown, in the classes that ImageNet has.

    Precision: of the tags that are shown in pictures of these classes, how many are of a class of the picture. Where
    pictures have several classes, tags of no class of the collection cannot be judged, and do not count. Recall: of the
    pictures of each class, how many have a tag of it.
    """
    index, titles = collection.index, class_titles()
    classes = {name: numbers_of(name, titles) for name in collection.relevant if name in IN_IMAGENET}
    judged = set().union(*classes.values())
    several = sum(rows.astype(int) for rows in collection.relevant.values()).max() > 1
    shown = np.array([collection.relevant[name] for name in classes])  # (classes, pictures)
    lines = []
    for words.LEAST_TAG in TAGGED_FROM:
        rows, numbers, _ = Words.of(index).recognised(np.asarray(index.features))
        counted = shown[:, rows].any(axis=0) & np.array([not several or number in judged for number in numbers])
        right = np.zeros(len(rows), dtype=np.bool_)
        found = []
        for of_class, members in zip(shown, classes.values(), strict=True):
            tagged = of_class[rows] & np.isin(numbers, list(members))
            right |= tagged
            found.append(len(np.unique(rows[tagged])))
        precision, recall = right[counted].mean(), sum(found) / shown.sum()
        lines.append(f"from {words.LEAST_TAG}: {counted.sum()} tags, {precision:.1%} right, recall {recall:.1%}")
    words.LEAST_TAG = TAGGED_FROM[2]
    return f"tags of {len(classes)} classes, {shown.any(axis=0).sum()} pictures; {'; '.join(lines)}"


def timing(index: LocalIndex) -> str:
    """A whole search by a text, the encoder and the head loaded."""
    engine = SearchEngine(index)
    engine.search(Query(text="a dog"))
    seconds = []
    for number in range(50):  # another text each time, since likenesses are remembered
        start = time.perf_counter()
        engine.search(Query(text=f"a dog on beach {number}"))
        seconds.append(time.perf_counter() - start)
    return f"a text query over {len(index)} images: {1000 * np.median(seconds):.1f} ms (best {1000 * min(seconds):.1f})"


def main() -> int:
    """Measure the collections that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--indexes", type=Path, required=True, help="folder for the indexes")
    for name in ("caltech49", "clothing713", "coco128"):
        parser.add_argument(f"--{name}", type=Path, help="folder of its pictures")
    parser.add_argument("--time", action="store_true", help="measure only the time of a query")
    options = parser.parse_args()
    collections = [
        read(name, options.indexes, folder)
        for name, read in (("caltech49", by_folder), ("clothing713", by_folder), ("coco128", by_boxes))
        if (folder := getattr(options, name)) is not None
    ]
    if options.time:
        print("\n".join(timing(collection.index) for collection in collections))
        return 0
    encoder = TextEncoder()
    for collection in collections:
        print(f"{collection.name}: {len(collection.index)} images")
        scores = {"ConSE": conse(collection.index, encoder), "one": direction(collection.index)}
        for queries, title in ((collection, "names"), (collection.broader(), "broader words")):
            print(f"  {len(queries.relevant)} {title}")
            product = measure(queries, Ours(collection.index))
            rows = {"ours": product}
            for name, score in scores.items():
                rows[name] = measure(queries, score)
                rows[f"more than {name}"] = product[0] - rows[name][0], product[1] - rows[name][1]
            for name, (tens, averages) in rows.items():
                print(f"    {name:15} {line('P@10', tens)}  {line('mAP', averages)}")
            beside = with_a_picture(queries)
            for name, averages in beside.items():
                print(f"    beside a picture, {name:13} {line('mAP', averages)}")
            print(f"    more than by one direction {line('mAP', beside['both'] - beside['one direction'])}")
        others = [text for other in collections for text in other.relevant if text not in collection.relevant]
        print(f"  {held_out(collection)}\n  {presence(collection, others)}")
        print(f"  {tags(collection)}")
        print(f"  {timing(collection.index)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
