"""The choices that a page offers as links: another index, metric, rule or filter, likes and dislikes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

from searchengine.errors import SearchEngineError
from searchengine.feedback import rule_title
from searchengine.index.filters import EVERYTHING, FIELDS, FacetValue, Filter, unknown_choices
from searchengine.index.metrics import METRICS, metric_title, rank_alike
from searchengine.index.protocol import Index
from searchengine.index.types import ImageRecord
from searchengine.query import DISLIKED, EXEMPLAR_SVM, LIKED, ROCCHIO, RULES, Query
from searchengine.web.cards import ANY_ID, spaced, url_by_id
from searchengine.web.engines import ServedEngine
from searchengine.web.requests import this_engine, this_site, url_in


@dataclass(frozen=True, slots=True)
class Choice:
    """A link to another page; ``current`` marks the choice of this page."""

    title: str
    href: str
    current: bool = False
    note: str | None = None


# -- another index ----------------------------------------------------------------------------------------------------


def index_choices(
    *, current: bool = True, record: ImageRecord | None = None, upload: str = "", **values: Any
) -> list[Choice]:
    """Return a link to every index, with the same query where that index can answer it; none if there is only one.

    Args:
        current: whether the page shows this index alone.
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
        elif engine.spec.embeds:
            return Choice(engine.name, url_in(engine, "search.by_id", upload=upload, **values), note=note)
    except (SearchEngineError, OSError):  # the other indexes stay available
        return Choice(engine.name, home, note="This index cannot be read at the moment")
    note += ". It cannot be searched with this picture, so the link opens its first page"
    return Choice(engine.name, home, note=note)


# -- another metric or rule -------------------------------------------------------------------------------------------

RULE_NOTES = {
    ROCCHIO: "Rocchio's rule moves the query towards the mean of what you liked and away from the mean of what you "
    "disliked.",
    EXEMPLAR_SVM: "The exemplar SVM, a linear support vector machine, separates the query and what you liked from what "
    "you disliked and from random pictures.",
}


def short_title(metric: str) -> str:
    """Return the short name of a metric, e.g. "Euclidean"."""
    return metric_title(metric).removesuffix(" distance")


def metric_groups(*, normalized: bool) -> list[list[str]]:
    """Return all metrics, grouped by those that give the same ranking."""
    groups: dict[str, list[str]] = {}  # by the first metric of each
    for metric in METRICS:
        first = next((first for first in groups if rank_alike(first, metric, normalized=normalized)), metric)
        groups.setdefault(first, []).append(metric)
    return list(groups.values())


def metric_choices(chosen: str, changed: Callable[..., str]) -> list[list[Choice]]:
    """Return a link for every metric, in the groups of ``metric_groups``.

    ``changed(metric=...)`` is the address of a page; None stands for the index's own metric.
    """
    index = this_engine().index

    def choice(metric: str) -> Choice:
        return Choice(short_title(metric), changed(metric=None if metric == index.metric else metric), metric == chosen)

    return [[choice(metric) for metric in group] for group in metric_groups(normalized=index.normalized)]


def rule_choices(query: Query, changed: Callable[..., str]) -> list[Choice]:
    """Return a link for every feedback rule; none if the query has no feedback."""
    if not query.judged:
        return []
    return [Choice(rule_title(rule), changed(rule=rule), rule == query.rule_used) for rule in RULES]


def other_side(engine: ServedEngine, metric: str) -> tuple[ServedEngine, str]:
    """Return the default for comparing with a ranking: the next index, or a metric that ranks differently."""
    for other in this_site().after(engine):
        with suppress(SearchEngineError, OSError):  # skip an index that cannot be read
            return other, other.index.metric
    normalized = engine.index.normalized
    groups = metric_groups(normalized=normalized)
    return engine, next(group[0] for group in groups if not rank_alike(group[0], metric, normalized=normalized))


# -- likes and dislikes -----------------------------------------------------------------------------------------------


class FeedbackChoices:
    """Links that like or dislike an image of the page, and so lead to another ranking."""

    def __init__(self, query: Query, address: Callable[[Query], str]) -> None:
        self._query = replace(query, cursor=None)
        self._address = address

    @property
    def can_dislike(self) -> bool:
        """Whether the query has a picture to start from or a like: dislikes alone rank nothing."""
        return bool(self._query.start or self._query.liked)

    @cached_property
    def like(self) -> Callable[[int], str]:
        """The address that likes an image."""
        return url_by_id(self._address(self._query.judging(ANY_ID, LIKED)))

    @cached_property
    def dislike(self) -> Callable[[int], str]:
        """The address that dislikes an image."""
        return url_by_id(self._address(self._query.judging(ANY_ID, DISLIKED)))


# -- another filter ---------------------------------------------------------------------------------------------------

_MAX_OPTIONS = 300  # shown for each facet; other values can be typed
_FACET_TITLES = {"tag": "Seems to show"}  # where the title is not the name of the field
_FACET_NOTES = {"tag": "The guess of the computer. It can be wrong."}
_MAX_DEPTH = 4  # subfolders deeper than this are not indented further
_FACETS = ("label", "folder", "tag", "camera", "format")  # fields that take several values
_CHOSEN_TITLES = {
    "after": "from {}",
    "before": "until {}",
    "min_width": "at least {} px wide",
    "max_width": "at most {} px wide",
    "min_height": "at least {} px high",
    "max_height": "at most {} px high",
}

