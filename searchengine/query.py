"""What is asked, as one value, and how it is spelt in an address and in JSON; ``cli.search`` has the command line.

    ?id=7&box=0.1,0.2,0.5,0.5&like=12&dislike=40@0,0,0.5,1&rule=rocchio&label=dog&metric=cosine&k=30&distinct=1
    {"examples": [{"id": 7, "box": [0.1, 0.2, 0.5, 0.5]}, {"id": 12, "sign": 1}], "filter": {"label": ["dog"]}}

Every parser gives the same ``Query``, and every spelling leaves out what is the default.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, cast

from searchengine.errors import QueryError
from searchengine.index.filters import EVERYTHING, Cursor, Filter
from searchengine.index.metrics import check_metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Source: TypeAlias = "int | bytes | Path | Image | NDArray[np.uint8] | NDArray[np.float32]"

ROCCHIO: Final = "rocchio"
EXEMPLAR_SVM: Final = "exemplar-svm"
RULES: Final = (EXEMPLAR_SVM, ROCCHIO)  # of ranking by what is liked and disliked, see ``feedback``
DEFAULT_RULE: Final = EXEMPLAR_SVM  # the better one: benchmarks/feedback.py

START: Final = 0  # the signs of examples: what the search starts from, more like this, less like this
LIKED: Final = 1
DISLIKED: Final = -1
Sign = Literal[-1, 0, 1]
_ORDER: Final = {START: 0, LIKED: 1, DISLIKED: 2}

DEFAULT_K = 20
MAX_EXAMPLES = 100  # from outside; a longer address would not be taken everywhere
MAX_DECODED = 20  # of these, each of which may take a second

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_ID = 2**63 - 1
_SMALLEST = 0.01  # side of a box
_WITH_BOX = re.compile(r"(.*)@([0-9.eE+-]+(?:,[0-9.eE+-]+){3})", re.ASCII | re.DOTALL)
_ADDRESS = re.compile(r"(https?|ftp|data|file):", re.IGNORECASE)
_FLAGS = {"1": True, "true": True, "on": True, "0": False, "false": False, "": False}
_SIGNS: dict[str, Sign] = {"like": LIKED, "dislike": DISLIKED}
_JSON = ("examples", "text", "filter", "metric", "k", "cursor", "distinct", "copies", "rule")


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture: fractions of its width and height, as it is seen upright. Spelt "left,top,width,height".

    Raises:
        QueryError: it leaves the picture, or is less than a hundredth of it wide or high.
    """

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(side) for side in self.part):
            raise QueryError("A box is four numbers: left,top,width,height, as fractions of the picture.")
        if min(self.part) < 0 or max(self.left + self.width, self.top + self.height) > 1 + 1e-9:
            raise QueryError(f"The box {self} leaves the picture: its sides are fractions of it, between 0 and 1.")
        if min(self.width, self.height) < _SMALLEST:
            raise QueryError(f"The box {self} is too small: it must be {_SMALLEST} of the picture wide and high.")

    @property
    def part(self) -> tuple[float, float, float, float]:
        """The same as a tuple."""
        return self.left, self.top, self.width, self.height

    def __str__(self) -> str:
        return ",".join(repr(float(side)) for side in self.part)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it from "left,top,width,height"; QueryError."""
        try:
            left, top, width, height = (float(part) for part in text.split(",") if text.isascii())
        except ValueError as error:
            raise QueryError(
                f"{text[:80]!r} is not a box. Write it as left,top,width,height in fractions of the picture, such as "
                "0.1,0.2,0.5,0.5."
            ) from error
        return cls(left, top, width, height)


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Example:
    """A picture that is asked by.

    Attributes:
        source: the id of an image of the index, the bytes of an image file, its path, a PIL image, (h, w, 3) uint8 RGB
            pixels, or a (d,) or (1, d) float32 feature.
        box: the part of it that counts, or that a feature was made of; None for the whole.
        sign: ``START`` where the search starts from it, ``LIKED`` or ``DISLIKED``.

    Raises:
        QueryError: it is the address of a web page.
    """

    source: Source
    box: Box | None = None
    sign: Sign = START

    def __post_init__(self) -> None:
        if isinstance(self.source, str | os.PathLike):
            if _ADDRESS.match(os.fspath(self.source)):
                raise QueryError("Pictures are not fetched from other sites. Save the picture, and search by its file.")
            object.__setattr__(self, "source", Path(self.source))
        if self.box == WHOLE:
            object.__setattr__(self, "box", None)

    @property
    def id(self) -> int | None:
        """Of an image of the index."""
        return int(self.source) if isinstance(self.source, Integral) else None

    @property
    def is_feature(self) -> bool:
        """Whether it is a feature, and no picture."""
        return getattr(getattr(self.source, "dtype", None), "kind", "") == "f"

    @property
    def same_as(self) -> tuple[object, Box | None] | int:
        """Equal for two examples of the same picture, as far as that can be told without reading it."""
        return (self.source, self.box) if isinstance(self.source, Integral | bytes | Path) else id(self.source)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked.

    Attributes:
        examples: at most one to start from, and any number liked or disliked; one that is named twice counts once.
        text: words to rank by.
        filter: which images may be answered.
        metric: None for that of the index.
        k: how many hits are wanted.
        cursor: the last hit that was shown already; the answer continues after it.
        distinct: show one picture only of those that are near-duplicates.
        copies: show files of the same content one by one; else one stands for all.
        rule: one of ``RULES``, by which likes and dislikes rank; None for the default.

    Raises:
        QueryError: it contradicts itself.
        UnknownNameError: there is no such metric.
    """

    examples: tuple[Example, ...] = ()
    text: str | None = None
    filter: Filter = EVERYTHING
    metric: str | None = None
    k: int = DEFAULT_K
    cursor: Cursor | None = None
    distinct: bool = False
    copies: bool = False
    rule: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, Integral) or self.k < 1:
            raise QueryError(f"k must be a whole number of at least 1, not {self.k!r}.")
        if self.metric is not None:
            check_metric(self.metric)
        if self.rule is not None and self.rule not in RULES:
            raise QueryError(f"There is no rule “{self.rule}”. There are: {', '.join(RULES)}.")
        first: dict[object, Example] = {}
        for example in sorted(self.examples, key=lambda example: _ORDER[example.sign]):
            other = first.setdefault(example.same_as, example)
            if other is not example and DISLIKED in (example.sign, other.sign) and example.sign != other.sign:
                if START in (example.sign, other.sign):
                    raise QueryError("The picture that is searched by cannot be disliked too. Search by another one.")
                name = f"Picture {example.id}" if example.id is not None else "A picture"
                raise QueryError(f"{name} is both liked and disliked. Leave one of the two out.")
        if sum(example.sign == START for example in first.values()) > 1:
            raise QueryError("Search by one picture at a time; name the others as liked.")
        object.__setattr__(self, "examples", tuple(first.values()))
        if self.rule == DEFAULT_RULE or not self.judged:
            object.__setattr__(self, "rule", None)
        object.__setattr__(self, "text", (self.text or "").strip() or None)

    @classmethod
    def of(
        cls,
        start: Source | str | None = None,
        *,
        liked: Iterable[Source | str] = (),
        disliked: Iterable[Source | str] = (),
        **rest: Any,
    ) -> Self:
        """A query by pictures: ``Query.of("beach.jpg", liked=[12], disliked=[40], k=5)``."""
        examples = [] if start is None else [Example(start)]  # type: ignore[arg-type]
        examples += [Example(source, sign=LIKED) for source in liked]  # type: ignore[arg-type]
        examples += [Example(source, sign=DISLIKED) for source in disliked]  # type: ignore[arg-type]
        return cls(tuple(examples), **rest)

    # -- its examples -----------------------------------------------------------------------------------------------

    @property
    def start(self) -> Example | None:
        """The example that the search starts from."""
        return next((example for example in self.examples if example.sign == START), None)

    @property
    def judged(self) -> tuple[Example, ...]:
        """The examples that are liked or disliked, first the liked ones."""
        return tuple(example for example in self.examples if example.sign != START)

    @property
    def liked(self) -> tuple[Example, ...]:
        """More like these."""
        return tuple(example for example in self.examples if example.sign == LIKED)

    @property
    def disliked(self) -> tuple[Example, ...]:
        """Less like these."""
        return tuple(example for example in self.examples if example.sign == DISLIKED)

    @property
    def rule_used(self) -> str:
        """The rule by which likes and dislikes rank."""
        return self.rule or DEFAULT_RULE

    def judging(self, image_id: int, sign: Sign) -> Self:
        """The query in which one image is liked or disliked, whatever it was before, from the first hit on."""
        examples = (*self.without(image_id).examples, Example(image_id, sign=sign))
        return replace(self, examples=examples, cursor=None)

    def without(self, image_id: int) -> Self:
        """The query in which the judgement of one image is taken back."""
        return self.among(lambda example: example.id != image_id)

    def without_judgements(self) -> Self:
        """The query in which nothing is liked or disliked."""
        return self.among(lambda example: False)

    def among(self, keep: Any) -> Self:
        """The query with those judgements only for which ``keep(example)`` holds."""
        kept = tuple(example for example in self.examples if example.sign == START or keep(example))
        return replace(self, examples=kept, cursor=None if len(kept) < len(self.examples) else self.cursor)

    def in_words(self) -> str:
        """What is liked and disliked, e.g. "2 liked, 1 disliked"."""
        counts = ((len(self.liked), "liked"), (len(self.disliked), "disliked"))
        return ", ".join(f"{count} {word}" for count, word in counts if count)

    # -- in an address ----------------------------------------------------------------------------------------------

    @classmethod
    def from_url(
        cls,
        values: Mapping[str, Sequence[str]],
        *,
        upload: Source | None = None,
        default_k: int = DEFAULT_K,
        max_k: int | None = None,
    ) -> Self:
        """Read it from the fields of an address or a form, each with its texts; other fields are ignored.

        Args:
            values: the texts of each field.
            upload: the picture that came with a form, to start from.
            default_k: where no ``k`` is given.
            max_k: the largest ``k`` that is allowed.

        Raises:
            QueryError, UnknownNameError
        """

        def last(name: str) -> str:
            return values[name][-1] if values.get(name) else ""

        examples = []
        box = Box.parse(last("box")) if last("box") else None
        if upload is not None:
            examples.append(Example(upload, box))
        elif values.get("id"):
            examples.append(Example(_id_of(last("id")), box))
        elif box is not None:
            raise QueryError("A box without a picture. Name the picture that it is a part of, as in /search?id=7.")
        for name, sign in _SIGNS.items():
            for text in values.get(name, ()):
                source, part = split_box(text)
                if parse_id(source) is None:
                    raise QueryError("A liked or disliked picture is named by its id, a whole number.")
                examples.append(Example(int(source), part, sign))
        return cls(
            examples=_few(examples),
            text=last("q"),
            filter=Filter.from_fields(values),
            metric=last("metric") or None,
            k=parse_k(last("k"), default_k, max_k),
            cursor=Cursor.parse(last("cursor")) if last("cursor") else None,
            distinct=_flag(last("distinct"), "distinct"),
            copies=_flag(last("copies"), "copies"),
            rule=last("rule") or None,
        )

    def to_url(self, *, default_k: int = DEFAULT_K) -> dict[str, list[str]]:
        """The fields of an address; an upload has none, its box has."""
        start = self.start
        fields = {
            "id": None if start is None or start.id is None else start.id,
            "box": None if start is None else start.box,
            "q": self.text,
            **self.filter.to_fields(),
            "k": None if self.k == default_k else self.k,
            "metric": self.metric,
            "like": [with_box(str(example.id), example.box) for example in self.liked if example.id is not None],
            "dislike": [with_box(str(example.id), example.box) for example in self.disliked if example.id is not None],
            "rule": self.rule,
            "cursor": self.cursor,
            "distinct": 1 if self.distinct else None,
            "copies": 1 if self.copies else None,
        }
        return {
            name: value if isinstance(value, list) else [str(value)]
            for name, value in fields.items()
            if value not in (None, [])
        }

    # -- in JSON ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, values: object, *, default_k: int = DEFAULT_K, max_k: int | None = None) -> Self:
        """Read it from an object of JSON. A picture is named by its ``id``, or comes as ``image``, in base64.

        Raises:
            QueryError, UnknownNameError
        """
        body = _object(values, "A query", _JSON)
        examples = body.get("examples", [])
        if not isinstance(examples, list):
            raise QueryError("examples must be a list.")
        k = body.get("k", default_k)
        return cls(
            examples=_few([_example_of(example) for example in examples]),
            text=_text(body, "text"),
            filter=Filter.from_json(body.get("filter", {})),
            metric=_text(body, "metric"),
            k=parse_k(str(k) if type(k) is int else "x", default_k, max_k),
            cursor=Cursor.parse(cursor) if (cursor := _text(body, "cursor")) else None,
            distinct=_truth(body, "distinct"),
            copies=_truth(body, "copies"),
            rule=_text(body, "rule"),
        )

    def to_json(self, *, default_k: int = DEFAULT_K) -> dict[str, Any]:
        """An object for JSON; QueryError where an example is neither an id nor the bytes of a file."""
        fields = {
            "examples": [_to_json(example) for example in self.examples],
            "text": self.text,
            "filter": self.filter.to_json(),
            "metric": self.metric,
            "k": None if self.k == default_k else self.k,
            "cursor": None if self.cursor is None else str(self.cursor),
            "distinct": self.distinct or None,
            "copies": self.copies or None,
            "rule": self.rule,
        }
        return {name: value for name, value in fields.items() if value not in (None, [], {})}


