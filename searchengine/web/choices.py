"""The choices that a page offers: another index, metric or rule, two side by side, likes; each is an address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from searchengine.index.metrics import rank_alike
from searchengine.index.types import ImageRecord
from searchengine.web.cards import Card
from searchengine.web.judging import DISLIKE, LIKE, Judged, rules
from searchengine.web.likeness import metric_groups, short_title
from searchengine.web.served import Collection, Collections, address_in

Values = dict[str, Any]
Address = Callable[[Judged], tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several.

    ``href`` is where a link leads; ``again``, on the results of an uploaded picture, where scripts send it again, since
    the server has not kept it.
    """

    title: str
    href: str
    current: bool
    again: str | None = None
    note: str | None = None


def index_choices(
    here: Collection,
    collections: Collections,
    *,
    current: bool = True,
    record: ImageRecord | None = None,
    uploaded: bool = False,
    **values: Any,
) -> list[Choice]:
    """Every index, with the same query where it can be asked there; none where there is but one."""
    if len(collections.all) == 1:
        return []
    choices = []
    for one in collections.all:
        image_id = None if record is None else record.id if one is here else one.engine.find(record)
        again = None
        if image_id is not None:
            href = address_in(one, here, "pages.search", id=image_id, **values)
        else:
            href = address_in(one, here, "pages.home")
        if uploaded and one.takes_pictures:
            again = address_in(one, here, "pages.search_upload", **values)
        note = one.engine.extractor_title
        if (record is not None and image_id is None) or (uploaded and again is None):
            note += ". It cannot be asked for this picture: the link leads to its first page"
        choices.append(Choice(one.name, href, current and one is here, again, note))
    return choices


def metric_choices(
    here: Collection, chosen: str, address: Callable[[str | None], tuple[str, str | None]]
) -> list[list[Choice]]:
    """Every metric, those that rank alike together; ``address`` gives the addresses of one (None: the index's own)."""
    engine = here.engine
    groups = []
    for group in metric_groups(normalized=engine.normalized):
        choices = []
        for metric in group:
            href, again = address(None if metric == engine.metric else metric)
            choices.append(Choice(short_title(metric), href, metric == chosen, again))
        groups.append(choices)
    return groups


@dataclass(frozen=True, slots=True)
class Chosen:
    """A picture that was liked or disliked."""

    card: Card
    liked: bool


class Judging:
    """What can be said of the pictures of these results; each is a choice that leads to another ranking.

    An address is built once for all pictures that are liked, and once for those that are disliked: there are hundreds
    on a page. No image has the id 0, which stands in them for each.
    """

    def __init__(self, judged: Judged, address: Address) -> None:
        self._judged = judged
        self._address = address
        self._like = self._choice("More like this", judged.liking(0))
        self._dislike = self._choice("Less like this", judged.disliking(0))

    def like(self, image_id: int) -> Choice:
        """More like it, where nothing was said of it yet."""
        return _of(self._like, LIKE, image_id)

    def dislike(self, image_id: int) -> Choice:
        """Less like it, where nothing was said of it yet."""
        return _of(self._dislike, DISLIKE, image_id)

    def take_back(self, image_id: int) -> Choice:
        """As if nothing had been said of it."""
        return self._choice("Take back", self._judged.without(image_id))

    def clear(self) -> Choice:
        """As if nothing had been said."""
        return self._choice("Take all back", Judged())

    def _choice(self, title: str, judged: Judged) -> Choice:
        href, again = self._address(judged)
        return Choice(title, href, current=False, again=again)


def _of(choice: Choice, word: str, image_id: int) -> Choice:
    """The same for an image in place of the image 0."""
    none, one = f"{word}=0", f"{word}={image_id}"
    again = None if choice.again is None else choice.again.replace(none, one)
    return Choice(choice.title, choice.href.replace(none, one), choice.current, again)


def rule_choices(judged: Judged, address: Address) -> list[Choice]:
    """Every rule that likes can rank by; none where nothing is judged."""
    if not judged:
        return []
    choices = []
    for rule, title in rules():
        href, again = address(replace(judged, rule=rule))
        choices.append(Choice(title, href, rule == judged.rule, again))
    return choices


def other_side(here: Collection, collections: Collections, metric: str) -> tuple[Collection, str]:
    """What stands beside an index at first: the next one, or itself by a metric that ranks otherwise."""
    other = collections.after(here)
    if other is not here:
        return other, other.engine.metric
    normalized = here.engine.normalized
    groups: Sequence[Sequence[str]] = metric_groups(normalized=normalized)
    return here, next(group[0] for group in groups if not rank_alike(group[0], metric, normalized=normalized))
