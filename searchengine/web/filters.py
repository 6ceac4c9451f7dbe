"""The filter of a page: what is chosen, each with a way to remove it, and what can be chosen, with counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from typing import Any

from searchengine.index.filters import EVERYTHING, FIELDS, FacetValue, Filter, unknown_choices
from searchengine.index.protocol import Index
from searchengine.web.choices import Address, Choice

_SHOWN = 12  # values of a facet
_FACETS = ("label", "folder", "format", "camera", "year")
_TITLES = {
    "after": "from {}",
    "before": "until {}",
    "min_width": "at least {} wide",
    "max_width": "at most {} wide",
    "min_height": "at least {} high",
    "max_height": "at most {} high",
}

AddressOf = Callable[[Filter], Address]


@dataclass(frozen=True, slots=True)
class FilterPanel:
    """What a page shows of its filter.

    Attributes:
        fields: the texts of the fields that have some.
        chosen: a link for each choice that leads to the page without it.
        facets: the title of each facet, and a link for each of its most frequent values.
        unknown: a sentence for each choice that no image of the index has.
    """

    fields: Mapping[str, Sequence[str]]
    chosen: list[Choice]
    facets: list[tuple[str, list[Choice]]]
    unknown: list[str]


def filter_panel(index: Index, filter: Filter, address: AddressOf) -> FilterPanel:
    """The panel of a page; ``address`` says where the same page with another filter is."""
    facets = index.facets(filter)
    return FilterPanel(
        fields=filter.to_fields(),
        chosen=_chosen(filter, address),
        facets=[
            (name, choices) for name in _FACETS if (choices := _values(name, getattr(facets, name), filter, address))
        ],
        unknown=unknown_choices(index.facets(EVERYTHING), filter) if filter else [],
    )


def _chosen(filter: Filter, address: AddressOf) -> list[Choice]:
    choices = []
    for name, texts in filter.to_fields().items():
        for text in texts:
            to = address(_without(filter, name, text))
            title = "these pictures" if name == "ids" else _TITLES.get(name, f"{name} {{}}").format(text)
            choices.append(Choice(title, to.href, again=to.again))
    return choices


def _values(name: str, values: Sequence[FacetValue], filter: Filter, address: AddressOf) -> list[Choice]:
    texts = _texts_chosen(filter, name)
    chosen = [value for value in values if value.value in texts]
    others = (value for value in values if value.value not in texts)
    shown = [*chosen, *islice(others, _SHOWN)][:_SHOWN]
    if len(values) == 1 and not chosen:
        return []  # nothing to choose between
    choices = []
    for value in shown:
        is_chosen = value.value in texts
        to = address((_without if is_chosen else _with)(filter, name, value.value))
        choices.append(Choice(value.value, to.href, is_chosen, to.again, note=str(value.count)))
    return choices


def _year(text: str) -> dict[str, date]:
    return {"after": date(int(text), 1, 1), "before": date(int(text), 12, 31)}


def _texts_chosen(filter: Filter, name: str) -> frozenset[str]:
    """The values of a facet that are chosen."""
    if name != "year":
        return frozenset(getattr(filter, FIELDS[name]))
    text = f"{filter.after.year:04}" if filter.after else ""
    return frozenset([text] if text and {"after": filter.after, "before": filter.before} == _year(text) else [])


def _with(filter: Filter, name: str, text: str) -> Filter:
    if name == "year":
        return replace(filter, **_year(text))  # type: ignore[arg-type]
    changes: dict[str, Any] = {FIELDS[name]: (*getattr(filter, FIELDS[name]), text)}
    return replace(filter, **changes)


def _without(filter: Filter, name: str, text: str) -> Filter:
    if name == "year":
        return replace(filter, after=None, before=None)
    value = getattr(filter, FIELDS[name])
    several = name in ("label", "folder", "format", "camera")
    changes: dict[str, Any] = {FIELDS[name]: tuple(other for other in value if other != text) if several else None}
    return replace(filter, **changes)
