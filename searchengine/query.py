"""A query as one value: examples (or parts of them), words, a filter, a metric and a cursor.

``spelling`` converts queries from and to addresses and JSON; ``cli.search`` reads them from the command line.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

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
RULES: Final = (EXEMPLAR_SVM, ROCCHIO)  # for ranking by likes and dislikes, see ``feedback``
DEFAULT_RULE: Final = EXEMPLAR_SVM  # the better of the two: benchmarks/feedback.py

START: Final = 0  # the signs of examples: the starting point, more like this, less like this
LIKED: Final = 1
DISLIKED: Final = -1
Sign = Literal[-1, 0, 1]
_ORDER: Final = {START: 0, LIKED: 1, DISLIKED: 2}

DEFAULT_K = 20

_MIN_SIDE = 0.01  # of a box, as a fraction of the picture
_NOT_FETCHED = "That is a web address. Pictures are not fetched from other sites: save it, and search by its file."
ADDRESS = re.compile(r"(https?|ftp|data|file):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture, as fractions of its upright width and height. Written as "left,top,width,height".

    Raises:
        QueryError: the box extends beyond the picture, or is narrower or lower than a hundredth of it.
    """

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(side) for side in self.part):
            raise QueryError("A box is four numbers: left,top,width,height, as fractions of the picture.")
        if min(self.part) < 0 or max(self.left + self.width, self.top + self.height) > 1 + 1e-9:
            raise QueryError(f"The box {self} extends beyond the picture. Give fractions of the picture, from 0 to 1.")
        if min(self.width, self.height) < _MIN_SIDE:
            raise QueryError(f"The box {self} is too small. Its width and height must be at least {_MIN_SIDE}.")

    @property
    def part(self) -> tuple[float, float, float, float]:
        """Left, top, width and height as a tuple."""
        return self.left, self.top, self.width, self.height

    def __str__(self) -> str:
        return ",".join(repr(float(side)) for side in self.part)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "left,top,width,height"; QueryError if that is not a box."""
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
    """A picture to search by.

    Attributes:
        source: the id of an image of the index, the bytes of an image file, its path, a PIL image, (h, w, 3) uint8 RGB
            pixels, or a (d,) or (1, d) float32 feature.
        box: the part of the picture to search by, or that a feature was computed from; None for all of it.
        sign: ``START`` for the starting point of the search, ``LIKED`` or ``DISLIKED``.

    Raises:
        QueryError: the source is a web address.
    """

    source: Source
    box: Box | None = None
    sign: Sign = START

    def __post_init__(self) -> None:
        if isinstance(self.source, str | os.PathLike):
            if ADDRESS.match(os.fspath(self.source)):
                raise QueryError(_NOT_FETCHED)
            object.__setattr__(self, "source", Path(self.source))
        if self.box == WHOLE:
            object.__setattr__(self, "box", None)

    @property
    def id(self) -> int | None:
        """The id, if the example is an image of the index."""
        return int(self.source) if isinstance(self.source, Integral) else None

    @property
    def is_feature(self) -> bool:
        """Whether the source is a feature rather than a picture."""
        return getattr(getattr(self.source, "dtype", None), "kind", "") == "f"

    @property
    def identity(self) -> tuple[object, Box | None] | int:
        """Equal for examples of the same picture, as far as can be told without reading it."""
        return (self.source, self.box) if isinstance(self.source, Integral | bytes | Path) else id(self.source)


@dataclass(frozen=True, slots=True)
class Query:
    """A search request.

    Attributes:
        examples: at most one to start from, and any number liked or disliked; duplicates count once.
        text: words to rank by.
        filter: which images may be found.
        metric: None for the metric of the index.
        k: the number of hits wanted.
        cursor: the last hit shown; the results continue after it.
        distinct: show only one of several near-duplicates.
        copies: show files with the same content separately; by default, one stands for all.
        rule: one of ``RULES``, how likes and dislikes rank; None for the default.

    Raises:
        QueryError: parts of the query contradict each other.
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
            other = first.setdefault(example.identity, example)
            if other is not example and DISLIKED in (example.sign, other.sign) and example.sign != other.sign:
                if START in (example.sign, other.sign):
                    raise QueryError("The picture you search by cannot be disliked too. Search by another one.")
                name = f"Picture {example.id}" if example.id is not None else "A picture"
                raise QueryError(f"{name} is both liked and disliked. Remove one of the two.")
        if sum(example.sign == START for example in first.values()) > 1:
            raise QueryError("Search by one picture at a time, and add the others as liked.")
        object.__setattr__(self, "examples", tuple(first.values()))
        if self.rule == DEFAULT_RULE or not self.judged:
            object.__setattr__(self, "rule", None)
        object.__setattr__(self, "text", (self.text or "").strip() or None)
        if self.text and ADDRESS.match(self.text) and not re.search(r"\s", self.text):
            raise QueryError(_NOT_FETCHED)

    @classmethod
    def of(
        cls,
        start: Source | str | None = None,
        *,
        liked: Iterable[Source | str] = (),
        disliked: Iterable[Source | str] = (),
        **rest: Any,
    ) -> Self:
        """Make a query from pictures: ``Query.of("beach.jpg", liked=[12], disliked=[40], k=5)``."""
        examples = [] if start is None else [Example(start)]  # type: ignore[arg-type]
        examples += [Example(source, sign=LIKED) for source in liked]  # type: ignore[arg-type]
        examples += [Example(source, sign=DISLIKED) for source in disliked]  # type: ignore[arg-type]
        return cls(tuple(examples), **rest)

    # -- examples ---------------------------------------------------------------------------------------------------

    @property
    def start(self) -> Example | None:
        """The example to start from, if any."""
        return next((example for example in self.examples if example.sign == START), None)

    @property
    def judged(self) -> tuple[Example, ...]:
        """The liked examples, then the disliked ones."""
        return tuple(example for example in self.examples if example.sign != START)

    @property
    def liked(self) -> tuple[Example, ...]:
        """The examples to find more of."""
        return tuple(example for example in self.examples if example.sign == LIKED)

    @property
    def disliked(self) -> tuple[Example, ...]:
        """The examples to find less of."""
        return tuple(example for example in self.examples if example.sign == DISLIKED)

    @property
    def rule_used(self) -> str:
        """The rule by which likes and dislikes rank, the default included."""
        return self.rule or DEFAULT_RULE

    def judging(self, image_id: int, sign: Sign) -> Self:
        """Return this query, from its first hit, with one image liked or disliked, whatever it was before."""
        examples = (*self.without(image_id).examples, Example(image_id, sign=sign))
        return replace(self, examples=examples, cursor=None)

    def without(self, image_id: int) -> Self:
        """Return this query without the like or dislike of one image."""
        return self.keeping(lambda example: example.id != image_id)

    def without_start(self) -> Self:
        """Return this query without a picture to start from."""
        return replace(self, examples=self.judged, cursor=None)

    def without_judgements(self) -> Self:
        """Return this query without likes and dislikes."""
        return self.keeping(lambda example: False)

    def keeping(self, keep: Callable[[Example], bool]) -> Self:
        """Return this query with only the likes and dislikes for which ``keep(example)`` is true."""
        kept = tuple(example for example in self.examples if example.sign == START or keep(example))
        return replace(self, examples=kept, cursor=None if len(kept) < len(self.examples) else self.cursor)

    def in_words(self) -> str:
        """Summarise the likes and dislikes, as in "2 liked, 1 disliked"."""
        counts = ((len(self.liked), "liked"), (len(self.disliked), "disliked"))
        return ", ".join(f"{count} {word}" for count, word in counts if count)
