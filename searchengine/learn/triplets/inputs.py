"""Training inputs: what the backbone computed from the images, in a file that only grows, and random variants."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from searchengine.images import resize

CONTENT_BYTES = 16

Pixels = NDArray[np.uint8]


# -- random variants of pictures, so that a small set teaches more ----------------------------------------------------


_LEAST_AREA = 0.4  # of a picture that a crop keeps
_STRETCH = 4 / 3
_FLIP, _ROTATE, _BLUR, _GREY = 0.5, 0.25, 0.15, 0.15  # probabilities
_DEGREES = 15.0
_BLUR_RADIUS = 0.02  # at most, of the side of a picture
_COLOUR = 0.3  # strength


def varied(pictures: Sequence[Pixels] | Pixels, size: int, random: np.random.Generator) -> Pixels:
    """A new variant of each picture: n of (s, s, 3) uint8 -> (n, size, size, 3) uint8."""
    return _recoloured(np.stack([_cropped(picture, size, random) for picture in pictures]), random)


def _cropped(pixels: Pixels, size: int, random: np.random.Generator) -> Pixels:
    """A random part of a picture, perhaps stretched, rotated, blurred and flipped: (s, s, 3) -> (size, size, 3)."""
    side = pixels.shape[0]
    area = random.uniform(_LEAST_AREA, 1.0)
    stretch = np.exp(random.uniform(-np.log(_STRETCH), np.log(_STRETCH)))
    width = min(side, side * np.sqrt(area * stretch))
    height = min(side, side * np.sqrt(area / stretch))
    left, top = random.uniform(0, side - width), random.uniform(0, side - height)
    picture = Image.fromarray(pixels)
    if random.random() < _ROTATE:
        angle = random.uniform(-_DEGREES, _DEGREES)
        corners = (0, 0, 0) if random.random() < 0.5 else tuple(random.integers(0, 256, 3).tolist())
        picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corners)
    box = (left, top, left + width, top + height)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if random.random() < _BLUR:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 1) * _BLUR_RADIUS * size))
    part = np.asarray(picture)
    return part[:, ::-1] if random.random() < _FLIP else part


def _recoloured(batch: Pixels, random: np.random.Generator) -> Pixels:
    """Vary brightness, contrast and saturation, sometimes down to grey: (n, s, s, 3) uint8 -> the same shape."""
    n = len(batch)
    factors = np.exp(random.uniform(-_COLOUR, _COLOUR, (3, n, 1, 1, 1))).astype(np.float32)
    brightness, contrast, saturation = factors
    saturation[random.random(n) < _GREY] = 0
    x = batch.astype(np.float32)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)  # (n, s, s, 3) -> (n, s, s)
    x = grey[..., None] + (x - grey[..., None]) * saturation
    middle = grey.mean(axis=(1, 2))[:, None, None, None]
    recoloured: Pixels = np.clip((middle + (x - middle) * contrast) * brightness + 0.5, 0, 255).astype(np.uint8)
    return recoloured


# -- what the backbone computed ---------------------------------------------------------------------------------------


class Records:
    """Records of fixed size, found by the content hash of the image.

    Each batch is appended and flushed, so a run that was killed resumes after its last whole record: a torn record is
    cut off, and of duplicates the first counts.
    """

    def __init__(self, file: Path, *, views: int, dimension: int, pixels: tuple[int, int] | None) -> None:
        """A record holds ``views`` features of ``dimension`` numbers and, optionally, ``pixels``, (height, width).

        OSError where the file cannot be read or written.
        """
        fields: list[tuple[Any, ...]] = [("content", f"V{CONTENT_BYTES}"), ("features", np.float32, (views, dimension))]
        if pixels is not None:
            fields.append(("pixels", np.uint8, (*pixels, 3)))
        self._dtype = np.dtype(fields)
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        whole = file.stat().st_size // self._dtype.itemsize
        if file.stat().st_size != whole * self._dtype.itemsize:
            os.truncate(file, whole * self._dtype.itemsize)
        self._rows: NDArray[Any] = np.empty(0, self._dtype)
        self._places: dict[bytes, int] = {}
        self._map_file()

    def __contains__(self, content: object) -> bool:
        return content in self._places

    def append(self, contents: list[bytes], features: NDArray[np.float32], pixels: NDArray[Any] | None = None) -> None:
        """Add a record for each content: features (m, views, d) and, where they are kept, pixels (m, h, w, 3)."""
        rows = np.empty(len(contents), self._dtype)
        rows["content"] = np.frombuffer(b"".join(contents), f"V{CONTENT_BYTES}")
        rows["features"] = features
        if "pixels" in (self._dtype.names or ()):
            assert pixels is not None
            rows["pixels"] = np.clip(pixels, 0, 255)
        end = len(self._rows) * self._dtype.itemsize
        try:
            with self._file.open("ab") as stream:
                stream.write(rows.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            os.truncate(self._file, end)  # so that the next record begins where it should
            raise
        self._map_file()

    def places(self, contents: list[bytes]) -> NDArray[np.int64]:
        """(m,) int64: the positions of the records of these contents."""
        return np.array([self._places[content] for content in contents], dtype=np.int64)

    def features(self, places: NDArray[np.int64], view: int | NDArray[np.int64] = 0) -> NDArray[np.float32]:
        """(m,) positions -> (m, d) float32: one view of each."""
        return np.asarray(self._rows["features"][places, view], dtype=np.float32)  # fancy indexing: already a copy

    def pixels(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m,) positions -> (m, h, w, 3) uint8."""
        return np.array(self._rows["pixels"][places], dtype=np.uint8)

    def _map_file(self) -> None:
        if not self._file.stat().st_size:
            return
        known = len(self._rows)
        self._rows = np.memmap(self._file, self._dtype, mode="r")
        for place, content in enumerate(self._rows["content"][known:].tolist(), known):
            self._places.setdefault(bytes(content), place)


class Features:
    """Training inputs for a frozen backbone: (b,) rows -> (b, d) float32 features."""

    def __init__(self, records: Records, places: NDArray[np.int64], *, views: int, dropout: float) -> None:
        """``places`` (n,) int64 are the records of the rows; ``dropout`` is the share of numbers that is left out."""
        self._records, self._places = records, places
        self._views, self._dropout = views, dropout

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.float32]:
        """A random view of each, with dropout; the numbers kept are scaled up, so that their mean stays
        (Srivastava et al. 2014)."""
        features = self._records.features(self._places[rows], random.integers(0, 1 + self._views, len(rows)))
        if self._dropout:
            kept = random.random(features.shape, dtype=np.float32) >= self._dropout
            features = features * kept / np.float32(1.0 - self._dropout)
        return features

    def plain(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The images as they are."""
        return self._records.features(self._places[rows])


class Pictures:
    """Training inputs for a backbone that learns: (b,) rows -> (b, h, w, 3) uint8 pixels."""

    def __init__(self, records: Records, places: NDArray[np.int64], *, augmented: bool) -> None:
        """``places`` (n,) int64 are the records of the rows."""
        self._records, self._places = records, places
        self._augmented = augmented

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.uint8]:
        """A new variant of each, if they are to be augmented."""
        pictures = self.plain(rows)
        if not self._augmented:
            return pictures
        height, width = pictures.shape[1:3]
        side = max(height, width)
        square = [resize(picture, (side, side)) for picture in pictures]
        variants = varied(square, side, random)
        return np.stack([resize(variant, (height, width)) for variant in variants])

    def plain(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images as they are."""
        return self._records.pixels(self._places[rows])
