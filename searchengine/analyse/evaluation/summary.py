"""Lines of queries -> means with intervals, classes, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import intervals
from searchengine.analyse.evaluation.measuring import Measured
from searchengine.analyse.evaluation.metrics import MAIN
from searchengine.analyse.evaluation.relevance import Relevance, distinct
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
    means = intervals.resampled_means(values, resamples, random)
    low, high = intervals.interval(means)
    sure = len(values) > 1
    found = tuple(
        Figure(
            name,
            float(values[:, i].mean()),
            float(low[i]) if sure else None,
            float(high[i]) if sure else None,
            float(ceilings[:, i].mean()),
        )
        for i, name in enumerate(measured.names)
    )
    return found, means[:, measured.names.index(MAIN)]


def members(labels: Sequence[Sequence[str]]) -> dict[str, NDArray[np.int64]]:
    """label -> the numbers of the queries that carry it, by label."""
    found: dict[str, list[int]] = {}
    for number, of_query in enumerate(labels):
        for label in of_query:
            found.setdefault(label, []).append(number)
    return {label: np.array(found[label], dtype=np.int64) for label in sorted(found)}


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
    found: list[ClassResult] = []
    resampled = np.zeros(resamples)
    for label, numbers in of_label.items():
        of_class, means = figures(measured, resamples, random, numbers)
        resampled += means
        count, other = most.get(label, (0, ""))
        found.append(
            ClassResult(
                label, relevance.size(label), len(numbers), of_class, other or None, count / max(places[label], 1)
            )
        )
    found.sort(key=lambda one: (one.figure(MAIN).value, one.label))
    low, high = np.quantile(resampled / len(found), (0.025, 0.975))  # resampled within each class
    sure = any(one.queries > 1 for one in found)
    value = float(np.mean([one.figure(MAIN).value for one in found]))
    mean = Figure(f"{MAIN} by class", value, float(low) if sure else None, float(high) if sure else None, 1.0)
    return tuple(found), mean


def hardest(
    measured: Measured,
    ordered: Sequence[ClassResult],
    of_label: Mapping[str, NDArray[np.int64]],
    query: Picturing,
    image: Picturing,
) -> tuple[HardClass, ...]:
    """The classes of the lowest mean average precision, where that is below 1, each with its median query."""
    found = []
    main = measured.names.index(MAIN)
    for one in ordered[:HARDEST]:
        if one.figure(MAIN).value >= 1.0:
            break  # nothing is wrong in this class, nor in those that follow
        numbers = of_label[one.label]
        middle = numbers[np.argsort(measured.values[numbers, main], kind="stable")[(len(numbers) - 1) // 2]]
        found.append(HardClass(one.label, _example(measured, int(middle), range(_SHOWN), query, image)))
    return tuple(found)


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
    found: list[tuple[int, float, int]] = []
    for number in numbers.tolist():
        for place, position in enumerate(measured.first[number].tolist()):
            if position >= 0 and not measured.relevant[number, place] and other in of_collection[position]:
                found.append((place, float(measured.distances[number, place]), number))
                break
    examples: list[Example] = []
    shown: set[int] = set()
    for place, _, number in sorted(found):
        position = int(measured.first[number, place])
        if position not in shown:  # one odd image would else be in every example
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
