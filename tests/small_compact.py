"""A compact model that is small enough to be trained in a test, and pictures for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from searchengine.extractors import compact

SMALL = compact.CompactShape(stem=8, widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), head=24)
HEADLESS = replace(SMALL, head=0)


def pictures(n: int, size: int, seed: int = 0) -> Any:
    """Smooth coloured noise, (n, size, size, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def cosines(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
