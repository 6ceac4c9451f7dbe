"""How learning rate and picture size move while training goes from 0 (begun) to 1 (done)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class OneCycle:
    """A short linear rise to the peak, then half a cosine down to nothing."""

    peak: float
    rise: float = 0.05

    def at(self, progress: float) -> float:
        """The learning rate at `progress` in 0..1; nothing beyond."""
        if progress < self.rise:
            return self.peak * max(progress / self.rise, 0.01)
        along = min((progress - self.rise) / (1 - self.rise), 1.0)
        return self.peak * 0.5 * (1 + math.cos(math.pi * along))


@dataclass(frozen=True)
class GrowingSize:
    """Small pictures first, which are cheap, larger ones to the end: pairs of (until, size), the last until 1."""

    steps: tuple[tuple[float, int], ...] = ((0.72, 48), (1.0, 64))

    @classmethod
    def parse(cls, text: str) -> GrowingSize:
        """From "48:0.72,64:1": each size with the progress until which it serves. Raises ValueError."""
        told = f"sizes must be multiples of 16 from 48, each with a later end, such as 48:0.72,64:1, not {text!r}"
        pairs = (part.split(":") for part in text.split(","))
        try:
            steps = tuple((float(until), int(size)) for size, until in pairs)
        except ValueError as error:
            raise ValueError(told) from error
        if any(size < 48 or size % 16 for _, size in steps) or list(steps) != sorted(steps):
            raise ValueError(told)
        return cls(steps)

    def at(self, progress: float) -> int:
        """The size of pictures at `progress` in 0..1."""
        return next((size for until, size in self.steps if progress < until), self.steps[-1][1])