AddressOf = Callable[[Filter], str]


@dataclass(frozen=True, slots=True)
class Option:
    """A value of a facet; ``depth`` is how deep a folder is nested."""

    value: str
    title: str
    count: int
    chosen: bool
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of one field; there are ``more`` than the options shown."""

    name: str
    options: list[Option]
    more: int

    @property
    def title(self) -> str:
        """The heading of the facet."""
        return _FACET_TITLES.get(self.name, self.name.capitalize())

    @property
    def note(self) -> str:
        """An explanation, if the facet needs one."""
        return _FACET_NOTES.get(self.name, "")

    @property
    def chosen(self) -> bool:
        """Whether any of its options is chosen."""
        return any(option.chosen for option in self.options)


@dataclass(frozen=True, slots=True)
class FilterPanel:
    """The filter of a page, and the choices it offers.

    Attributes:
        fields: the values of the fields that have any.
        chosen: for each choice made, a link to the page without it.
        facets: the values to choose from, with counts.
        years: a link for each year in which pictures were taken, latest first.
        unknown: a sentence for each choice that matches no image of the index.
        action: the address of the form.
        kept: the fields of the query that the form carries along.
        clear: the address of the page without a filter.
    """

    fields: Mapping[str, Sequence[str]]
    chosen: list[Choice]
    facets: list[Facet]
    years: list[Choice]
    unknown: list[str]
    action: str
    kept: Mapping[str, Sequence[str]]
    clear: str


def filter_panel(
    index: Index, filter: Filter, address: AddressOf, action: str, kept: Mapping[str, Sequence[str]]
) -> FilterPanel:
    """Return the filter panel of a page; ``address`` gives the address of the same page with another filter."""
    facets, everything = index.facets(filter), index.facets(EVERYTHING)
    hidden = {"folder"} if not filter.folders and _folders_repeat(everything.folder, everything.label) else set()
    return FilterPanel(
        fields=filter.to_fields(),
        chosen=list(_chosen(filter, address)),
        facets=[
            facet
            for name in _FACETS
            if name not in hidden and (facet := _facet(name, getattr(facets, name), filter)).options
        ],
        years=_years(facets.year, filter, address),
        unknown=unknown_choices(everything, filter) if filter else [],
        action=action,
        kept=kept,
        clear=address(EVERYTHING),
    )


def _folders_repeat(folders: Sequence[FacetValue], labels: Sequence[FacetValue]) -> bool:
    """Return whether folders only repeat the labels made from them.

    That is so if each innermost folder holds exactly the images with its name as label, and each folder above holds
    all images.
    """
    parents = {folder.value.rpartition("/")[0] for folder in folders}
    innermost = {folder.value.rpartition("/")[2]: folder.count for folder in folders if folder.value not in parents}
    everything = sum(innermost.values())
    above = [folder for folder in folders if folder.value in parents]
    return (
        bool(innermost)
        and innermost == {label.value: label.count for label in labels}
        and all(folder.count == everything for folder in above)
    )


def _chosen(filter: Filter, address: AddressOf) -> Iterable[Choice]:
    for name, texts in filter.to_fields().items():
        for text in texts:
            title = "these pictures" if name == "ids" else _CHOSEN_TITLES.get(name, "{}").format(text)
            yield Choice(title, address(_without(filter, name, text)), note=name)


def _facet(name: str, values: Sequence[FacetValue], filter: Filter) -> Facet:
    """Return a facet with its most frequent values and all chosen ones."""
    texts = dict.fromkeys(getattr(filter, FIELDS[name]))
    if len(values) == 1 and not texts:
        return Facet(name, [], 0)  # nothing to choose between
    known = {value.value: value for value in values}
    shown = list(values[:_MAX_OPTIONS])
    most_frequent = {value.value for value in shown}
    shown += [known.get(text, FacetValue(text, 0)) for text in texts if text not in most_frequent]
    if name == "folder":
        shown.sort(key=lambda value: value.value.split("/"))
        options = [
            Option(value.value, parts[-1], value.count, value.value in texts, min(len(parts) - 1, _MAX_DEPTH))
            for value in shown
            if (parts := value.value.split("/"))
        ]
    else:
        options = [Option(value.value, spaced(value.value), value.count, value.value in texts) for value in shown]
    return Facet(name, options, max(len(values) - len(shown), 0))


def _years(values: Sequence[FacetValue], filter: Filter, address: AddressOf) -> list[Choice]:
    choices = []
    for value in sorted(values, key=lambda value: value.value, reverse=True):
        first, last = date(int(value.value), 1, 1), date(int(value.value), 12, 31)
        chosen = (filter.after, filter.before) == (first, last)
        other = replace(filter, after=None if chosen else first, before=None if chosen else last)
        choices.append(Choice(value.value, address(other), chosen, note=str(value.count)))
    return choices if len(choices) > 1 or any(choice.current for choice in choices) else []


def _without(filter: Filter, name: str, text: str) -> Filter:
    value = getattr(filter, FIELDS[name])
    remaining = tuple(other for other in value if other != text) if name in _FACETS else None
    changes: dict[str, Any] = {FIELDS[name]: remaining}
    return replace(filter, **changes)
