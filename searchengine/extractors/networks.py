"""Keras networks: their layers, known before a network runs, and the model that maps pixels to features.

The layers are read from the network once, in a subprocess with TensorFlow, and kept as ``<cache>/layers/<key>.json``.
The key names the model and, if it matters, the version of Keras.
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
from searchengine.extractors import cache, frameworks
from searchengine.extractors.spec import SEVERAL, ExtractorSpec
from searchengine.files import replace_text

if TYPE_CHECKING:
    import keras
    from pydantic import TypeAdapter

    from searchengine.extractors.text_tower import TokenRules

_NO_FEATURES = {"Rescaling", "Normalization", "InputLayer"}  # layers that only prepare pixels


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer whose output can be the feature.

    ``shape`` is its output shape without the batch, (h, w, c) or (d,), with None for a variable size.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]

    @property
    def is_spatial(self) -> bool:
        """Whether the output has several positions, so that pooling makes a difference."""
        return any(side != 1 for side in self.shape[:-1])

    def feature_size(self, pooling: str) -> int | None:
        """Return how many numbers the layer contributes to a feature, or None if its shape is variable."""
        counted = self.shape if pooling == "none" else self.shape[-1:]
        return None if None in counted else math.prod(side for side in counted if side is not None)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A description of a network that is available before it runs.

    ``input_size`` is (height, width) in pixels, or None if the network takes pictures of any size. ``output`` is the
    output of the whole network, or None if it has several. ``layers`` are the layers to choose from, in the network's
    order.
    """

    input_size: tuple[int, int] | None
    parameters: int
    output: LayerInfo | None
    layers: dict[str, LayerInfo]


def describe(key: str, request: Mapping[str, Any], *, title: str) -> NetworkInfo:
    """Return the description cached under a key; if there is none, the subprocess computes it from ``request``.

    ``request`` names the model as ``export.describe`` takes it. Raises ExtractorError if the model cannot be built.
    """
    with contextlib.suppress(OSError, ValueError):
        return _adapter().validate_json(_note(key).read_bytes())
    answer = frameworks.run_task("describe", request, lambda text: None, doing=f"Listing the layers of {title}")
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
    """Return the ``NetworkInfo`` of a network as JSON values. Runs in the subprocess."""
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
    """Return the layers of a Keras model whose output can be a feature, in its order."""
    layers = []
    for layer in network.layers:
        shape = getattr(output_of(layer), "shape", ())
        if len(shape) >= 2 and type(layer).__name__ not in _NO_FEATURES:
            layers.append(LayerInfo(layer.name, type(layer).__name__, tuple(shape[1:])))
    return layers


def check_pooling(pooling: str, layers: Sequence[LayerInfo], title: str) -> None:
    """Raise ExtractorError if ``pooling`` is chosen but none of the layers can be pooled."""
    if pooling != "none" and not any(layer.is_spatial for layer in layers):
        names = " and ".join(layer.name or "the output" for layer in layers)
        raise ExtractorError(
            f"There is nothing to pool: {names} of {title} {'has' if len(layers) == 1 else 'have'} no spatial "
            "dimensions. Leave out --pooling, or choose a convolutional layer."
        )


# -- pixels -> features -----------------------------------------------------------------------------------------------

