"""The choices that a page offers as links: another index, metric or rule, a comparison, likes and dislikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from searchengine.errors import SearchEngineError
from searchengine.feedback import rule_title
from searchengine.index.metrics import METRICS, metric_title, rank_alike
from searchengine.index.types import ImageRecord
from searchengine.query import DISLIKED, LIKED, RULES, Query
from searchengine.web.cards import ANY_ID, url_by_id
from searchengine.web.engines import ServedEngine
from searchengine.web.indexes import this_engine, this_site, url_in


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several, of which the page shows the ``current`` one."""

    title: str
    href: str
    current: bool = False
    note: str | None = None


def index_choices(
    *, current: bool = True, record: ImageRecord | None = None, upload: str = "", **values: Any
) -> list[Choice]:
    """Every index, with the same query where it can answer it; none where there is only one.

    Args:
        current: whether the page is of this index alone.
        record: the image of this index that is searched by.
        upload: the key of the upload that is searched by.
        values: the other arguments of ``url_for``.
    """
    engines = this_site().engines
    if len(engines) == 1:
        return []
    return [
        replace(_index_choice(engine, record, upload, values), current=current and engine is this_engine())
        for engine in engines
    ]


def _index_choice(engine: ServedEngine, record: ImageRecord | None, upload: str, values: Mapping[str, Any]) -> Choice:
    home = url_in(engine, "pages.home")
    try:
        note = engine.title
        if record is not None:
            image_id = record.id if engine is this_engine() else engine.index.find(record)
            if image_id is not None:
                return Choice(engine.name, url_in(engine, "search.by_id", id=image_id, **values), note=note)
        elif not upload:
            return Choice(engine.name, home, note=note)
        elif engine.takes_uploads:
            return Choice(engine.name, url_in(engine, "search.by_id", upload=upload, **values), note=note)
    except (SearchEngineError, OSError):  # the others can be chosen all the same
        return Choice(engine.name, home, note="It cannot be read at present")
    return Choice(
        engine.name, home, note=f"{note}. It cannot be searched by this picture: the link leads to its first page"
    )


def short_title(metric: str) -> str:
    """A metric where there is little room, e.g. "Euclidean"."""
    return metric_title(metric).removesuffix(" distance")


def metric_groups(*, normalized: bool) -> list[list[str]]:
    """All metrics, those that rank alike together."""
    groups: dict[str, list[str]] = {}  # by the first of each
    for metric in METRICS:
        first = next((first for first in groups if rank_alike(first, metric, normalized=normalized)), metric)
        groups.setdefault(first, []).append(metric)
    return list(groups.values())


def metric_choices(chosen: str, changed: Callable[..., str]) -> list[list[Choice]]:
    """Every metric, those that rank alike together; ``changed(metric=...)`` is its page, None the index's own."""
    index = this_engine().index

    def choice(metric: str) -> Choice:
        return Choice(short_title(metric), changed(metric=None if metric == index.metric else metric), metric == chosen)

    return [[choice(metric) for metric in group] for group in metric_groups(normalized=index.normalized)]


def rule_choices(query: Query, changed: Callable[..., str]) -> list[Choice]:
    """Every rule to rank feedback by; none where there is no feedback."""
    if not query.judged:
        return []
    return [Choice(rule_title(rule), changed(rule=rule), rule == query.rule_used) for rule in RULES]


class FeedbackChoices:
    """To like or dislike an image of a page; each leads to another ranking."""

    def __init__(self, query: Query, address: Callable[[Query], str]) -> None:
        self._query = replace(query, cursor=None)
        self._address = address

    @property
    def can_dislike(self) -> bool:
        """Whether there is anything to rank by besides what is disliked."""
        return bool(self._query.start or self._query.liked)

    @cached_property
    def like(self) -> Callable[[int], str]:
        """To like an image that was not judged yet."""
        return url_by_id(self._address(self._query.judging(ANY_ID, LIKED)))

    @cached_property
    def dislike(self) -> Callable[[int], str]:
        """To dislike an image that was not judged yet."""
        return url_by_id(self._address(self._query.judging(ANY_ID, DISLIKED)))


def other_side(engine: ServedEngine, metric: str) -> tuple[ServedEngine, str]:
    """What is compared with a ranking at first: the next index, or the same one by a metric that ranks otherwise."""
    for other in this_site().after(engine):
        with suppress(SearchEngineError, OSError):  # one that cannot be read is passed over
            return other, other.index.metric
    normalized = engine.index.normalized
    groups = metric_groups(normalized=normalized)
    return engine, next(group[0] for group in groups if not rank_alike(group[0], metric, normalized=normalized))
