"""How a query is written in an address and in JSON; ``cli.search`` has the command line.

    ?id=7&box=0.1,0.2,0.5,0.5&like=12&dislike=40@0,0,0.5,1&rule=rocchio&label=dog&metric=cosine&k=30&distinct=1
    {"examples": [{"id": 7, "box": [0.1, 0.2, 0.5, 0.5]}, {"id": 12, "sign": 1}], "filter": {"label": ["dog"]}}

All parsers return the same ``Query`` for the same request. Addresses omit defaults.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from searchengine.errors import QueryError
from searchengine.index.filters import Cursor, Filter
from searchengine.query import ADDRESS, DEFAULT_K, DISLIKED, LIKED, START, Box, Example, Query, Sign, Source

MAX_EXAMPLES = 100  # in one request; not everything accepts a longer address
MAX_DECODED = 20  # examples to decode in one request; each may take a second

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_ID = 2**63 - 1
_WITH_BOX = re.compile(r"(.*)@([0-9.eE+-]+(?:,[0-9.eE+-]+){3})", re.ASCII | re.DOTALL)
_FLAGS = {"1": True, "true": True, "on": True, "0": False, "false": False, "": False}
_SIGNS: dict[str, Sign] = {"like": LIKED, "dislike": DISLIKED}
_JSON = ("examples", "text", "filter", "metric", "k", "cursor", "distinct", "copies", "rule")


# -- addresses ------------------------------------------------------------------------------------------------------


def query_from_url(
    values: Mapping[str, Sequence[str]],
    *,
    upload: Source | None = None,
    default_k: int = DEFAULT_K,
) -> Query:
    """Read a query from the fields of an address or a form. Unknown fields are ignored.

    If a field that takes one value has several, the first is used, as in Flask.

    Args:
        values: the values of each field.
        upload: a picture sent with the form, to start from.
        default_k: the ``k`` to use if none is given.

    Raises:
        QueryError, UnknownNameError
    """

    def first(name: str) -> str:
        return values[name][0] if values.get(name) else ""

    examples = []
    box = Box.parse(first("box")) if first("box") else None
    if upload is not None:
        examples.append(Example(upload, box))
    elif values.get("id"):
        examples.append(Example(_id_of(first("id")), box))
    elif box is not None:
        raise QueryError("There is a box but no picture. Name the picture that it is a part of, as in /search?id=7.")
    for name, sign in _SIGNS.items():
        for text in values.get(name, ()):
            source, part = split_box(text)
            if parse_id(source) is None:
                raise QueryError("A liked or disliked picture must be named by its id, a whole number.")
            examples.append(Example(int(source), part, sign))
    return Query(
        examples=_within_limits(examples),
        text=first("q"),
        filter=Filter.from_fields(values),
        metric=first("metric") or None,
        k=parse_k(first("k"), default_k),
        cursor=Cursor.parse(first("cursor")) if first("cursor") else None,
        distinct=_flag(first("distinct"), "distinct"),
        copies=_flag(first("copies"), "copies"),
        rule=first("rule") or None,
    )


def query_to_url(query: Query, *, default_k: int = DEFAULT_K) -> dict[str, list[str]]:
    """Return the fields of an address. An uploaded picture has no field, but its box has."""
    start = query.start
    fields = {
        "id": None if start is None or start.id is None else start.id,
        "box": None if start is None else start.box,
        "q": query.text,
        **query.filter.to_fields(),
        "k": None if query.k == default_k else query.k,
        "metric": query.metric,
        "like": [_with_box(example) for example in query.liked if example.id is not None],
        "dislike": [_with_box(example) for example in query.disliked if example.id is not None],
        "rule": query.rule,
        "cursor": query.cursor,
        "distinct": 1 if query.distinct else None,
        "copies": 1 if query.copies else None,
    }
    return {
        name: value if isinstance(value, list) else [str(value)]
        for name, value in fields.items()
        if value not in (None, [])
    }


# -- JSON -----------------------------------------------------------------------------------------------------------


def query_from_json(values: object, *, default_k: int = DEFAULT_K) -> Query:
    """Read a query from a JSON object. A picture is given by its ``id``, or as ``image`` in base64.

    Raises:
        QueryError, UnknownNameError
    """
    body = _object(values, "A query", _JSON)
    examples = body.get("examples", [])
    if not isinstance(examples, list):
        raise QueryError("examples must be a list.")
    k = body.get("k", default_k)
    return Query(
        examples=_within_limits([_example_from_json(example) for example in examples]),
        text=_text(body, "text"),
        filter=Filter.from_json(body.get("filter", {})),
        metric=_text(body, "metric"),
        k=parse_k(str(k) if type(k) is int else "x", default_k),
        cursor=Cursor.parse(cursor) if (cursor := _text(body, "cursor")) else None,
        distinct=_boolean(body, "distinct"),
        copies=_boolean(body, "copies"),
        rule=_text(body, "rule"),
    )


# -- parts of a query -------------------------------------------------------------------------------------------------


def parse_id(text: str | None) -> int | None:
    """Return the decimal integer in a text, 0 <= id < 2^63, or None if there is none."""
    if text is None or _WHOLE_NUMBER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def parse_k(text: str | None, default: int) -> int:
    """Return the number of results asked for, 1 to 500; QueryError if the text is something else."""
    from searchengine.settings import MAX_K  # loads Pydantic, which `--help` does not need

    if not text:
        return default
    number = parse_id(text)
    if not number or number > MAX_K:
        raise QueryError(f"The number of pictures must be a whole number from 1 to {MAX_K}.")
    return number


def split_box(text: str) -> tuple[str, Box | None]:
    """Split "12@0.1,0.2,0.5,0.5" into picture and box; a name with another @ stays whole. QueryError for a bad box."""
    match = _WITH_BOX.fullmatch(text)
    return (match[1], Box.parse(match[2])) if match else (text, None)


def _with_box(example: Example) -> str:
    """Write the id of a liked or disliked picture with its box, as in "12@0.1,0.2,0.5,0.5"."""
    return str(example.id) if example.box is None else f"{example.id}@{example.box}"


def _id_of(text: str) -> int:
    image_id = parse_id(text)
    if image_id is None:
        if ADDRESS.match(text):
            Example(text)  # type: ignore[arg-type]  # raises the error for addresses
        raise QueryError("The id of a picture must be a whole number from 0 up, as in /search?id=7.")
    return image_id


def _within_limits(examples: list[Example]) -> tuple[Example, ...]:
    if sum(example.sign != START for example in examples) > MAX_EXAMPLES:
        raise QueryError(f"At most {MAX_EXAMPLES} pictures can be liked or disliked in one search. Remove some.")
    if sum(example.id is None or example.box is not None for example in examples) > MAX_DECODED:
        raise QueryError(f"At most {MAX_DECODED} uploads and parts of pictures can be used in one search.")
    return tuple(examples)


def _flag(text: str, name: str) -> bool:
    if text.lower() not in _FLAGS:
        raise QueryError(f"{name} must be 1 or 0, not {text[:80]!r}.")
    return _FLAGS[text.lower()]


def _object(values: object, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise QueryError(f"{what} must be an object with any of the fields {', '.join(names)}.")
    for name in values:
        if name not in names:
            raise QueryError(f"{what} has no field {str(name)[:80]!r}. The fields are: {', '.join(names)}.")
    return values


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise QueryError(f"{name} must be a string.")
    if value and any("\ud800" <= letter <= "\udfff" for letter in value):  # a lone surrogate, which no page can show
        raise QueryError(f"{name} is not valid Unicode.")
    return value or None


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise QueryError(f"{name} must be true or false.")
    return value


def _example_from_json(values: object) -> Example:
    body = _object(values, "An example", ("id", "image", "box", "sign"))
    box, sign = body.get("box"), cast("Sign", body.get("sign", START))
    if type(sign) is not int or sign not in (START, LIKED, DISLIKED):
        raise QueryError("The sign of an example must be 0 to start from it, 1 for more like it, -1 for less.")
    if box is not None:
        if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
            raise QueryError("A box must be a list of four numbers: left, top, width and height, as fractions.")
        try:
            box = Box(*map(float, box))
        except OverflowError as error:
            raise QueryError("The numbers of a box must be fractions of the picture, from 0 to 1.") from error
    if ("id" in body) == ("image" in body):
        raise QueryError("An example must have either the id of a picture or an image in base64.")
    if "id" in body:
        if type(body["id"]) is not int:
            raise QueryError("The id of a picture must be a whole number from 0 up.")
        return Example(_id_of(str(body["id"])), box, sign)
    try:
        data = base64.b64decode(body["image"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        if isinstance(body["image"], str) and ADDRESS.match(body["image"]):
            Example(body["image"])  # raises the error for addresses
        raise QueryError("An image must be the bytes of its file, in base64.") from error
    return Example(data, box, sign)
