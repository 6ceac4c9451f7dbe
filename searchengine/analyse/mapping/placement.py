"""Squares that do not cover each other, each as near as it can be to where a map has its picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.extras import needed

_ROOM = (
    1.8  # places on the grid for each picture: with less, the shape of the map is lost; with more, pictures are small
)
_CHOICES = 12  # free places that a picture looks at in each round


@dataclass(frozen=True, slots=True)
class Grid:
    """``cells`` is (n, 2) int64: column and row of each picture, no two alike, 0 <= column < ``columns``."""

    cells: NDArray[np.int64]
    columns: int
    rows: int


def on_grid(places: NDArray[np.float32], room: float = _ROOM) -> Grid:
    """(n, 2) places -> cells of a grid that has the map's proportions; y grows upwards on a map, rows downwards.

    All pictures ask for the nearest free cells; of those that ask for the same one the nearest gets it, and the others
    ask again. The result depends on the places alone.
    """
    count = len(places)
    if count == 0:
        return Grid(np.empty((0, 2), dtype=np.int64), 0, 0)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = np.maximum(high - low, 1e-9).astype(np.float64)
    ratio = float(np.clip(extent[0] / extent[1], 0.25, 4.0))
    columns = max(1, math.ceil(math.sqrt(count * room * ratio)))
    rows = max(1, math.ceil(count * room / columns))
    # The pictures' middles, in units of cells: (n, 2)
    wanted = (places - low) / extent * (columns - 1, rows - 1)
    wanted[:, 1] = rows - 1 - wanted[:, 1]
    tree = needed("scipy.spatial", "SciPy").cKDTree
    free = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cells = np.empty((count, 2), dtype=np.int64)
    left = np.arange(count)
    while len(left):
        k = min(_CHOICES, len(free))
        far, choice = tree(free).query(wanted[left], k)
        far, choice = far.reshape(len(left), k), choice.reshape(len(left), k)
        taken = np.zeros(len(free), dtype=np.bool_)
        settled = np.zeros(len(left), dtype=np.bool_)
        for rank in range(k):
            asking = np.flatnonzero(~settled & ~taken[choice[:, rank]])
            order = asking[np.lexsort((left[asking], far[asking, rank]))]
            _, first = np.unique(choice[order, rank], return_index=True)
            winners = order[first]
            cells[left[winners]] = free[choice[winners, rank]]
            settled[winners] = True
            taken[choice[winners, rank]] = True
        left, free = left[~settled], free[~taken]
    return Grid(cells, columns, rows)
