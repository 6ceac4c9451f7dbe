"""Filters as Milvus's boolean expressions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

from searchengine.errors import QueryError
from searchengine.index.filters import Filter

_NOTHING = "place < 0"  # no primary key is
_LAST_ID = 2**62 - 1
_FIRST_NS, _LAST_NS = -(2**62), 2**63 - 1


def expression(filter: Filter, generation: int, names: Mapping[int, str]) -> str:
    """What passes a filter, as of a commit; ``names`` are what paths of each image folder begin with, or empty."""
    parts = [f"born <= {generation}"]
    if filter.labels:
        parts.append(f'json_contains_any(facts["labels"], {_texts(filter.labels)})')
    if filter.tags:
        raise QueryError("Tags are not kept in Milvus. Leave out the tag, and search by words.")
    if filter.folders:
        parts.append(_any([_below(folder, names) for folder in filter.folders]))
    if filter.formats:
        parts.append(f"format in {_texts(filter.formats)}")
    if filter.cameras:
        parts.append(f"camera in {_texts(filter.cameras)}")
    if filter.after is not None or filter.before is not None:
        parts.append(_taken(filter.after, filter.before))
    for name, least, most in (
        ("width", filter.min_width, filter.max_width),
        ("height", filter.min_height, filter.max_height),
    ):
        if least is not None or most is not None:
            parts.append(f"{name} >= {least or 1}")
        if most is not None:
            parts.append(f"{name} <= {most}")
    if filter.ids is not None:
        places = [place for id_ in filter.ids if id_ <= _LAST_ID for place in (2 * id_, 2 * id_ + 1)]
        parts.append(f"place in {places}" if places else _NOTHING)
    return " and ".join(parts)


def text(value: str) -> str:
    """A text in quotes."""
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(text, values))}]"


def _any(parts: Sequence[str]) -> str:
    return f"({' or '.join(parts)})"


def _below(folder: str, names: Mapping[int, str]) -> str:
    """What lies below a folder, as paths are shown."""
    parts = []
    named = {root: name for root, name in names.items() if name}
    for root, name in named.items():
        if f"{name}/".startswith(f"{folder}/"):
            parts.append(f"root == {root}")
        elif folder.startswith(f"{name}/"):
            parts.append(f"(root == {root} and {_begins(folder[len(name) + 1 :])})")
    others = f"root not in {[*named]} and " if named else ""
    parts.append(f"({others}{_begins(folder)})")
    return _any(parts)


def _begins(folder: str) -> str:
    # "0" is the character after "/"; LIKE would take % and _ for wildcards
    return f"(path >= {text(folder + '/')} and path < {text(folder + '0')})"


def _taken(after: date | None, before: date | None) -> str:
    """Taken in those days: by EXIF data, else by the local time of the file."""
    by_exif, by_file = ['taken != ""'], ['taken == ""', f"mtime >= {_FIRST_NS}"]
    if after is not None:
        by_exif.append(f'taken >= "{after.isoformat()}"')
        by_file.append(f"mtime >= {_midnight_ns(after)}")
    if before is not None and before < date.max:
        following = before + timedelta(days=1)
        by_exif.append(f'taken < "{following.isoformat()}"')
        by_file.append(f"mtime < {_midnight_ns(following)}")
    return f"(({' and '.join(by_exif)}) or ({' and '.join(by_file)}))"


def _midnight_ns(day: date) -> int:
    """When a day begins here."""
    try:
        seconds = int(datetime(day.year, day.month, day.day).timestamp())
    except (OverflowError, OSError, ValueError):
        seconds = (day - date(1970, 1, 1)).days * 86_400
    return min(max(seconds * 10**9, _FIRST_NS), _LAST_NS)
