"""Keras networks: what is known of their layers before one runs, and how one becomes a model of pixels -> features.

The layers are read from the network once, in a subprocess with TensorFlow, and kept as ``<cache>/layers/<key>.json``;
the key names the model and, if it matters, the version of Keras.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.errors import ExtractorError, check_name
from searchengine.extractors import cache, worker
from searchengine.extractors.spec import SEVERAL, ExtractorSpec
from searchengine.files import replace_text

if TYPE_CHECKING:
    import keras
    from pydantic import TypeAdapter

    from searchengine.extractors.text_tower import TokenRules

_NO_FEATURES = {"Rescaling", "Normalization", "InputLayer"}  # they only prepare pixels


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer whose output can be the feature. ``shape`` is without the batch: (h, w, c), (d,); None where open."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    @property
    def is_spatial(self) -> bool:
        """Whether its output has several places, so that pooling makes a difference."""
        return any(side != 1 for side in self.shape[:-1])

    def numbers(self, pooling: str) -> int | None:
        """Numbers that it adds to a feature; None where its shape is open."""
        counted = self.shape if pooling == "none" else self.shape[-1:]
        return None if None in counted else math.prod(side for side in counted if side is not None)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network as it is known before it runs.

    ``input_size`` is (height, width) in pixels, or None where the network takes pictures of any size. ``output`` is
    that of the whole network, None where it has several; ``layers`` are those that can be chosen, in its order.
    """

    input_size: tuple[int, int] | None
    parameters: int
    output: LayerInfo | None
    layers: dict[str, LayerInfo]


def describe(key: str, request: Mapping[str, Any], *, title: str) -> NetworkInfo:
    """The cached description under a key; made by the subprocess from ``request`` where there is none yet.

    ``request`` names the model as ``export.describe`` takes it. ExtractorError where the model cannot be built.
    """
    with contextlib.suppress(OSError, ValueError):
        return _adapter().validate_json(_note(key).read_bytes())
    answer = worker.run("describe", request, lambda text: None, doing=f"Listing the layers of {title}")
    with contextlib.suppress(OSError):
        replace_text(_note(key), json.dumps(answer))
    return _adapter().validate_python(answer)


def _note(key: str) -> Path:
    return cache.cache_root() / "layers" / f"{key}.json"


@functools.cache
def _adapter() -> TypeAdapter[NetworkInfo]:
    from pydantic import TypeAdapter

    return TypeAdapter(NetworkInfo)


def describe_network(network: keras.Model) -> dict[str, Any]:
    """A ``NetworkInfo`` as JSON has it; in the subprocess."""
    height, width = network.inputs[0].shape[1:3]
    output = network.outputs[0] if len(network.outputs) == 1 else None
    info = NetworkInfo(
        None if height is None or width is None else (height, width),
        network.count_params(),
        None if output is None else LayerInfo("", "output", tuple(output.shape[1:])),
        {layer.name: layer for layer in layers_of(network) if SEVERAL not in layer.name},
    )
    values: dict[str, Any] = _adapter().dump_python(info, mode="json")
    return values


def layers_of(network: keras.Model) -> list[LayerInfo]:
    """The layers of a Keras model whose output can be a feature, in its order."""
    layers = []
    for layer in network.layers:
        shape = getattr(output_of(layer), "shape", ())
        if len(shape) >= 2 and type(layer).__name__ not in _NO_FEATURES:
            layers.append(LayerInfo(layer.name, type(layer).__name__, tuple(shape[1:])))
    return layers


def check_pooling(pooling: str, layers: Sequence[LayerInfo], title: str) -> None:
    """ExtractorError where there is nothing to pool."""
    if pooling != "none" and not any(layer.is_spatial for layer in layers):
        names = " and ".join(layer.name or "the output" for layer in layers)
        raise ExtractorError(
            f"There is nothing to pool: {names} of {title} gives one vector without places in the picture. Leave out "
            "--pooling, or choose a convolutional layer."
        )


# -- pixels -> features -----------------------------------------------------------------------------------------------

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
