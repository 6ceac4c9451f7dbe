"""The labels of the nearest images vote: k-nearest-neighbours classification (Cover and Hart 1967)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vote:
    """``share`` of the neighbours that have any label carry this one, ``count`` of them."""

    label: str
    count: int
    share: float


def vote(neighbours: Sequence[Sequence[str]]) -> list[Vote]:
    """The labels of each neighbour, nearest first -> every label with its share, the winner first.

    Each neighbour has one vote for each of its labels; one without labels has none. Of labels with as many votes, the
    one of the nearer neighbour comes first. Empty where no neighbour has a label.
    """
    voters = [tuple(dict.fromkeys(labels)) for labels in neighbours if labels]
    counts: dict[str, int] = {}  # in the order in which labels appear, which the sort keeps
    for labels in voters:
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [Vote(label, count, count / len(voters)) for label, count in ordered]