# -- parts of a spelling ----------------------------------------------------------------------------------------------


def parse_id(text: str | None) -> int | None:
    """A decimal integer, 0 <= id < 2^63; None where the text is not one."""
    if text is None or _WHOLE_NUMBER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def parse_k(text: str | None, default: int, most: int | None = None) -> int:
    """How many images are wanted, at least 1; QueryError."""
    if not text:
        return default
    number = parse_id(text)
    if not number or (most is not None and number > most):
        between = "of at least 1" if most is None else f"from 1 to {most}"
        raise QueryError(f"The number of pictures must be a whole number {between}.")
    return number


def with_box(source: str, box: Box | None) -> str:
    """A liked or disliked picture and its box: "12@0.1,0.2,0.5,0.5"."""
    if box is None:
        return f"{source}@{WHOLE}" if _WITH_BOX.fullmatch(source) else source
    return f"{source}@{box}"


def split_box(text: str) -> tuple[str, Box | None]:
    """A picture and its box, of "12@0.1,0.2,0.5,0.5"; a name with another @ stays whole. QueryError."""
    match = _WITH_BOX.fullmatch(text)
    return (match[1], Box.parse(match[2])) if match else (text, None)


def _id_of(text: str) -> int:
    image_id = parse_id(text)
    if image_id is None:
        if _ADDRESS.match(text):
            Example(text)  # type: ignore[arg-type]  # says that it is not fetched
        raise QueryError("The id of a picture must be a whole number from 0 up, as in /search?id=7.")
    return image_id


