"""What a template needs to show one image: no arithmetic is left for it to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote

from searchengine.index.metrics import COSINE, rank_alike
from searchengine.index.types import Hit, ImageRecord
from searchengine.web.engines import ServedEngine
from searchengine.web.indexes import this_engine, url_in

# Width / height of a tile is kept between these; beyond them, the image is shown whole within its tile.
_NARROWEST, _WIDEST = 0.6, 2.6
_SMALL = 200  # px; an image smaller than this is not blown up
_GREY = "#8a8a8a"
ANY_ID = 10**20  # stands for the id while an address is built for every image of a page; no image has it
_COLOUR = re.compile(r"#[0-9a-f]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Card:
    """One image on a page; ``rank`` and what follows is None where it does not answer a query.

    ``alike`` is its score as a share, 0..1: None where scores only tell an order. ``version`` is the start of the
    content hash, and part of the thumbnail's address, so that a changed image has a new one. ``blank``: a row of
    imported features without an image. ``whole``: its shape does not fill its tile; ``small``: its size does not.
    ``anchor`` is the card's id on its page; ``other`` is its rank on the other of two sides; ``copies`` is how many
    other images it stands for.
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
    whole: bool = False
    small: bool = False
    anchor: str = ""
    rank: int | None = None
    distance: float | None = None
    score: float | None = None
    alike: float | None = None
    other: int | None = None
    copies: int = 0

    @property
    def style(self) -> str:
        """The proportions and the tint of this card, for the style element of its page."""
        return f"#{self.anchor}{{--ratio:{self.ratio:.4f};--tint:{self.colour}}}"


def card_of(record: ImageRecord, hit: Hit | None = None, *, as_share: bool = False) -> Card:
    """An image of the collection; as an answer to a query, it comes with its hit, whose score may be a share."""
    blank = not record.has_picture
    width, height = record.width or (8 if blank else 4), record.height or (5 if blank else 3)
    ratio = min(max(width / height, _NARROWEST), _WIDEST)
    return Card(
        id=record.id,
        path=record.path,
        name=record.path.rsplit("/", 1)[-1],
        label=record.label,
        width=width,
        height=height,
        ratio=ratio,
        colour=_safe(record.colour),
        version=record.content_hash[:8] if record.content_hash else None,
        blank=blank,
        whole=not blank and ratio != width / height,
        small=not blank and max(width, height) < _SMALL,
        anchor=f"i{record.id}",
        rank=None if hit is None else hit.rank,
        distance=None if hit is None else hit.distance,
        score=None if hit is None else hit.score,
        alike=min(max(hit.score, 0.0), 1.0) if hit is not None and as_share else None,
        copies=0 if hit is None else hit.stands_for - 1,
    )


def cards_of(hits: Sequence[Hit], *, as_shares: bool) -> list[Card]:
    """The images of a ranking, in its order; ``as_shares``: their scores are cosines, which compare everywhere."""
    return [card_of(hit.record, hit, as_share=as_shares) for hit in hits]


def cosine_is_score(metric: str, *, normalized: bool) -> bool:
    """Whether a score is a cosine: it is for every metric that ranks as the cosine does."""
    return rank_alike(metric, COSINE, normalized=normalized)


def spaced(name: str) -> str:
    """``car_side`` as "car side", for reading only."""
    return name.replace("_", " ")


def _safe(colour: str | None) -> str:
    """A colour that may stand in a style element as it is."""
    colour = (colour or "").lower()
    return colour if _COLOUR.fullmatch(colour) else _GREY


class CardUrls:
    """The addresses of the images on a page, which differ in the id only: each kind is built once for hundreds."""

    def __init__(self, engine: ServedEngine | None, endpoint: str, values: Mapping[str, Any]) -> None:
        """Of the images of one index (None: this one); ``endpoint`` searches by one, with ``values`` besides its id."""
        self._index = (engine or this_engine()).index
        self._url = partial(url_in, engine)
        self._endpoint = endpoint
        self._values = values

    @property
    def labels_differ(self) -> bool:
        """Whether labels say anything: where all images lie in one folder, that is the label of all of them."""
        return len(self._index.facets().label) != 1

    @cached_property
    def search(self) -> Callable[[int], str]:
        """The search by an image."""
        return url_by_id(self._url(self._endpoint, id=ANY_ID, **self._values))

    def thumbnail(self, image_id: int, version: str | None) -> str:
        """The thumbnail of that version."""
        return _versioned(self._thumbnail(image_id), version)

    @cached_property
    def _thumbnail(self) -> Callable[[int], str]:
        return url_by_id(self._url("images.thumbnail", image_id=ANY_ID))


def thumbnail_url(card: Card) -> str:
    """The thumbnail of one image of this index."""
    return _versioned(url_in(None, "images.thumbnail", image_id=card.id), card.version)


def _versioned(url: str, version: str | None) -> str:
    return url if version is None else f"{url}?v={quote(version)}"


def url_by_id(url: str) -> Callable[[int], str]:
    """An address that was built for ANY_ID, for the images of a page."""
    before, any_id, after = url.partition(str(ANY_ID))
    return lambda image_id: f"{before}{image_id}{after}" if any_id else url
