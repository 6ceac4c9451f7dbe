"""What a template needs to show one picture: no arithmetic is left for it to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT, rank_alike
from searchengine.index.types import Hit, ImageRecord
from searchengine.web.renditions import has_picture

# A picture's place in a row keeps its proportions between these; a panorama beyond them is cropped in its place.
NARROWEST, WIDEST = 0.6, 2.6
_NARROWEST_QUERY, _WIDEST_QUERY = 0.2, 5.0
_NEUTRAL = "#8a8a8a"
_COLOUR = re.compile(r"#[0-9a-f]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Card:
    """One picture on a page; ``rank`` and what follows is None where it is not an answer to a query.

    ``closeness`` is the length of the bar, 0..1. ``version`` is the start of the content hash, and part of the
    thumbnail's address, so that a changed picture has a new one. ``blank``: a row of ready-made features without a
    picture. ``anchor`` names the card on its page; ``other`` is its place on the other side of two.
    """

    id: int
    path: str
    name: str
    label: str | None
    width: int
    height: int
    ratio: float
    colour: str
    version: str | None
    blank: bool = False
    anchor: str = ""
    rank: int | None = None
    distance: float | None = None
    score: float | None = None
    closeness: float | None = None
    other: int | None = None

    @property
    def style(self) -> str:
        """The place, the tint and the bar of this card, for the one style element of a page."""
        bar = "" if self.closeness is None else f";--close:{self.closeness:.3f}"
        return f"#{self.anchor}{{--ratio:{self.ratio:.4f};--tint:{self.colour}{bar}}}"


def query_style(width: int, height: int, colour: str | None = None) -> str:
    """The place and the tint of the picture that was searched by."""
    ratio = min(max(width / height, _NARROWEST_QUERY), _WIDEST_QUERY)
    return f"#query{{--ratio:{ratio:.4f};--tint:{_safe(colour)}}}"


def card_of(record: ImageRecord) -> Card:
    """A picture of the collection, asked for by no query."""
    blank = not has_picture(record)
    width, height = record.width or (8 if blank else 4), record.height or (5 if blank else 3)
    return Card(
        id=record.id,
        path=record.path,
        name=record.path.rsplit("/", 1)[-1],
        label=record.label,
        width=width,
        height=height,
        ratio=min(max(width / height, NARROWEST), WIDEST),
        colour=_safe(record.colour),
        version=record.content_hash[:8] if record.content_hash else None,
        blank=blank,
        anchor=f"i{record.id}",
    )


def cards_of(
    hits: Sequence[Hit], records: Sequence[ImageRecord], *, normalized: bool, metric: str = EUCLIDEAN
) -> list[Card]:
    """Hits with what is known of each, in the order of the hits."""
    return [
        _ranked(card_of(record), hit, closeness)
        for hit, record, closeness in zip(
            hits, records, closeness_of(hits, normalized=normalized, metric=metric), strict=True
        )
    ]


def cosine_is_score(metric: str, *, normalized: bool) -> bool:
    """Whether a score is a cosine: it is for every metric that ranks as the cosine does."""
    return rank_alike(metric, COSINE, normalized=normalized)


def closeness_of(hits: Sequence[Hit], *, normalized: bool, metric: str = EUCLIDEAN) -> list[float]:
    """How long each bar is, 0..1.

    A cosine is its own measure. Raw distances have no natural end: there the nearest hit that is not the query itself
    fills the bar, and one twice as far fills half of it, so bars stay as they are when more hits are loaded. The
    largest of inner products fills it too, and one half as large fills half of it.
    """
    if cosine_is_score(metric, normalized=normalized):
        return [min(max(hit.score, 0.0), 1.0) for hit in hits]
    if metric == INNER_PRODUCT:
        largest = max((hit.score for hit in hits), default=0.0)
        return [min(max(hit.score / largest, 0.0), 1.0) if largest > 0 else 0.0 for hit in hits]
    nearest = min((hit.distance for hit in hits if hit.distance > 0), default=0.0)
    return [nearest / hit.distance if hit.distance > 0 else 1.0 for hit in hits]


def relative(cards: Sequence[Card]) -> list[Card]:
    """The same with bars that compare with the first: for scores that tell an order and have no natural end."""
    first = max((card.score or 0.0 for card in cards), default=0.0)
    return [
        replace(card, closeness=min(max((card.score or 0.0) / first, 0.0), 1.0) if first > 0 else 0.0) for card in cards
    ]


def _ranked(card: Card, hit: Hit, closeness: float) -> Card:
    return replace(card, rank=hit.rank, distance=hit.distance, score=hit.score, closeness=closeness)


def _safe(colour: str | None) -> str:
    """A colour that may stand in a style element as it is."""
    colour = (colour or "").lower()
    return colour if _COLOUR.fullmatch(colour) else _NEUTRAL
