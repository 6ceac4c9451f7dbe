"""Keep Pillow's warnings to ourselves while a picture is decoded.

Pillow warns of odd metadata ("Corrupt EXIF data", "Palette images with Transparency expressed in bytes", ...). A person
who indexes 100 000 photos can do nothing about those, and where warnings are errors each would cost a picture.
`warnings.catch_warnings` is no way out: it swaps the filters of the whole process, and decoding runs in threads.
So one filter is put in front, once, which matches only Pillow's modules and only in a thread that is decoding.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast


class _Thread(threading.local):
    decoding: bool = False


_thread = _Thread()


class _PillowWhileDecoding:
    """Stands where a warning filter has the pattern for the module's name; only its ``match`` is ever called."""

    def match(self, module: str) -> bool:
        return _thread.decoding and module.startswith(("PIL.", "pi_heif."))


_FILTER = ("ignore", None, Warning, _PillowWhileDecoding(), 0)

# Without a handler, Pillow's few logger.error() calls would be printed to stderr as a last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def quiet() -> Iterator[None]:
    """Within, Pillow's warnings are dropped: in this thread only, and nobody else's."""
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _FILTER:
        # Others (pytest for each test, `catch_warnings`) put theirs in front or restore an older list.
        if _FILTER in filters:
            filters.remove(_FILTER)
        filters.insert(0, _FILTER)
    before = _thread.decoding
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = before
