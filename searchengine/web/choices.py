"""The choices that a page offers as links: another index, metric or rule, a comparison, likes and dislikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from searchengine.errors import SearchEngineError
from searchengine.index.metrics import METRICS, metric_title, rank_alike
from searchengine.index.types import ImageRecord
from searchengine.query import DISLIKED, LIKED, Query
from searchengine.web.cards import ANY_ID, url_by_id
from searchengine.web.indexes import ServedIndex, this_index, this_site, url_in
from searchengine.web.queries import rules

_SHORT_TITLES = {
    "euclidean": "Euclidean",
    "cosine": "cosine",
    "manhattan": "Manhattan",
    "inner-product": "inner product",
}


@dataclass(frozen=True, slots=True)
class Address:
    """``href`` is where a link leads. An upload is not kept: ``again`` is where scripts post it again."""

    href: str
    again: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several, of which the page shows the ``current`` one; see Address."""

    title: str
    href: str
    current: bool = False
    again: str | None = None
    note: str | None = None


def index_choices(
    *, current: bool = True, record: ImageRecord | None = None, uploaded: bool = False, **values: Any
) -> list[Choice]:
    """Every index, with the same query where it can answer it; none where there is only one.

    Args:
        current: whether the page is of this index alone.
        record: the image of this index that is searched by.
        uploaded: whether the query is an upload.
        values: the other arguments of ``url_for``.
    """
    indexes = this_site().indexes
    if len(indexes) == 1:
        return []
    return [
        replace(_index_choice(index, record, uploaded, values), current=current and index is this_index())
        for index in indexes
    ]


def _index_choice(index: ServedIndex, record: ImageRecord | None, uploaded: bool, values: Mapping[str, Any]) -> Choice:
    home = url_in(index, "pages.home")
    try:
        note = index.title
        if record is not None:
            image_id = record.id if index is this_index() else index.engine.index.find(record)
            if image_id is not None:
                return Choice(index.name, url_in(index, "search.by_id", id=image_id, **values), note=note)
        elif not uploaded:
            return Choice(index.name, home, note=note)
        elif index.takes_uploads:
            return Choice(index.name, home, again=url_in(index, "search.by_upload", **values), note=note)
    except (SearchEngineError, OSError):  # the others can be chosen all the same
        return Choice(index.name, home, note="It cannot be read at present")
    return Choice(
        index.name, home, note=f"{note}. It cannot be searched by this picture: the link leads to its first page"
    )


def short_title(metric: str) -> str:
    """A metric where there is little room, e.g. "Euclidean"."""
    return _SHORT_TITLES.get(metric) or metric_title(metric)


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


def metric_choices(chosen: str, changed: Callable[..., Address]) -> list[list[Choice]]:
    """Every metric, those that rank alike together; ``changed(metric=...)`` is its page, None the index's own."""
    index = this_index().engine.index
    groups = []
    for group in metric_groups(normalized=index.normalized):
        choices = []
        for metric in group:
            to = changed(metric=None if metric == index.metric else metric)
            choices.append(Choice(short_title(metric), to.href, metric == chosen, to.again))
        groups.append(choices)
    return groups


def rule_choices(query: Query, changed: Callable[..., Address]) -> list[Choice]:
    """Every rule to rank feedback by; none where there is no feedback."""
    if not query.judged:
        return []
    choices = []
    for rule, title in rules():
        to = changed(rule=rule)
        choices.append(Choice(title, to.href, rule == query.rule, to.again))
    return choices


class FeedbackChoices:
    """To like or dislike an image of these results, or to take that back; each leads to another ranking."""

    def __init__(self, query: Query, address: Callable[[Query], Address]) -> None:
        self._query = replace(query, cursor=None)
        self._address = address

    @cached_property
    def like(self) -> Callable[[int], Address]:
        """To like an image that was not judged yet."""
        return _address_by_id(self._address(self._query.judging(ANY_ID, LIKED)))

    @cached_property
    def dislike(self) -> Callable[[int], Address]:
        """To dislike an image that was not judged yet."""
        return _address_by_id(self._address(self._query.judging(ANY_ID, DISLIKED)))

    def take_back(self, image_id: int) -> Address:
        """To take the judgement of one image back."""
        return self._address(self._query.without(image_id))

    def clear(self) -> Address:
        """To take all feedback back."""
        return self._address(self._query.without_judgements())


def _address_by_id(address: Address) -> Callable[[int], Address]:
    """An address that was built for ANY_ID, for the images of a page."""
    href = url_by_id(address.href)
    if address.again is None:
        return lambda image_id: Address(href(image_id))
    again = url_by_id(address.again)
    return lambda image_id: Address(href(image_id), again(image_id))


def other_side(index: ServedIndex, metric: str) -> tuple[ServedIndex, str]:
    """What is compared with a ranking at first: the next index, or the same one by a metric that ranks otherwise."""
    for other in this_site().after(index):
        with suppress(SearchEngineError, OSError):  # one that cannot be read is passed over
            return other, other.engine.index.metric
    normalized = index.engine.index.normalized
    groups = metric_groups(normalized=normalized)
    return index, next(group[0] for group in groups if not rank_alike(group[0], metric, normalized=normalized))
