"""VGG16 built with Keras alone: weights files with random numbers, and the resulting features.

``write(folder, images)`` writes into the folder:

- ``vgg16.weights.h5``, as Keras 3 saves it, and ``vgg16_notop.h5``, laid out like the published file;
- ``fc2.npy`` (n, 4096) and ``block5_pool.npy`` (n, 512, averaged over the picture), one row per image, not normalised.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
from keras.applications.vgg16 import VGG16, preprocess_input
from PIL.Image import Resampling


def random_weights(model: keras.Model) -> None:
    """Randomise weights so that activations keep their size from layer to layer (He et al. 2015,
    https://arxiv.org/abs/1502.01852).
    """
    rng = np.random.default_rng(16)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.weights
            scale = np.sqrt(2 / np.prod(kernel.shape[:-1])).astype(np.float32)
            kernel.assign(rng.standard_normal(kernel.shape, dtype=np.float32) * scale)
            bias.assign(rng.standard_normal(bias.shape, dtype=np.float32) * np.float32(0.05))


def save_as_published(layers: list[keras.Layer], path: Path) -> None:
    """Save in the layout of 2016: one group per layer, ordered by attributes, with array names of that time."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{kind}_1:0" for kind in ("W", "b")[: len(layer.weights)]]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=np.asarray(variable))


def write(folder: Path, images: list[Path]) -> None:
    model = VGG16(weights=None)
    random_weights(model)
    model.save_weights(folder / "vgg16.weights.h5")
    save_as_published(model.layers[:-4], folder / "vgg16_notop.h5")

    pictures = [keras.utils.load_img(path).resize((224, 224), Resampling.BICUBIC) for path in images]
    pixels = np.stack([keras.utils.img_to_array(picture) for picture in pictures])
    cut = keras.Model(model.input, [model.get_layer(layer).output for layer in ("fc2", "block5_pool")])
    fc2, block5_pool = cut.predict(preprocess_input(pixels), verbose=0)
    np.save(folder / "fc2.npy", fc2)
    np.save(folder / "block5_pool.npy", block5_pool.mean(axis=(1, 2)))
