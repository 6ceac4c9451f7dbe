"""Begin a training with what a packaged model knows.

The packaged form has no batch normalisation, and a network without any is hard to train further. So normalisation is
put back: measured on photos, each layer is given the mean and variance that its convolution really has, and the scale
and shift that undo them. In inference the student is then the packaged network, and in training nearly so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from searchengine.extractors.compact import load_compact, named_weights, set_named_weights
from searchengine.learning.photos import Augmentation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from searchengine.learning.photos import Photos

    Weights = Mapping[str, npt.NDArray[np.float32]]


def unfold_batch_norm(
    folded: Weights, moments: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], *, epsilon: float
) -> dict[str, npt.NDArray[np.float32]]:
    """The inverse of `extractors.compact.fold_batch_norm`, up to the choice of statistics.

    `moments` names for each normalisation the mean (c,) and variance (c,) of what its convolution puts out without its
    bias. Scale and shift are chosen so that normalising by them changes nothing: gamma = sqrt(variance + epsilon),
    beta = bias + mean. The head of the packaged model ("whitening") is left out.
    """
    unfolded: dict[str, npt.NDArray[np.float32]] = {}
    for name, value in folded.items():
        layer, variable = name.split("/")
        norm = layer.removesuffix("_conv") + "_norm"
        if layer == "whitening":
            continue
        if layer.endswith("_conv") and variable == "bias":
            mean, variance = moments[norm]
            parts = {
                "gamma": np.sqrt(variance + epsilon),
                "beta": value + mean,
                "moving_mean": mean,
                "moving_variance": variance,
            }
            unfolded |= {f"{norm}/{part}": array.astype(np.float32) for part, array in parts.items()}
        else:
            unfolded[name] = value
    return unfolded


def start_from(
    student: Any, folder: Path, photos: Photos, *, size: int = 64, images: int = 1024, seed: int = 0
) -> None:
    """Give the student, fresh from `build_compact`, the weights of the packaged model in `folder`.

    Raises ExtractorError where the model there has another shape, or is damaged, and WeightsNotFoundError where there
    is none. Where the student has a head that the packaged model lacks, a part of the head passes on what it is given,
    and the rest stays fresh.
    """
    import keras

    packaged = load_compact(folder, size=size)
    convolutions = [layer for layer in packaged.layers if layer.name.endswith("_conv")]
    probe = keras.Model(packaged.input, [layer.output for layer in convolutions])
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(photos.pixels))[:images]
    batches = [rows[start : start + 128] for start in range(0, len(rows), 128)]
    sums = [np.zeros((2, layer.filters)) for layer in convolutions]
    for chosen in batches:
        pictures = Augmentation().batch([photos.pixels[row] for row in chosen], size, rng)
        for total, layer, output in zip(sums, convolutions, probe(pictures), strict=True):
            plain = np.asarray(output, np.float64) - np.asarray(layer.bias)  # (n, h, w, c)
            total += np.stack([plain.mean(axis=(0, 1, 2)), np.square(plain).mean(axis=(0, 1, 2))]) / len(batches)
    moments = {
        layer.name.removesuffix("_conv") + "_norm": (mean, np.maximum(square - mean**2, 0))
        for layer, (mean, square) in zip(convolutions, sums, strict=True)
    }
    epsilon = next(layer.epsilon for layer in student.layers if hasattr(layer, "moving_mean"))
    known = unfold_batch_norm(named_weights(packaged), moments, epsilon=epsilon)
    set_named_weights(student, with_fresh_head(known, named_weights(student)))


def with_fresh_head(known: Weights, fresh: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """Known weights, and a head from the fresh ones if they alone have one.

    The first channels of such a head are those that come in: 1 x 1, its kernel begins with the identity.
    """
    weights = dict(known)
    for name in fresh.keys() - known.keys():
        if name.startswith("head_"):
            weights[name] = fresh[name].copy()
        if name == "head_conv/kernel":
            width = fresh[name].shape[2]  # (1, 1, width, head)
            weights[name][0, 0, :, :width] = np.eye(width)
    return weights
