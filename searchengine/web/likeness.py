"""Two ways to rank the same pictures: whether they come out alike, and what two rankings have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from searchengine.extractors import ExtractorSpec
from searchengine.index.metrics import COSINE, METRICS, metric_title, rank_alike
from searchengine.index.types import ImageRecord

_SHORT = {"euclidean": "Euclidean", "cosine": "cosine", "manhattan": "Manhattan", "inner-product": "inner product"}


def short_title(metric: str) -> str:
    """A metric where there is little room, e.g. "Euclidean"."""
    return _SHORT.get(metric) or metric_title(metric)


def metric_groups(*, normalized: bool) -> list[list[str]]:
    """All metrics, those that rank alike together."""
    groups: list[list[str]] = []
    for metric in METRICS:
        for group in groups:
            if rank_alike(group[0], metric, normalized=normalized):
                group.append(metric)
                break
        else:
            groups.append([metric])
    return groups


def why_alike(one: tuple[ExtractorSpec, str], other: tuple[ExtractorSpec, str]) -> str:
    """Why two extractors with their metrics give the same order, whatever the query; empty where they do not."""
    (one_spec, one_metric), (other_spec, other_metric) = one, other
    if one_spec == other_spec:
        if one_metric == other_metric:
            return "Both sides rank by the same features and the same metric, so they rank alike."
        if rank_alike(one_metric, other_metric, normalized=one_spec.normalize == "l2"):
            return (
                f"These features have length 1, so {metric_title(one_metric)} and {metric_title(other_metric)} "
                "rank alike."
            )
        return ""
    if replace(one_spec, normalize="none") != replace(other_spec, normalize="none"):
        return ""
    # The same features, on one side scaled to length 1: the cosine does not look at length.
    raw_metric, unit_metric = (one_metric, other_metric) if one_spec.normalize == "none" else (other_metric, one_metric)
    if raw_metric == COSINE and rank_alike(COSINE, unit_metric, normalized=True):
        return (
            f"The features differ in length alone, which cosine distance does not see: it ranks alike with "
            f"{metric_title(unit_metric)} on features of length 1."
        )
    return ""


@dataclass(frozen=True, slots=True)
class Shared:
    """What two rankings share: for each place in one the place in the other, from 1, or None."""

    left: tuple[int | None, ...]
    right: tuple[int | None, ...]

    @property
    def count(self) -> int:
        """How many pictures are in both."""
        return sum(place is not None for place in self.left)

    @property
    def same_order(self) -> bool:
        """Whether both hold the same pictures in the same places."""
        return len(self.left) == len(self.right) and self.left == tuple(range(1, len(self.left) + 1))


def shared(left: Sequence[ImageRecord], right: Sequence[ImageRecord]) -> Shared:
    """Matches pictures by content hash, or by path where one of the two has none; each with one other at most."""
    by_hash: dict[str, list[int]] = {}
    by_path: dict[str, list[int]] = {}
    for place, record in enumerate(right):
        if record.content_hash is not None:
            by_hash.setdefault(record.content_hash, []).append(place)
        by_path.setdefault(record.path, []).append(place)
    there: list[int | None] = [None] * len(left)
    here: list[int | None] = [None] * len(right)
    for place, record in enumerate(left):
        same = list(by_hash.get(record.content_hash, ())) if record.content_hash is not None else []
        # Two files of one content: the one of the same path first.
        same.sort(key=lambda at: right[at].path != record.path)
        same += [at for at in by_path.get(record.path, ()) if None in (record.content_hash, right[at].content_hash)]
        found = next((at for at in same if here[at] is None), None)
        if found is not None:
            there[place], here[found] = found + 1, place + 1
    return Shared(tuple(there), tuple(here))
