"""The filter of a page: what is chosen, each with a way to remove it, and what can be chosen, with counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from searchengine.index.filters import EVERYTHING, FIELDS, FacetValue, Filter, unknown_choices
from searchengine.index.protocol import Index
from searchengine.web.cards import spaced
from searchengine.web.choices import Choice

_SHOWN = 300  # values of a facet; others can be typed
_NAMES = {"tag": "Seen in it"}  # where a facet is not called as its field
_NOTES = {"tag": "What the network believes to see. It can be wrong."}
_DEEPEST = 4  # to which folders below folders are indented
FACETS = ("label", "folder", "tag", "camera", "format")  # of which several values can be chosen
_TITLES = {
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
    """A value of a facet; ``depth`` is how many folders a folder lies below."""

    value: str
    title: str
    count: int
    chosen: bool
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Facet:
    """What can be chosen of one field; there are ``more`` values than are shown."""

    name: str
    options: list[Option]
    more: int

    @property
    def title(self) -> str:
        """For people."""
        return _NAMES.get(self.name, self.name.capitalize())

    @property
    def note(self) -> str:
        """What to know of it."""
        return _NOTES.get(self.name, "")

    @property
    def chosen(self) -> bool:
        """Whether any value is chosen."""
        return any(option.chosen for option in self.options)


@dataclass(frozen=True, slots=True)
class FilterPanel:
    """What a page shows of its filter.

    Attributes:
        fields: the texts of the fields that have some.
        chosen: a link for each choice that leads to the page without it.
        facets: what can be chosen.
        years: a link for each year in which a picture was taken, the latest first.
        unknown: a sentence for each choice that no image of the index has.
        action: where the form leads.
        kept: the fields of the query that the form takes along.
        clear: the page without any choice.
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
    """The panel of a page; ``address`` says where the same page with another filter is, see also ``FilterPanel``."""
    facets, everything = index.facets(filter), index.facets(EVERYTHING)
    hidden = {"folder"} if not filter.folders and _repeats(everything.folder, everything.label) else set()
    return FilterPanel(
        fields=filter.to_fields(),
        chosen=list(_chosen(filter, address)),
        facets=[
            facet
            for name in FACETS
            if name not in hidden and (facet := _facet(name, getattr(facets, name), filter)).options
        ],
        years=_years(facets.year, filter, address),
        unknown=unknown_choices(everything, filter) if filter else [],
        action=action,
        kept=kept,
        clear=address(EVERYTHING),
    )


def _repeats(folders: Sequence[FacetValue], labels: Sequence[FacetValue]) -> bool:
    """Whether folders say what labels say, which were made from them: each lowest folder holds what has its name.

    Those above them hold everything.
    """
    parents = {folder.value.rpartition("/")[0] for folder in folders}
    lowest = {folder.value.rpartition("/")[2]: folder.count for folder in folders if folder.value not in parents}
    everything = sum(lowest.values())
    above = [folder for folder in folders if folder.value in parents]
    return (
        bool(lowest)
        and lowest == {label.value: label.count for label in labels}
        and all(folder.count == everything for folder in above)
    )


def _chosen(filter: Filter, address: AddressOf) -> Iterable[Choice]:
    for name, texts in filter.to_fields().items():
        for text in texts:
            title = "these pictures" if name == "ids" else _TITLES.get(name, "{}").format(text)
            yield Choice(title, address(_without(filter, name, text)), note=name)


def _facet(name: str, values: Sequence[FacetValue], filter: Filter) -> Facet:
    """The most frequent values, and all that are chosen."""
    texts = dict.fromkeys(getattr(filter, FIELDS[name]))
    if len(values) == 1 and not texts:
        return Facet(name, [], 0)  # nothing to choose between
    known = {value.value: value for value in values}
    shown = list(values[:_SHOWN])
    most_frequent = {value.value for value in shown}
    shown += [known.get(text, FacetValue(text, 0)) for text in texts if text not in most_frequent]
    if name == "folder":
        shown.sort(key=lambda value: value.value.split("/"))
        options = [
            Option(value.value, parts[-1], value.count, value.value in texts, min(len(parts) - 1, _DEEPEST))
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
    several = name in FACETS
    changes: dict[str, Any] = {FIELDS[name]: tuple(other for other in value if other != text) if several else None}
    return replace(filter, **changes)
