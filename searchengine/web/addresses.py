"""Addresses that differ in the id of a picture only: built once for a page, which has hundreds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote

_ANY = "any-picture-of-this-page"  # stands where the id will, while an address is built; no id looks like it


def for_each_id(build: Callable[[str], str]) -> Callable[[int], str]:
    """What ``build`` makes of an id, for many of them."""
    before, _, after = build(_ANY).partition(_ANY)
    return lambda image_id: f"{before}{image_id}{after}"


class PictureAddresses:
    """Where the pictures of a page lead to and come from."""

    def __init__(self, build: Callable[..., str], endpoint: str, values: Mapping[str, Any]) -> None:
        """``build`` is ``url_for`` of an index; ``endpoint`` searches by a picture, with ``values`` besides its id."""
        self._build = build
        self._endpoint = endpoint
        self._values = values

    @cached_property
    def search(self) -> Callable[[int], str]:
        """What it finds."""
        return for_each_id(lambda image_id: self._build(self._endpoint, id=image_id, **self._values))

    @cached_property
    def image(self) -> Callable[[int], str]:
        """Its file."""
        return for_each_id(lambda image_id: self._build("pictures.image", image_id=image_id))

    @cached_property
    def download(self) -> Callable[[int], str]:
        """Its file, to be kept."""
        return for_each_id(lambda image_id: self._build("pictures.image", image_id=image_id, download=1))

    def thumbnail(self, image_id: int, version: str | None) -> str:
        """As it is in that version."""
        address = self._thumbnail(image_id)
        return address if version is None else f"{address}?v={quote(version)}"

    @cached_property
    def _thumbnail(self) -> Callable[[int], str]:
        return for_each_id(lambda image_id: self._build("pictures.thumbnail", image_id=image_id))