# How pixels of 0 to 255 are scaled for a network. "tf", "torch" and "caffe" are named as in keras.applications:
#   none   unchanged; the network has its own preprocessing
#   unit   0 to 1
#   tf     -1 to 1
#   torch  0 to 1, minus the mean of ImageNet, divided by its standard deviation
#   caffe  BGR, minus the mean of ImageNet
PREPROCESSINGS = ("none", "unit", "tf", "torch", "caffe")
# Radenovic, Tolias and Chum 2018 (https://arxiv.org/abs/1711.02512) start with 3, and training hardly changes it.
_GEM_POWER = 3.0
_GEM_MIN = 1e-6


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A network and the model cut from it, which share layers: ``model`` computes features, ``network`` takes weights.

    ``model`` maps (n, h, w, 3) RGB pixels of ``pixel_type`` to (n, d) float32 features, not normalised. ``parts`` are
    the sizes that the layers contribute, in order; they add up to d. ``text`` is the text tower, if there is one.
    """

    model: keras.Model
    network: keras.Model
    parts: tuple[int, ...]
    text: TextModel | None = None


@dataclass(frozen=True, slots=True)
class TextModel:
    """A text tower: ``model`` maps (n, length) int32 tokens to (n, d) float32, and ``rules`` turn texts into tokens."""

    model: keras.Model
    rules: TokenRules


def cut(network: keras.Model, spec: ExtractorSpec, preprocessing: str, title: str) -> BuiltModel:
    """Cut a network at the layers of a spec, with preprocessing before it and pooling and concatenation after it.

    If the spec has no layer, the output of the whole network is used. Raises UnknownNameError if the network has no
    such layer, and ExtractorError if an output is not one array of fixed size.
    """
    import keras

    names = [check_name(f"layer of {title}", name, [layer.name for layer in network.layers]) for name in spec.layers]
    outputs = [output_of(network.get_layer(name)) for name in names] or list(network.outputs)
    if any(not hasattr(output, "shape") for output in outputs) or (not names and len(outputs) != 1):
        raise ExtractorError(f"{title} has several outputs there. Choose one layer with --layer.")
    shortened = keras.Model(network.inputs[0], outputs)

    pixels = keras.Input((*spec.input_size, 3), dtype="uint8", name="pixels")
    # (n, h, w, 3) uint8 RGB -> float32, or uint8 if that is the network's own input type
    prepared = preprocessed(keras.ops.cast(pixels, "float32"), preprocessing)
    tensors = shortened(keras.ops.cast(prepared, network.inputs[0].dtype))
    # a layer (n, h', w', c) -> (n, c), or (n, h' * w' * c) without pooling; a dense layer (n, d) stays as it is
    features = [pooled(tensor, spec.pooling) for tensor in (tensors if isinstance(tensors, list) else [tensors])]
    parts = [feature.shape[-1] for feature in features]
    if None in parts:
        raise ExtractorError(f"Features of {title} would vary in size. Choose another layer, or add --pooling avg.")
    # several (n, d_i) -> (n, d_1 + d_2 + ...)
    joined = features[0] if len(features) == 1 else keras.ops.concatenate(features, axis=1)
    return BuiltModel(keras.Model(pixels, joined), network, tuple(int(part) for part in parts))


def output_of(layer: Any) -> Any:
    """Return the output of a layer; for a nested model, its output in the outer graph, unlike ``Model.output``."""
    import keras

    return keras.Operation.output.fget(layer)


def preprocessed(pixels: Any, preprocessing: str) -> Any:
    """Preprocess (n, h, w, 3) float32 RGB of 0 to 255 by one of ``PREPROCESSINGS``; the shape stays the same."""
    import keras

    if preprocessing == "none":
        return pixels
    if preprocessing == "unit":
        return pixels / 255.0
    return keras.applications.imagenet_utils.preprocess_input(pixels, data_format="channels_last", mode=preprocessing)


def pooled(features: Any, pooling: str) -> Any:
    """Pool (n, ..., c) features over all positions into (n, c) float32; "none" flattens them instead.

    "gem" is the generalised mean, the cube root of the mean cube, of activations clipped below at 1e-6. It lies between
    the mean and the maximum (Radenovic, Tolias and Chum 2018, https://arxiv.org/abs/1711.02512).
    """
    from keras import layers, ops

    features = ops.cast(features, "float32")  # whatever dtype the layers compute in
    if len(features.shape) == 2:
        return features
    positions = list(range(1, len(features.shape) - 1))
    if pooling == "avg":
        return ops.mean(features, axis=positions)
    if pooling == "max":
        return ops.max(features, axis=positions)
    if pooling == "gem":
        cubes = ops.power(ops.maximum(features, _GEM_MIN), _GEM_POWER)
        return ops.power(ops.mean(cubes, axis=positions), 1 / _GEM_POWER)
    return layers.Flatten()(features)


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Create layers under a dtype policy: "float32", or "mixed_bfloat16", which multiplies in bfloat16."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
