"""Names that people type, and what to say to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from searchengine.errors import UnknownNameError


def closest_first(name: str, known: Iterable[str]) -> list[str]:
    """All the known names, the ones most like ``name`` first; ties keep their order."""

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    return sorted(known, key=likeness, reverse=True)


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """``name`` if it is known, else UnknownNameError that lists the known ones, the closest first."""
    names = list(known)
    if name in names:
        return name
    raise UnknownNameError(f"There is no {kind} {name!r}. Choose one of: {', '.join(closest_first(name, names))}.")
