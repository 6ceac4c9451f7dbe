"""Functions that misbehave as decoders may. They have their own module because worker processes import it."""

from __future__ import annotations

import os

from searchengine.images.isolation import isolated
from searchengine.processes import Limits, limit_call


@isolated
def crash(data: bytes) -> None:
    os.abort()


@isolated
def spin(data: bytes, *, max_pixels: int) -> None:
    while True:
        pass


@isolated
def spin_after_its_header(data: bytes) -> None:
    limit_call(Limits(seconds=1, memory=2**30))
    spin(data, max_pixels=1000)


@isolated
def devour_after_its_header(data: bytes) -> None:
    limit_call(Limits(seconds=60, memory=2**28))
    bytes(2**29)


@isolated
def devour(data: bytes) -> None:
    bytes(2**32)


@isolated
def process(data: bytes) -> int:
    return os.getpid()
