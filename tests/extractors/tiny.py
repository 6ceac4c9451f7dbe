"""A model whose features can be worked out by hand, in place of the exported VGG16."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from searchengine.extractors import ExtractorSpec, cache
from searchengine.extractors.frameworks import import_openvino

SIZE = 8
SPEC = ExtractorSpec("vgg16", "fc2", "none", "none", "imagenet", (SIZE, SIZE), full_decode=True)


def write_tiny_model(folder: Path) -> None:
    """Write a model that maps (n, 8, 8, 3) uint8 to (n, 3) float32, the mean of each channel."""
    openvino = import_openvino()
    ops = openvino.opset13
    pixels = ops.parameter([-1, SIZE, SIZE, 3], np.uint8)
    mean = ops.reduce_mean(ops.convert(pixels, "f32"), [1, 2], False)
    # Add a constant, so that model.bin is not empty.
    feature = ops.add(mean, ops.constant(np.zeros((1, 3), np.float32)))
    openvino.serialize(openvino.Model([feature], [pixels], "tiny"), str(folder / "model.xml"))
    cache.write_manifest(folder, SPEC, (3,))


def put_tiny_model() -> Path:
    """Put the model into the cache and return its folder."""
    with cache.new_entry(SPEC) as folder:
        write_tiny_model(folder)
    return cache.entry_folder(SPEC)
