"""Pictures as templates show them: a card for each in the grid, a chip for each in the query bar.

All arithmetic is done here, so that templates have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal
from urllib.parse import quote

from flask import request, url_for
from werkzeug.exceptions import HTTPException

from searchengine.index.filters import FIELDS
from searchengine.index.types import Hit, ImageRecord
from searchengine.web.engines import ServedEngine
from searchengine.web.requests import this_engine, url_in

# The width / height of a tile is clamped to this range; an image beyond it is shown whole inside its tile.
_NARROWEST, _WIDEST = 0.6, 2.6
_SMALL = 200  # px; a smaller image is not enlarged
_GREY = "#8a8a8a"
_COLOUR = re.compile(r"#[0-9a-f]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Card:
    """One image in a grid.

    Attributes:
        ratio: width / height of its tile.
        version: the start of its content hash. It is part of the thumbnail's address, so a changed image gets a new
            address.
        blank: a row of imported features that has no image.
        whole: its shape does not fill its tile, so it is shown whole inside it.
        small: its size does not fill its tile, so it is not enlarged.
        anchor: the id of its element on the page.
        rank, distance, score: as in its ``Hit``; None if it is not the result of a search.
        share: its score as a share from 0 to 1; None where scores only give an order.
        other_rank: its rank on the other side of a comparison, if it is there.
        copies: the number of other images that it stands for.
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
    share: float | None = None
    other_rank: int | None = None
    copies: int = 0

    @property
    def style(self) -> str:
        """The CSS rule with the ratio and tint of this card."""
        return f"#{self.anchor}{{--ratio:{self.ratio:.4f};--tint:{self.colour}}}"


def card_of(record: ImageRecord, hit: Hit | None = None, *, as_share: bool = False) -> Card:
    """Return the card of an image; a search result has a ``hit``, whose score may be shown as a share."""
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
        colour=_safe_colour(record.colour),
        version=record.content_hash[:8] if record.content_hash else None,
        blank=blank,
        whole=not blank and ratio != width / height,
        small=not blank and max(width, height) < _SMALL,
        anchor=f"i{record.id}",
        rank=None if hit is None else hit.rank,
        distance=None if hit is None else hit.distance,
        score=None if hit is None else hit.score,
        share=min(max(hit.score, 0.0), 1.0) if hit is not None and as_share else None,
        copies=0 if hit is None else hit.stands_for - 1,
    )


def cards_of(hits: Sequence[Hit], *, as_shares: bool) -> list[Card]:
    """Return the cards of a ranking, in its order; ``as_shares`` if the scores are cosines."""
    return [card_of(hit.record, hit, as_share=as_shares) for hit in hits]


def spaced(name: str) -> str:
    """Return a name as people write it: ``car_side`` as "car side"."""
    return name.replace("_", " ")


def _safe_colour(colour: str | None) -> str:
    """Return a colour that is safe to put into a style element as it is."""
    colour = (colour or "").lower()
    return colour if _COLOUR.fullmatch(colour) else _GREY


# -- addresses of images ----------------------------------------------------------------------------------------------

ANY_ID = 10**20  # placeholder for the id in an address that is built once for all images of a page


def url_by_id(url: str) -> Callable[[int], str]:
    """Return a function that puts an id in the place of ANY_ID in ``url``."""
    before, any_id, after = url.partition(str(ANY_ID))
    return lambda image_id: f"{before}{image_id}{after}" if any_id else url


class CardUrls:
    """The addresses of the images on a page. They differ in the id only, so each kind is built once.

    Args:
        engine: the index of the images; None for that of the request.
        endpoint: the view that searches by an image.
        values: the arguments of that view besides the id.
    """

    def __init__(self, engine: ServedEngine | None, endpoint: str, values: Mapping[str, Any]) -> None:
        self._index = (engine or this_engine()).index
        self._url = partial(url_in, engine)
        self._endpoint = endpoint
        self._values = values

    @property
    def labels_differ(self) -> bool:
        """Whether labels tell images apart; in an index of a single folder, all images have the same label."""
        return len(self._index.facets().label) != 1

    @cached_property
    def search(self) -> Callable[[int], str]:
        """The address that searches by an image."""
        return url_by_id(self._url(self._endpoint, id=ANY_ID, **self._values))

    def thumbnail(self, image_id: int, version: str | None) -> str:
        """Return the address of a thumbnail in one version."""
        return _versioned(self._thumbnail(image_id), version)

    @cached_property
    def _thumbnail(self) -> Callable[[int], str]:
        return url_by_id(self._url("images.thumbnail", image_id=ANY_ID))


def _versioned(url: str, version: str | None) -> str:
    return url if version is None else f"{url}?v={quote(version)}"


# -- the query bar ----------------------------------------------------------------------------------------------------

# The fields of a query in an address, besides its text.
QUERY_FIELDS = ("upload", "id", "box", "like", "dislike", "rule", "metric", "k", "distinct", "copies", *FIELDS)

Sign = Literal["start", "like", "dislike"]


@dataclass(frozen=True, slots=True)
class Chip:
    """A picture of the query.

    Attributes:
        remove: the address of the query without it.
        picture: the address of a small copy; empty if there is none.
        source: the address of the whole picture, from which a part can be chosen.
        key: the name of an upload in addresses.
    """

    sign: Sign
    name: str
    remove: str
    id: int | None = None
    picture: str = ""
    source: str = ""
    box: str = ""
    key: str = ""

    @classmethod
    def of(cls, record: ImageRecord, remove: str, sign: Sign = "start", box: str = "") -> Chip:
        """Return the chip of an image of this index."""
        card = card_of(record)
        if card.blank:
            return cls(sign, card.name, remove, card.id, box=box)
        picture = _versioned(url_for("images.thumbnail", image_id=card.id), card.version)
        return cls(sign, card.name, remove, card.id, picture, url_for("images.original", image_id=card.id), box)


@dataclass(frozen=True, slots=True)
class QueryBar:
    """The contents of the bar at the top; the next search keeps its ``fields``."""

    chips: Sequence[Chip] = ()
    text: str = ""
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)


def bar_of_request() -> QueryBar:
    """Return the bar of a page that is not a search, or of an error: it keeps the fields of the request as they are."""
    values = request.args.to_dict(flat=False)
    with suppress(HTTPException):  # the form was too large, so it cannot be read
        values |= request.form.to_dict(flat=False)
    fields = {name: [text for text in values[name] if text] for name in QUERY_FIELDS if name in values}
    return QueryBar(text=values.get("q", [""])[0], fields=fields)
