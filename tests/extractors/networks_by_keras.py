"""Networks of keras.applications built with Keras alone, with random weights, in files laid out as published."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.models import PublishedWeights, backbones


def published(title: str, files: list[PublishedWeights] | None = None, *, head: bool = True) -> Any:
    """Return the network as ``weights="imagenet"`` builds it and the file that it loads, with random weights."""
    keras = import_keras()
    from keras.src.utils import file_utils

    def get_file(fname: str, origin: str, cache_subdir: str, file_hash: str | None = None) -> str:
        if files is not None:
            files.append(PublishedWeights(origin, fname, file_hash, 0))
        return fname

    size = backbones()[title.lower()].input_size
    keras.utils.clear_session()
    with (
        mock.patch.object(file_utils, "get_file", get_file),
        mock.patch.object(keras.Model, "load_weights"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        network = getattr(keras.applications, title)(include_top=head, input_shape=(*size, 3))
    random_weights(network)
    return network


def random_weights(network: Any) -> None:
    """Randomise all weights so that activations keep their size (He et al. 2015).

    Layers that are added to a bypass get small weights, as is common at the start of training (Goyal et al. 2017).
    Otherwise dozens of random blocks on top of each other would amplify a rounding error a thousandfold.
    """
    rng = np.random.default_rng(7)
    added = _added(network)
    for layer in network.layers:
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if variable.path.endswith("kernel"):
                by_channel = "Depthwise" in type(layer).__name__ or variable.path.endswith("depthwise_kernel")
                fan = np.prod(shape[: 2 if by_channel else -1])
                values = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / max(fan, 1)))
            elif "int" in str(variable.dtype):
                continue  # how many pictures a mean was taken of
            elif variable.path.endswith(("gamma", "variance")):
                values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
                if layer.name in added and variable.path.endswith("gamma"):
                    values *= 0.2
            else:
                values = rng.standard_normal(shape, np.float32) * np.float32(0.1)
            variable.assign(values)
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _added(network: Any) -> set[str]:
    """Return the normalisations whose output is added to a bypass."""
    result = set()
    for layer in network.layers:
        if type(layer).__name__ != "Add":
            continue
        before = [_behind_dropout(tensor._keras_history.operation) for tensor in layer.input]
        normalised = [one.name for one in before if type(one).__name__ == "BatchNormalization"]
        if len(normalised) < len(before):
            result.update(normalised)
    return result


def _behind_dropout(layer: Any) -> Any:
    return layer.input._keras_history.operation if type(layer).__name__ == "Dropout" else layer


def save_as_published(network: Any, file: Path) -> None:
    """Save weights in the layout of the files that keras.applications downloads."""
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(file, "w") as stream:
        legacy_h5_format.save_weights_to_hdf5_group(stream, network)


def features(network: Any, title: str, layer: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the output of a layer for (n, h, w, 3) uint8 pixels, preprocessed by the family's own function."""
    keras = import_keras()
    family = getattr(keras.applications, backbones()[title.lower()].module)
    cut = keras.Model(network.inputs[0], keras.Operation.output.fget(network.get_layer(layer)))
    result: NDArray[np.float32] = np.asarray(cut(family.preprocess_input(pixels.astype(np.float32)), training=False))
    return result


def noise(size: tuple[int, int], n: int = 2) -> NDArray[np.uint8]:
    """Return random pixels, (n, h, w, 3) uint8."""
    return np.random.default_rng(1).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def smooth(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return (2, h, w, 3) uint8 pictures that a network can distinguish, unlike two pictures of noise."""
    coarse = np.random.default_rng(2).integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize(size[::-1])) for one in coarse])


def relative_error(result: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest relative error over the rows; NaN if there is one."""
    assert result.shape == expected.shape
    errors = np.linalg.norm(result - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    return float(errors.max())
