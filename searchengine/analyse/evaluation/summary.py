"""Summarise measured queries: means with intervals, figures of each class, and confused classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import statistics
from searchengine.analyse.evaluation.metrics import MAIN
from searchengine.analyse.evaluation.ranking import QueryScores
from searchengine.analyse.evaluation.results import ClassResult, Confusion, Example, Figure, HardClass, Picture, Place

NO_LABEL = "(no label)"
HARDEST = 6  # classes shown with pictures
CONFUSED = 8  # pairs shown with pictures
_EXAMPLES = 2  # for each pair
_SHOWN = 6  # places shown of an example


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Wrong images in the first ten places, by pairs (label of the query, label of the image).

    ``places`` counts the places that each pair takes; ``shares`` are their fractions of all places of the query label.
    """

    places: dict[tuple[str, str], int]
    shares: dict[tuple[str, str], float]


def figures(
    measured: QueryScores, random: np.random.Generator, chosen: NDArray[np.int64] | slice = slice(None)
) -> tuple[tuple[Figure, ...], NDArray[np.float64]]:
    """Return the means over all (or the chosen) queries, and the (RESAMPLES,) resampled means of the main measure."""
    values, ceilings = measured.values[chosen], measured.ceilings[chosen]
    means = statistics.resampled_means(values, random)
    low, high = (end.tolist() if len(values) > 1 else [None] * len(end) for end in statistics.interval(means))
    columns = (measured.names, values.mean(axis=0).tolist(), low, high, ceilings.mean(axis=0).tolist())
    return tuple(map(Figure, *columns)), means[:, measured.names.index(MAIN)]


def count_mistakes(measured: QueryScores) -> Mistakes:
    """Count which labels are taken for which. An image or query with several labels counts for each of them."""
    known, labels = set(measured.by_label()), measured.collection.relevance.of_images
    wrong: Counter[tuple[str, str]] = Counter()
    places: Counter[str] = Counter()
    for number, query_labels in enumerate(measured.queries.labels):
        counted = [label for label in query_labels if label in known]
        positions = measured.first[number]
        for label in counted:
            places[label] += int((positions >= 0).sum())
        for position in positions[(positions >= 0) & ~measured.relevant[number]].tolist():
            for other in labels[position] or (NO_LABEL,):
                wrong.update((label, other) for label in counted)
    return Mistakes(dict(wrong), {pair: count / places[pair[0]] for pair, count in wrong.items()})


def classes(
    measured: QueryScores, mistakes: Mistakes, random: np.random.Generator
) -> tuple[tuple[ClassResult, ...], Figure]:
    """Return the figures of every label, hardest first, and the mean over labels, each with the same weight."""
    most: dict[str, tuple[float, str]] = {}
    for (label, other), share in sorted(mistakes.shares.items()):
        if label not in most or share > most[label][0]:
            most[label] = (share, other)
    results: list[ClassResult] = []
    resampled = np.zeros(statistics.RESAMPLES)
    for label, numbers in measured.by_label().items():
        class_figures, means = figures(measured, random, numbers)
        resampled += means
        share, taken_for = most.get(label, (0.0, None))
        images = measured.collection.relevance.size(label)
        results.append(ClassResult(label, images, len(numbers), class_figures, taken_for, share))
    results.sort(key=lambda result: (result.figure(MAIN).value, result.label))
    low, high = statistics.interval(resampled / len(results))  # resampled within each class
    several = any(result.queries > 1 for result in results)
    value = float(np.mean([result.figure(MAIN).value for result in results]))
    mean = Figure(f"{MAIN} by class", value, float(low) if several else None, float(high) if several else None, 1.0)
    return tuple(results), mean


@dataclass(frozen=True, slots=True)
class Examples:
    """Queries to show with their pictures. ``of_query`` returns the picture of a query by its number, ``at`` that of an
    image by its position in the collection.
    """

    measured: QueryScores
    of_query: Callable[[int], Picture]
    at: Callable[[int], Picture]

    def hardest(self, ordered: Sequence[ClassResult]) -> tuple[HardClass, ...]:
        """Return the classes with the lowest mean average precision, if it is below 1, each with its median query."""
        by_label = self.measured.by_label()
        main = self.measured.names.index(MAIN)
        hard = []
        for result in ordered[:HARDEST]:
            if result.figure(MAIN).value >= 1.0:
                break  # nothing is wrong in this class and those after it
            numbers = by_label[result.label]
            values = self.measured.values[numbers, main]
            middle = numbers[np.argsort(values, kind="stable")[(len(numbers) - 1) // 2]]
            hard.append(HardClass(result.label, self._example(int(middle), range(_SHOWN))))
        return tuple(hard)

    def confused(self, mistakes: Mistakes) -> tuple[Confusion, ...]:
        """Return the most confused pairs, each with the queries whose first wrong answer comes soonest."""
        by_label = self.measured.by_label()
        pairs = [pair for pair in mistakes.shares if pair[1] != NO_LABEL]
        pairs.sort(key=lambda pair: (-mistakes.shares[pair], pair))
        return tuple(
            Confusion(*pair, mistakes.shares[pair], mistakes.places[pair], self._soonest(by_label[pair[0]], pair[1]))
            for pair in pairs[:CONFUSED]
        )

    def _soonest(self, numbers: NDArray[np.int64], other: str) -> tuple[Example, ...]:
        """Return the queries in which a wrong image of another label comes soonest."""
        labels = self.measured.collection.relevance.of_images
        wrong: list[tuple[int, float, int]] = []  # place, distance, number of the query
        for number in numbers.tolist():
            for place, position in enumerate(self.measured.first[number].tolist()):
                if position >= 0 and not self.measured.relevant[number, place] and other in labels[position]:
                    wrong.append((place, float(self.measured.distances[number, place]), number))
                    break
        examples: list[Example] = []
        shown: set[int] = set()
        for place, _, number in sorted(wrong):
            position = int(self.measured.first[number, place])
            if position not in shown:  # otherwise, one odd image could be in every example
                shown.add(position)
                examples.append(self._example(number, [place]))
            if len(examples) == _EXAMPLES:
                break
        return tuple(examples)

    def _example(self, number: int, places: Sequence[int]) -> Example:
        positions = self.measured.first[number]
        return Example(
            self.of_query(number),
            float(self.measured.values[number, self.measured.names.index(MAIN)]),
            tuple(
                Place(
                    place + 1,
                    float(self.measured.distances[number, place]),
                    bool(self.measured.relevant[number, place]),
                    self.at(int(positions[place])),
                )
                for place in places
                if positions[place] >= 0
            ),
        )