def _few(examples: list[Example]) -> tuple[Example, ...]:
    if sum(example.sign != START for example in examples) > MAX_EXAMPLES:
        raise QueryError(f"At most {MAX_EXAMPLES} pictures can be liked and disliked in one search. Take some back.")
    if sum(example.id is None or example.box is not None for example in examples) > MAX_DECODED:
        raise QueryError(f"At most {MAX_DECODED} uploads and parts of pictures can be searched by at a time.")
    return tuple(examples)


def _flag(text: str, name: str) -> bool:
    if text.lower() not in _FLAGS:
        raise QueryError(f"{name} is 1 or 0, not {text[:80]!r}.")
    return _FLAGS[text.lower()]


def _object(values: object, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise QueryError(f"{what} is an object with some of {', '.join(names)}.")
    for name in values:
        if name not in names:
            raise QueryError(f"{what} has no {str(name)[:80]!r}. There are: {', '.join(names)}.")
    return values


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise QueryError(f"{name} must be a text.")
    if value and any("\ud800" <= letter <= "\udfff" for letter in value):  # half a character, which no page can show
        raise QueryError(f"{name} is not valid Unicode.")
    return value or None


def _truth(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise QueryError(f"{name} must be true or false.")
    return value


def _example_of(values: object) -> Example:
    body = _object(values, "An example", ("id", "image", "box", "sign"))
    box, sign = body.get("box"), cast("Sign", body.get("sign", START))
    if type(sign) is not int or sign not in (START, LIKED, DISLIKED):
        raise QueryError("The sign of an example is 0 to start from it, 1 for more like it, -1 for less like it.")
    if box is not None:
        if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
            raise QueryError("A box is a list of four numbers: left, top, width and height, as fractions.")
        try:
            box = Box(*map(float, box))
        except OverflowError as error:
            raise QueryError("The sides of a box are fractions of the picture, between 0 and 1.") from error
    if ("id" in body) == ("image" in body):
        raise QueryError("An example is either the id of a picture or an image, in base64.")
    if "id" in body:
        if type(body["id"]) is not int:
            raise QueryError("The id of a picture must be a whole number from 0 up.")
        return Example(_id_of(str(body["id"])), box, sign)
    try:
        data = base64.b64decode(body["image"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        if isinstance(body["image"], str) and _ADDRESS.match(body["image"]):
            Example(body["image"])  # says that it is not fetched
        raise QueryError("An image must be the bytes of its file, in base64.") from error
    return Example(data, box, sign)


def _to_json(example: Example) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if example.id is not None:
        values["id"] = example.id
    elif isinstance(example.source, bytes):
        values["image"] = base64.b64encode(example.source).decode("ascii")
    else:
        raise QueryError("Only ids and the bytes of image files can be spelt in JSON.")
    if example.box is not None:
        values["box"] = list(example.box.part)
    if example.sign != START:
        values["sign"] = example.sign
    return values
