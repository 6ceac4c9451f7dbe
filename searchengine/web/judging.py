"""Liked and disliked pictures of a search: they stand in the address, and change the ranking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from searchengine.feedback import DEFAULT_RULE, EXEMPLAR_SVM, ROCCHIO, RULES, rule_title
from searchengine.web.incoming import RequestError, parse_id

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict

MOST = 100  # pictures; an address has room for no more
LIKE, DISLIKE = "like", "dislike"
_NOTES = {
    ROCCHIO: "Rocchio's rule moves the query towards the mean of what is liked and away from that of what is disliked.",
    EXEMPLAR_SVM: "The exemplar SVM, a linear support vector machine, parts the query and what is liked from what is "
    "disliked and from pictures drawn at random.",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What is liked and disliked, in the order in which it was said; ``rule`` is None for the usual one.

    False where nothing was judged.
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
    def values(self) -> dict[str, Any]:
        """As an address has them."""
        return {LIKE: list(self.liked), DISLIKE: list(self.disliked), "rule": self.rule if self else None}

    def without(self, image_id: int) -> Judged:
        """One taken back."""
        return replace(
            self,
            liked=tuple(id_ for id_ in self.liked if id_ != image_id),
            disliked=tuple(id_ for id_ in self.disliked if id_ != image_id),
        )

    def liking(self, image_id: int) -> Judged:
        """One liked, whatever was said of it before."""
        rest = self.without(image_id)
        return replace(rest, liked=(*rest.liked, image_id))

    def disliking(self, image_id: int) -> Judged:
        """One disliked, whatever was said of it before."""
        rest = self.without(image_id)
        return replace(rest, disliked=(*rest.disliked, image_id))

    def only(self, image_ids: Iterable[int]) -> Judged:
        """Those among ``image_ids``."""
        there = set(image_ids)
        return replace(
            self,
            liked=tuple(id_ for id_ in self.liked if id_ in there),
            disliked=tuple(id_ for id_ in self.disliked if id_ in there),
        )

    def in_words(self) -> str:
        """E.g. "2 liked, 1 disliked"."""
        counts = ((len(self.liked), "liked"), (len(self.disliked), "disliked"))
        return ", ".join(f"{count} {word}" for count, word in counts if count)


def parse_judged(given: MultiDict[str, str], query_id: int | None = None) -> Judged:
    """``like``, ``dislike`` (each may come several times) and ``rule`` of a request.

    The picture searched by counts as liked anyway. Raises RequestError for ids that are none, too many of them, one
    that is both liked and disliked, and a rule that there is not.
    """
    liked, disliked = _ids(given.getlist(LIKE)), _ids(given.getlist(DISLIKE))
    if len(liked) + len(disliked) > MOST:
        raise RequestError(f"At most {MOST} pictures can be liked and disliked in one search. Take some back.")
    if query_id in disliked:
        raise RequestError("The picture that is searched by cannot be disliked too. Search by another one.")
    both = set(liked) & set(disliked)
    if both:
        raise RequestError(f"Picture {min(both)} is both liked and disliked. Leave one of the two out.")
    rule = given.get("rule") or None
    if rule is not None and rule not in RULES:
        raise RequestError(f"There is no rule “{rule}” here. There are: {', '.join(RULES)}.")
    return Judged(tuple(id_ for id_ in liked if id_ != query_id), disliked, None if rule == DEFAULT_RULE else rule)


def rules() -> list[tuple[str | None, str]]:
    """Every rule with its title; the usual one is None, as addresses leave it out."""
    return [(None if rule == DEFAULT_RULE else rule, rule_title(rule)) for rule in RULES]


def rule_note(rule: str) -> str:
    """What a rule does, for those who want to know."""
    return _NOTES[rule]


def _ids(texts: Iterable[str]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for text in texts:
        number = parse_id(text)
        if number is None:
            raise RequestError("A liked or disliked picture is named by its id, a whole number from 1 up.")
        found[number] = None
    return tuple(found)
