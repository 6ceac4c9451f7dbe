"""A Keras network -> the Keras model that turns pixels into features: preprocessing before it, pooling after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchengine.errors import ExtractorError
from searchengine.extractors.spec import check_name

if TYPE_CHECKING:
    import keras

    from searchengine.extractors.spec import ExtractorSpec
    from searchengine.extractors.text_tower import TokenRules

# How pixels of 0 to 255 become what a network was trained on. The names but "none" and "unit" are those of
# keras.applications: caffe is BGR less the mean of ImageNet, tf is -1 to 1, torch is 0 to 1 less the mean and divided
# by the deviation of ImageNet; unit is 0 to 1, and none is left to the network itself.
PREPROCESSINGS = ("none", "unit", "tf", "torch", "caffe")
# Radenovic, Tolias and Chum 2018 (https://arxiv.org/abs/1711.02512) begin with 3, and training moves it little.
_GEM_POWER = 3.0
_GEM_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """``model`` turns pixels into features, ``network`` takes the weights; they share layers.

    ``model`` maps (n, h, w, 3) RGB, see ``pixel_type``, to (n, d) float32, not normalised. ``parts`` are the numbers
    that each layer contributes, in order: they add up to d. ``text`` is the text tower, if there is one.
    """

    model: keras.Model
    network: keras.Model
    parts: tuple[int, ...]
    text: TextModel | None = None


@dataclass(frozen=True, slots=True)
class TextModel:
    """A text tower: ``model`` maps (n, length) int32 tokens to (n, d) float32, and ``rules`` give the tokens."""

    model: keras.Model
    rules: TokenRules


def cut(network: keras.Model, spec: ExtractorSpec, preprocessing: str, title: str) -> BuiltModel:
    """Cut a network at the layers of a spec; preprocessing goes before it, pooling and concatenation after it.

    Without a layer it is the output of the network. UnknownNameError when it has no such layer; ExtractorError where
    an output is not one array, or not of a fixed size.
    """
    import keras

    names = [check_name(f"layer of {title}", name, [layer.name for layer in network.layers]) for name in spec.layers]
    outputs = [output_of(network.get_layer(name)) for name in names] or list(network.outputs)
    if any(not hasattr(output, "shape") for output in outputs) or (not names and len(outputs) != 1):
        raise ExtractorError(f"{title} has several outputs there: choose one layer with --layer.")
    shortened = keras.Model(network.inputs[0], outputs)

    pixels = keras.Input((*spec.input_size, 3), dtype="uint8", name="pixels")
    # (n, h, w, 3) uint8 RGB -> as the network was trained: float32, or uint8 where it takes that itself
    prepared = preprocessed(keras.ops.cast(pixels, "float32"), preprocessing)
    tensors = shortened(keras.ops.cast(prepared, network.inputs[0].dtype))
    # a layer (n, h', w', c) -> (n, c), or (n, h' * w' * c) without pooling; a dense layer is (n, d) as it is
    features = [pooled(tensor, spec.pooling) for tensor in (tensors if isinstance(tensors, list) else [tensors])]
    parts = [feature.shape[-1] for feature in features]
    if None in parts:
        raise ExtractorError(f"{title} gives features of no fixed size: choose another layer, or --pooling avg.")
    # several (n, d_i) -> (n, d_1 + d_2 + ...)
    joined = features[0] if len(features) == 1 else keras.ops.concatenate(features, axis=1)
    return BuiltModel(keras.Model(pixels, joined), network, tuple(int(part) for part in parts))


def output_of(layer: Any) -> Any:
    """The output of a layer. For a model within the model it is that in the outer graph, which Model.output is not."""
    import keras

    return keras.Operation.output.fget(layer)


def preprocessed(pixels: Any, preprocessing: str) -> Any:
    """(n, h, w, 3) float32 RGB of 0 to 255 -> the same shape, by one of PREPROCESSINGS."""
    import keras

    if preprocessing == "none":
        return pixels
    if preprocessing == "unit":
        return pixels / 255.0
    return keras.applications.imagenet_utils.preprocess_input(pixels, data_format="channels_last", mode=preprocessing)


def pooled(features: Any, pooling: str) -> Any:
    """(n, ..., c) -> (n, c) float32 by the mean, the maximum or GeM over all places; "none" lays them side by side.

    GeM, the generalised mean: the cube root of the mean cube, of activations that are cut off below at 1e-6. It lies
    between the mean and the maximum (Radenovic, Tolias and Chum 2018, https://arxiv.org/abs/1711.02512).
    """
    from keras import layers, ops

    features = ops.cast(features, "float32")  # whatever dtype the layers compute in
    if len(features.shape) == 2:
        return features
    places = list(range(1, len(features.shape) - 1))
    if pooling == "avg":
        return ops.mean(features, axis=places)
    if pooling == "max":
        return ops.max(features, axis=places)
    if pooling == "gem":
        cubes = ops.power(ops.maximum(features, _GEM_LEAST), _GEM_POWER)
        return ops.power(ops.mean(cubes, axis=places), 1 / _GEM_POWER)
    return layers.Flatten()(features)


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Layers made inside compute in "float32", or "mixed_bfloat16": multiplications in bfloat16, weights in float32."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
