"""Thumbnails that stand inside the page itself, so that a report is one file."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path

from searchengine.errors import ImageError
from searchengine.images import thumbnail

SIDE = 192  # px: twice what is shown, for fine screens


@lru_cache(maxsize=512)
def data_uri(file: Path | None) -> str | None:
    """A small JPEG as a ``data:`` address; None where there is no picture, or none that can be read."""
    if file is None:
        return None
    try:
        small = thumbnail(file.read_bytes(), max_side=SIDE)
    except (OSError, ImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(small).decode("ascii")
