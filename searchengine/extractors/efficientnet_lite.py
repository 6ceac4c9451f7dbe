"""EfficientNet-Lite as a Keras functional model: EfficientNet made for phones.

Tan and Le 2019 (https://arxiv.org/abs/1905.11946), without squeeze and excitation, and with ReLU6 for swish. The
stem, the last convolution, and the depth of the first and last stage do not grow with the network. Layers are named as
keras.applications names those of EfficientNet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError

if TYPE_CHECKING:
    import keras

_STEM, _TOP, _CLASSES = 32, 1280, 1000
# kernel, blocks, channels, expansion, stride of each stage of EfficientNet-B0
_STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1))  # fmt: skip  # noqa: E501


@dataclass(frozen=True, slots=True)
class _Block:
    """An inverted residual block (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)."""

    name: str
    kernel: int
    channels_in: int
    channels: int
    expansion: int
    stride: int

    @property
    def adds_input(self) -> bool:
        return self.stride == 1 and self.channels_in == self.channels


def _blocks(width: float, depth: float) -> Iterator[_Block]:
    channels_in = _STEM
    for stage, (kernel, repeats, channels, expansion, stride) in enumerate(_STAGES, start=1):
        inner = 1 < stage < len(_STAGES)
        for block in range(math.ceil(repeats * depth) if inner else repeats):
            scaled = _multiple_of_8(channels * width)
            name = f"block{stage}{chr(ord('a') + block)}"
            yield _Block(name, kernel, channels_in, scaled, expansion, stride if block == 0 else 1)
            channels_in = scaled


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, but no more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def build(input_size: int, width: float, depth: float) -> keras.Model:
    """The network with random weights: (n, input_size, input_size, 3) RGB of 0 to 255 -> (n, 1000) probabilities."""
    import keras
    from keras import layers

    def convolution(x: Any, kernel: int, stride: int, channels: int | None, names: tuple[str, str, str | None]) -> Any:
        """A convolution, by each channel where ``channels`` is None; batch normalisation; ReLU6 if it has a name."""
        convolution_name, normalization_name, activation_name = names
        common = {"strides": stride, "padding": "same", "use_bias": False, "name": convolution_name}
        make = (
            layers.DepthwiseConv2D(kernel, **common) if channels is None else layers.Conv2D(channels, kernel, **common)
        )
        x = layers.BatchNormalization(epsilon=1e-3, name=normalization_name)(make(x))
        return layers.ReLU(6.0, name=activation_name)(x) if activation_name else x

    pixels = keras.Input((input_size, input_size, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(pixels)
    # (n, s, s, 3) -> (n, s / 2, s / 2, 32)
    x = convolution(x, 3, 2, _STEM, ("stem_conv", "stem_bn", "stem_activation"))
    for block in _blocks(width, depth):
        name, start = block.name, x
        if block.expansion > 1:
            names = (f"{name}_expand_conv", f"{name}_expand_bn", f"{name}_expand_activation")
            x = convolution(x, 1, 1, block.channels_in * block.expansion, names)
        x = convolution(x, block.kernel, block.stride, None, (f"{name}_dwconv", f"{name}_bn", f"{name}_activation"))
        x = convolution(x, 1, 1, block.channels, (f"{name}_project_conv", f"{name}_project_bn", None))
        if block.adds_input:
            x = layers.Add(name=f"{name}_add")([start, x])
    # (n, s / 32, s / 32, c) -> (n, s / 32, s / 32, 1280) -> (n, 1280) -> (n, 1000)
    x = convolution(x, 1, 1, _TOP, ("top_conv", "top_bn", "top_activation"))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(pixels, layers.Dense(_CLASSES, "softmax", dtype="float32", name="predictions")(x))


def set_weights(network: keras.Model, width: float, depth: float, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Put the weights of the PyTorch network by their names into this one; ExtractorError where they do not fit."""
    arrays = {name: array for name, array in tensors.items() if not name.endswith("num_batches_tracked")}
    try:
        for layer, source in _names(width, depth):
            values = [_as_keras(arrays.pop(f"{source}.{part}"), source) for part in _PARTS[_kind(layer)]]
            network.get_layer(layer).set_weights(values)
    except (KeyError, ValueError) as error:
        raise ExtractorError(f"These are not the weights of this EfficientNet-Lite: {error}.") from error
    if arrays:
        raise ExtractorError(f"These are not the weights of this EfficientNet-Lite: {min(arrays)} is one too many.")


_PARTS = {
    "convolution": ("weight",),
    "normalization": ("weight", "bias", "running_mean", "running_var"),
    "dense": ("weight", "bias"),
}


def _kind(layer: str) -> str:
    if layer == "predictions":
        return "dense"
    return "normalization" if layer.endswith("bn") else "convolution"


def _names(width: float, depth: float) -> Iterator[tuple[str, str]]:
    """(layer here, module of the PyTorch network) for all layers that have weights."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for at, block in enumerate(_blocks(width, depth)):
        source = f"_blocks.{at}."
        if block.expansion > 1:
            yield from (
                (f"{block.name}_expand_conv", f"{source}_expand_conv"),
                (f"{block.name}_expand_bn", f"{source}_bn0"),
            )
        yield from ((f"{block.name}_dwconv", f"{source}_depthwise_conv"), (f"{block.name}_bn", f"{source}_bn1"))
        yield from (
            (f"{block.name}_project_conv", f"{source}_project_conv"),
            (f"{block.name}_project_bn", f"{source}_bn2"),
        )
    yield from (("top_conv", "_conv_head"), ("top_bn", "_bn1"), ("predictions", "_fc"))


def _as_keras(array: NDArray[Any], source: str) -> NDArray[np.float32]:
    """PyTorch has (out, in, h, w); Keras has (h, w, in, out), and (h, w, channels, 1) for depthwise kernels."""
    if array.ndim == 4:
        array = array.transpose((2, 3, 0, 1) if source.endswith("_depthwise_conv") else (2, 3, 1, 0))
    elif array.ndim == 2:
        array = array.T
    return np.asarray(array, dtype=np.float32)
