"""An uploaded picture, decoded once: the pixels to search by, and a small copy for the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from threading import BoundedSemaphore

import numpy as np
from numpy.typing import NDArray

from searchengine.web.incoming import Upload
from searchengine.web.seam import QueryReader

_SHOWN_SIDE = 480  # px
# A decoded picture can take hundreds of megabytes: only so many at a time.
_TURN = BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class UploadedQuery:
    """``pixels`` is (h, w, 3) uint8 RGB as the extractor takes it; ``width`` and ``height`` are the original's.

    ``shown`` is a small copy of it, (h, w, 3) uint8 RGB.
    """

    name: str
    pixels: NDArray[np.uint8]
    width: int
    height: int
    shown: NDArray[np.uint8]

    @property
    def picture(self) -> str:
        """A small JPEG as a data: address, so that the page can show the query although nothing is kept."""
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(self.shown).save(out, "JPEG", quality=82)
        return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def read_query(upload: Upload, reader: QueryReader, max_pixels: int) -> UploadedQuery:
    """Decodes an upload as the images of the index were; NotAnImageError, DamagedImageError, ImageTooLargeError."""
    with _TURN:
        decoded, pixels = reader.preprocess(upload.data, max_pixels)
        shown = _small(decoded.pixels)
    return UploadedQuery(upload.name, pixels, decoded.width, decoded.height, shown)


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 -> no side longer than _SHOWN_SIDE; what is small enough stays as it is."""
    from PIL import Image

    if max(pixels.shape[:2]) <= _SHOWN_SIDE:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), reducing_gap=2.0)
    return np.asarray(image)
