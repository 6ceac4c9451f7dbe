"""A vector written as text, as data frames save it in a cell: ``array('d', [1.0, 2.0])``, ``[1.0 2.0]``, ``1, 2``."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_BRACKETED = re.compile(r"""\s*(?:\w+\(\s*)?(?:['"]\w['"]\s*,\s*)?\[[^\[\]]*\]\s*(?:,[^()\[\]]*)?\)?\s*""")


def is_number(text: str) -> bool:
    """Whether a cell holds one number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_vector(text: str) -> bool:
    """Whether a cell holds numbers in brackets, or several without."""
    if _BRACKETED.fullmatch(text):
        inner = _inner(text).split()
        return bool(inner) and (is_number(inner[0]) or "..." in inner[:1])
    parts = _inner(text).split()
    return len(parts) > 1 and all(is_number(part) for part in parts)


def parse_vector(text: str) -> NDArray[np.float64]:
    """The numbers of a cell -> (d,) float64; ValueError with the end of a sentence that says what is wrong."""
    parts = _inner(text).split()
    if "..." in text:
        raise ValueError("was cut short by the program that wrote it: it holds '...' in place of numbers")
    if not parts:
        raise ValueError("is empty")
    try:
        return np.array([float(part) for part in parts], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"holds something else than numbers: {text[:60]!r}") from error


def _inner(text: str) -> str:
    start, end = text.find("["), text.rfind("]")
    return (text[start + 1 : end] if 0 <= start < end else text).replace(",", " ")
