"""Random variants of pictures, so that a small set teaches more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """Random variation of a picture: crop, stretch, flip, rotation, blur and colour.

    Each field is a probability, the bound of a range, or a strength.
    """

    least_area: float = 0.4
    stretch: float = 4 / 3
    flip: float = 0.5
    rotate: float = 0.25
    rotation_degrees: float = 15.0
    blur: float = 0.15
    blur_radius: float = 0.02  # at most this share of the side of the picture
    grey: float = 0.15
    colour: float = 0.3

    def crop(self, pixels: Pixels, size: int, rng: np.random.Generator) -> Pixels:
        """A random part of one picture: (s, s, 3) uint8 -> (size, size, 3) uint8."""
        side = pixels.shape[0]
        area = rng.uniform(self.least_area, 1.0)
        stretch = np.exp(rng.uniform(-np.log(self.stretch), np.log(self.stretch)))
        width = min(side, side * np.sqrt(area * stretch))
        height = min(side, side * np.sqrt(area / stretch))
        left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
        picture = Image.fromarray(pixels)
        if rng.random() < self.rotate:
            angle = rng.uniform(-self.rotation_degrees, self.rotation_degrees)
            corners = (0, 0, 0) if rng.random() < 0.5 else tuple(rng.integers(0, 256, 3).tolist())
            picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corners)
        box = (left, top, left + width, top + height)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
        if rng.random() < self.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1) * self.blur_radius * size))
        part = np.asarray(picture)
        return part[:, ::-1] if rng.random() < self.flip else part

    def recolour(self, batch: Pixels, rng: np.random.Generator) -> Pixels:
        """Vary brightness, contrast and saturation, sometimes down to grey: (n, s, s, 3) uint8 -> the same shape."""
        n = len(batch)
        brightness, contrast, saturation = np.exp(rng.uniform(-self.colour, self.colour, (3, n, 1, 1, 1))).astype(
            np.float32
        )
        saturation[rng.random(n) < self.grey] = 0
        x = batch.astype(np.float32)
        grey = x @ np.array([0.299, 0.587, 0.114], np.float32)  # (n, s, s, 3) -> (n, s, s)
        x = grey[..., None] + (x - grey[..., None]) * saturation
        middle = grey.mean(axis=(1, 2))[:, None, None, None]
        recoloured: Pixels = np.clip((middle + (x - middle) * contrast) * brightness + 0.5, 0, 255).astype(np.uint8)
        return recoloured

    def batch(self, pictures: Sequence[Pixels] | Pixels, size: int, rng: np.random.Generator) -> Pixels:
        """A new variant of each picture: n x (s, s, 3) uint8 -> (n, size, size, 3) uint8."""
        return self.recolour(np.stack([self.crop(picture, size, rng) for picture in pictures]), rng)
