"""Small whole pictures to paste somewhere, decoded by several threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from searchengine.errors import ImageError
from searchengine.images import decode
from searchengine.index.types import ImageRecord

if TYPE_CHECKING:
    from PIL.Image import Image

_AHEAD = 64  # pictures that are held at a time
_EMPTY = "#e4e4e4"


class Tiles:
    """Pictures of at most ``side`` pixels, their proportions kept."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="tile")

    def of(self, records: Sequence[ImageRecord]) -> Iterator[Image]:
        """In the order of the records; of one that cannot be read, its average colour."""
        for start in range(0, len(records), _AHEAD):
            yield from self._pool.map(self._tile, records[start : start + _AHEAD])

    def _tile(self, record: ImageRecord) -> Image:
        from PIL import Image

        if record.file is not None:
            try:
                tile = Image.fromarray(decode(record.file.read_bytes(), at_least=(self.side, self.side)).pixels)
            except (OSError, ImageError):
                pass
            else:
                tile.thumbnail((self.side, self.side), Image.Resampling.BICUBIC)
                return tile
        return Image.new("RGB", (self.side, self.side), record.colour or _EMPTY)

    def __enter__(self) -> Tiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
