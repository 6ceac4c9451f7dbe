"""The indexes that one server shows: their names, their addresses, and what is the same in two of them.

The first one has the plain addresses (``/``, ``/search``); every one, the first too, is also found under ``/i/NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import request, url_for

from searchengine.settings import Settings
from searchengine.web.nearness import Nearness
from searchengine.web.seam import Engine

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Collection:
    """One index among those served; ``name`` stands in its addresses and on the page."""

    name: str
    engine: Engine
    nearness: Nearness
    first: bool

    def warm(self) -> None:
        """Does now what the first search would have to wait for."""
        self.engine.warm()
        self.nearness.warm()

    @property
    def takes_pictures(self) -> bool:
        """Whether a picture of one's own can be searched by; without a model it cannot."""
        return self.engine.spec.embeds


class Collections:
    """All of them, in the order in which they were named."""

    def __init__(self, engines: dict[str, Engine]) -> None:
        self.all = tuple(
            Collection(name, engine, Nearness(engine), first=at == 0)
            for at, (name, engine) in enumerate(engines.items())
        )

    @property
    def first(self) -> Collection:
        """The one with the plain addresses."""
        return self.all[0]

    def get(self, name: str | None) -> Collection | None:
        """The one of that name."""
        return next((collection for collection in self.all if collection.name == name), None)

    def after(self, collection: Collection) -> Collection:
        """The next in order, from the last the first again."""
        return self.all[(self.all.index(collection) + 1) % len(self.all)]


@dataclass(frozen=True, slots=True)
class Views:
    """What the views of one index know: it, the others that are served, and the settings."""

    collection: Collection
    collections: Collections
    settings: Settings

    @property
    def engine(self) -> Engine:
        """What the index is searched with."""
        return self.collection.engine


def mount(name: str) -> str:
    """Where the addresses of an index begin."""
    return f"/i/{name}"


def address_in(collection: Collection | None, here: Collection, endpoint: str, **values: Any) -> str:
    """``url_for`` in another index than the one whose page is being made; None is this one."""
    address = url_for(endpoint, **values)
    if collection is None or collection is here:
        return address
    root = request.script_root
    before = root.removesuffix(mount(here.name))
    return before + ("" if collection.first else mount(collection.name)) + address.removeprefix(root)


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each index folder, good in an address: the folder's own, with its parent's where two are the same."""
    folders = [folder.expanduser().absolute() for folder in folders]
    plain = [_cleaned(folder.name) for folder in folders]
    names: list[str] = []
    for folder, name in zip(folders, plain, strict=True):
        if plain.count(name) > 1:
            name = _cleaned(f"{folder.parent.name}-{folder.name}")
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names


def _cleaned(name: str) -> str:
    return _NOT_IN_A_NAME.sub("-", name).strip(".-") or "index"
