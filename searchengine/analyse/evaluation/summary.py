"""Lines of queries -> means with intervals, classes, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import statistics
from searchengine.analyse.evaluation.measuring import Measured
from searchengine.analyse.evaluation.metrics import MAIN, Relevance, distinct
from searchengine.analyse.evaluation.results import ClassResult, Confusion, Example, Figure, HardClass, Picture, Place

NO_LABEL = "(no label)"
HARDEST = 6  # classes shown with pictures
CONFUSED = 8  # pairs shown with pictures
_EXAMPLES = 2  # of each pair
_SHOWN = 6  # places of an example

Picturing = Callable[[int], Picture]  # the number of a query, or a position in the collection


def figures(
    measured: Measured, resamples: int, random: np.random.Generator, chosen: NDArray[np.int64] | None = None
) -> tuple[tuple[Figure, ...], NDArray[np.float64]]:
    """Means over all queries, or the chosen ones; and the (resamples,) resampled means of the main one."""
    values = measured.values if chosen is None else measured.values[chosen]
    ceilings = measured.ceilings if chosen is None else measured.ceilings[chosen]
    means = statistics.resampled_means(values, resamples, random)
    low, high = statistics.interval(means)
    sure = len(values) > 1
    overall = tuple(
        Figure(
            name,
            float(values[:, i].mean()),
            float(low[i]) if sure else None,
            float(high[i]) if sure else None,
            float(ceilings[:, i].mean()),
        )
        for i, name in enumerate(measured.names)
    )
    return overall, means[:, measured.names.index(MAIN)]


def members(labels: Sequence[Sequence[str]]) -> dict[str, NDArray[np.int64]]:
    """label -> the numbers of the queries that carry it, by label."""
    numbers: dict[str, list[int]] = {}
    for number, of_query in enumerate(labels):
        for label in of_query:
            numbers.setdefault(label, []).append(number)
    return {label: np.array(numbers[label], dtype=np.int64) for label in sorted(numbers)}


def confusion(
    measured: Measured, labels: Sequence[Sequence[str]], of_collection: Sequence[Sequence[str]]
) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Wrong places among the first ten: (label, label of the wrong image) -> how many; label -> places in all.

    An image of several labels counts under each of them, and so does a query.
    """
    wrong: Counter[tuple[str, str]] = Counter()
    places: Counter[str] = Counter()
    for number, of_query in enumerate(labels):
        positions = measured.first[number]
        for label in of_query:
            places[label] += int((positions >= 0).sum())
        for position in positions[(positions >= 0) & ~measured.relevant[number]].tolist():
            for other in distinct(of_collection[position]) or (NO_LABEL,):
                wrong.update((label, other) for label in of_query)
    return dict(wrong), dict(places)


def classes(
    measured: Measured,
    relevance: Relevance,
    of_label: Mapping[str, NDArray[np.int64]],
    wrong: Mapping[tuple[str, str], int],
    places: Mapping[str, int],
    resamples: int,
    random: np.random.Generator,
) -> tuple[tuple[ClassResult, ...], Figure]:
    """Every label with its own figures, hardest first; and the mean over labels, each counting alike."""
    most: dict[str, tuple[int, str]] = {}
    for (label, other), count in sorted(wrong.items()):
        if label not in most or count > most[label][0]:
            most[label] = (count, other)
    results: list[ClassResult] = []
    resampled = np.zeros(resamples)
    for label, numbers in of_label.items():
        of_class, means = figures(measured, resamples, random, numbers)
        resampled += means
        count, other = most.get(label, (0, ""))
        results.append(
            ClassResult(
                label, relevance.size(label), len(numbers), of_class, other or None, count / max(places[label], 1)
            )
        )
    results.sort(key=lambda result: (result.figure(MAIN).value, result.label))
    low, high = np.quantile(resampled / len(results), (0.025, 0.975))  # resampled within each class
    sure = any(result.queries > 1 for result in results)
    value = float(np.mean([result.figure(MAIN).value for result in results]))
    mean = Figure(f"{MAIN} by class", value, float(low) if sure else None, float(high) if sure else None, 1.0)
    return tuple(results), mean


def hardest(
    measured: Measured,
    ordered: Sequence[ClassResult],
    of_label: Mapping[str, NDArray[np.int64]],
    query: Picturing,
    image: Picturing,
) -> tuple[HardClass, ...]:
    """The classes of the lowest mean average precision, where that is below 1, each with its median query."""
    hard = []
    main = measured.names.index(MAIN)
    for result in ordered[:HARDEST]:
        if result.figure(MAIN).value >= 1.0:
            break  # nothing is wrong in this class, nor in those that follow
        numbers = of_label[result.label]
        middle = numbers[np.argsort(measured.values[numbers, main], kind="stable")[(len(numbers) - 1) // 2]]
        hard.append(HardClass(result.label, _example(measured, int(middle), range(_SHOWN), query, image)))
    return tuple(hard)


def confused(
    measured: Measured,
    of_label: Mapping[str, NDArray[np.int64]],
    of_collection: Sequence[Sequence[str]],
    wrong: Mapping[tuple[str, str], int],
    places: Mapping[str, int],
    query: Picturing,
    image: Picturing,
) -> tuple[Confusion, ...]:
    """The pairs with the greatest share of wrong places, each with the queries where it happens soonest."""
    pairs = [pair for pair in wrong if pair[1] != NO_LABEL]
    pairs.sort(key=lambda pair: (-wrong[pair] / places[pair[0]], pair))
    return tuple(
        Confusion(
            label,
            other,
            wrong[label, other] / places[label],
            wrong[label, other],
            _soonest(measured, of_label[label], other, of_collection, query, image),
        )
        for label, other in pairs[:CONFUSED]
    )


def _soonest(
    measured: Measured,
    numbers: NDArray[np.int64],
    other: str,
    of_collection: Sequence[Sequence[str]],
    query: Picturing,
    image: Picturing,
) -> tuple[Example, ...]:
    mistakes: list[tuple[int, float, int]] = []
    for number in numbers.tolist():
        for place, position in enumerate(measured.first[number].tolist()):
            if position >= 0 and not measured.relevant[number, place] and other in of_collection[position]:
                mistakes.append((place, float(measured.distances[number, place]), number))
                break
    examples: list[Example] = []
    shown: set[int] = set()
    for place, _, number in sorted(mistakes):
        position = int(measured.first[number, place])
        if position not in shown:  # otherwise one odd image could be in every example
            shown.add(position)
            examples.append(_example(measured, number, [place], query, image))
        if len(examples) == _EXAMPLES:
            break
    return tuple(examples)


def _example(measured: Measured, number: int, places: Sequence[int], query: Picturing, image: Picturing) -> Example:
    positions = measured.first[number]
    return Example(
        query(number),
        float(measured.values[number, measured.names.index(MAIN)]),
        tuple(
            Place(
                place + 1,
                float(measured.distances[number, place]),
                bool(measured.relevant[number, place]),
                image(int(positions[place])),
            )
            for place in places
            if positions[place] >= 0
        ),
    )
