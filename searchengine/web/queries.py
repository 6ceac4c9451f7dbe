"""The parts of a query as a request spells them: ids, k, metric, and the images liked and disliked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import request

from searchengine.errors import SearchEngineError, UnknownNameError
from searchengine.feedback import DEFAULT_RULE, EXEMPLAR_SVM, ROCCHIO, RULES, rule_title
from searchengine.index.metrics import check_metric
from searchengine.settings import MAX_K

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict

MAX_EXAMPLES = 100  # liked and disliked; a longer address would not be taken everywhere
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_ID = 2**63 - 1
_RULE_NOTES = {
    ROCCHIO: "Rocchio's rule moves the query towards the mean of what is liked and away from that of what is disliked.",
    EXEMPLAR_SVM: "The exemplar SVM, a linear support vector machine, parts the query and what is liked from what is "
    "disliked and from pictures drawn at random.",
}


class RequestError(SearchEngineError):
    """A request that cannot be answered as it stands, with the HTTP status of the answer."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = int(status)


def wants_json() -> bool:
    """Whether the client prefers JSON to a page. A browser, and a client that takes anything, gets the page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


def parse_id(text: str | None) -> int | None:
    """A decimal integer, 0 <= id < 2^63; None where the text is not one."""
    if text is None or _WHOLE_NUMBER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def parse_k(text: str | None, default: int) -> int:
    """How many images are wanted, 1..500; RequestError."""
    if text is None or text == "":
        return default
    number = parse_id(text)
    if not number or number > MAX_K:
        raise RequestError(f"The number of pictures must be a whole number from 1 to {MAX_K}.")
    return number


def parse_metric(text: str | None) -> str | None:
    """The name of a metric, None where none is given; RequestError."""
    if not text:
        return None
    try:
        return check_metric(text)
    except UnknownNameError as error:
        raise RequestError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Feedback:
    """The images liked and disliked, in the order in which they were judged; False where there are none.

    ``rule`` is the rule to rank by; None is the default one.
    """

    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    rule: str | None = None

    def __bool__(self) -> bool:
        return bool(self.liked or self.disliked)

    @property
    def rule_used(self) -> str:
        """The rule that ranks."""
        return self.rule or DEFAULT_RULE

    @property
    def url_values(self) -> dict[str, Any]:
        """The arguments of ``url_for`` that spell it."""
        return {"like": list(self.liked), "dislike": list(self.disliked), "rule": self.rule if self else None}

    def without(self, image_id: int) -> Feedback:
        """With the judgement of one image taken back."""
        return replace(
            self,
            liked=tuple(id_ for id_ in self.liked if id_ != image_id),
            disliked=tuple(id_ for id_ in self.disliked if id_ != image_id),
        )

    def liking(self, image_id: int) -> Feedback:
        """With one image liked, whatever it was before."""
        rest = self.without(image_id)
        return replace(rest, liked=(*rest.liked, image_id))

    def disliking(self, image_id: int) -> Feedback:
        """With one image disliked, whatever it was before."""
        rest = self.without(image_id)
        return replace(rest, disliked=(*rest.disliked, image_id))

    def among(self, image_ids: Iterable[int]) -> Feedback:
        """Only the judgements of these images."""
        ids = set(image_ids)
        return replace(
            self,
            liked=tuple(id_ for id_ in self.liked if id_ in ids),
            disliked=tuple(id_ for id_ in self.disliked if id_ in ids),
        )

    def in_words(self) -> str:
        """E.g. "2 liked, 1 disliked"."""
        counts = ((len(self.liked), "liked"), (len(self.disliked), "disliked"))
        return ", ".join(f"{count} {word}" for count, word in counts if count)


def parse_feedback(values: MultiDict[str, str], query_id: int | None = None) -> Feedback:
    """The ``like``, ``dislike`` (each may be repeated) and ``rule`` of a request.

    The image searched by counts as liked anyway. Raises RequestError for a malformed id, too many ids, an image that is
    both liked and disliked, and an unknown rule.
    """
    liked, disliked = _parse_ids(values.getlist("like")), _parse_ids(values.getlist("dislike"))
    if len(liked) + len(disliked) > MAX_EXAMPLES:
        raise RequestError(f"At most {MAX_EXAMPLES} pictures can be liked and disliked in one search. Take some back.")
    if query_id in disliked:
        raise RequestError("The picture that is searched by cannot be disliked too. Search by another one.")
    both = set(liked) & set(disliked)
    if both:
        raise RequestError(f"Picture {min(both)} is both liked and disliked. Leave one of the two out.")
    rule = values.get("rule") or None
    if rule is not None and rule not in RULES:
        raise RequestError(f"There is no rule “{rule}” here. There are: {', '.join(RULES)}.")
    return Feedback(tuple(id_ for id_ in liked if id_ != query_id), disliked, None if rule == DEFAULT_RULE else rule)


def rules() -> list[tuple[str | None, str]]:
    """Every rule with its title. The default rule is None: addresses leave it out."""
    return [(None if rule == DEFAULT_RULE else rule, rule_title(rule)) for rule in RULES]


def rule_note(rule: str) -> str:
    """What a rule does, in a sentence."""
    return _RULE_NOTES[rule]


def _parse_ids(texts: Iterable[str]) -> tuple[int, ...]:
    ids: dict[int, None] = {}  # each once, in order
    for text in texts:
        image_id = parse_id(text)
        if image_id is None:
            raise RequestError("A liked or disliked picture is named by its id, a whole number.")
        ids[image_id] = None
    return tuple(ids)
