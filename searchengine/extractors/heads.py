"""The ImageNet head of a network: its last layer, which turns a feature into a score for each of the 1000 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError

CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """``weights`` (1000, d) and ``bias`` (1000,), float32: the logits of a feature f are ``weights @ f + bias``."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


def read_head(file: Path, dimension: int) -> Head:
    """The head in a Keras weights file of either format: the one layer that turns d numbers into 1000.

    It is told by its shape, because the two formats name layers differently; a dense layer and a convolution of one
    place do the same. ExtractorError where the file has no such layer.
    """
    import h5py

    kernels: list[Any] = []

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and tuple(side for side in node.shape if side != 1) == (dimension, CLASSES):
            kernels.append(node)

    try:
        with h5py.File(file, "r") as root:
            root.visititems(collect)
            if len(kernels) != 1:
                raise ExtractorError(
                    f"{file} does not hold the classification head of 1000 ImageNet classes, which words need."
                )
            (bias,) = (node for node in kernels[0].parent.values() if node.shape == (CLASSES,))
            kernel = np.asarray(kernels[0], dtype=np.float32).reshape(dimension, CLASSES)
            return Head(np.ascontiguousarray(kernel.T), np.asarray(bias, dtype=np.float32))
    except (OSError, ValueError, KeyError) as error:
        raise ExtractorError(f"The classification head in {file} cannot be read: {error}.") from error
