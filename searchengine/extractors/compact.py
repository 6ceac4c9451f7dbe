"""The compact model: a small residual network for 64 to 128 px pictures, shipped with the package.

A stem that halves the picture, then four stages of basic residual blocks (He et al. 2016, https://arxiv.org/abs/1512.03385)
whose shortcuts shrink by averaging (He et al. 2019, https://arxiv.org/abs/1812.01187), the two deepest with squeeze and
excitation (Hu et al. 2018, https://arxiv.org/abs/1709.01507), and a convolution of 1 x 1 that widens what they found.
The feature is the generalised mean (GeM) of its places, those in the middle counted more, where photos have their
subject; as shipped, it is centred, partly whitened and brought to fewer dimensions by a fixed linear map, which makes
cosines tell more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors.building import generalized_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

MODEL_FOLDER = Path(__file__).with_name("compact_model")
CARD, GRAPH, GRAPH_WEIGHTS, KERAS_WEIGHTS = "compact.json", "compact.xml", "compact.bin", "compact.weights.npz"


@dataclass(frozen=True)
class CompactShape:
    """What fixes the architecture, apart from the size of the picture.

    `widths` and `depths` hold one number a stage: channels, and residual blocks. The first stage works at half the
    size of the picture and every later one at half of the one before. The convolution after the last has `head`
    channels; there is none where that is 0. Stages from `excited_from` on have squeeze and excitation.
    """

    stem: int = 40
    widths: tuple[int, ...] = (40, 96, 192, 384)
    depths: tuple[int, ...] = (1, 1, 2, 1)
    excited_from: int = 2
    head: int = 768

    @property
    def pooled(self) -> int:
        """Numbers in a feature as it is trained."""
        return self.head or self.widths[-1]

    @property
    def dimension(self) -> int:
        """Numbers in a feature as it is shipped."""
        return self.widths[-1]


def build_compact(
    size: int | None,
    shape: CompactShape | None = None,
    *,
    folded: bool = False,
    whitened: bool = False,
    normalization: Callable[..., Any] | None = None,
) -> Any:
    """Build the network, with fresh weights, as a functional `keras.Model`.

    (n, size, size, 3) uint8 or float32 RGB, 0 to 255 -> (n, shape.pooled) float32 >= 0, not L2-normalised.

    With `folded` there is no batch normalisation and every convolution has a bias; with `whitened` a linear layer
    follows the feature: (n, shape.dimension), of any sign. Both together are the form that is shipped.
    `normalization` replaces `keras.layers.BatchNormalization` by another maker of layers with the same weights.
    A `size` of None leaves it open, for training. Raises ValueError unless `size` is a multiple of 16, which keeps
    every halving even, and at least 48, which leaves 3 x 3 places to pool.
    """
    import keras
    from keras import layers

    if size is not None and (size < 48 or size % 16):
        raise ValueError(f"size must be a multiple of 16 from 48, not {size}")
    shape = shape or CompactShape()
    norm = normalization or layers.BatchNormalization

    def convolution(x: Any, width: int, kernel: int, stride: int, name: str) -> Any:
        x = layers.Conv2D(
            width,
            kernel,
            stride,
            padding="same",
            use_bias=folded,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        return x if folded else norm(name=f"{name}_norm", momentum=0.98, epsilon=1e-3)(x)

    def excitation(x: Any, name: str) -> Any:
        width = x.shape[-1]
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
        gate = layers.Conv2D(width // 8, 1, activation="relu", name=f"{name}_reduce")(gate)
        gate = layers.Conv2D(width, 1, activation="sigmoid", name=f"{name}_expand")(gate)
        return layers.Multiply(name=f"{name}_excite")([x, gate])

    def block(x: Any, width: int, stride: int, excited: bool, name: str) -> Any:
        y = convolution(x, width, 3, stride, f"{name}_first")
        y = layers.ReLU(name=f"{name}_first_relu")(y)
        y = convolution(y, width, 3, 1, f"{name}_second")
        if excited:
            y = excitation(y, name)
        if stride > 1:
            x = layers.AveragePooling2D(stride, name=f"{name}_shrink")(x)
        if x.shape[-1] != width:
            x = convolution(x, width, 1, 1, f"{name}_shortcut")
        return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))

    pictures = keras.Input((size, size, 3), dtype="uint8", name="pictures")
    x = layers.Rescaling(1 / 64, offset=-2.0, name="scale")(pictures)  # 0..255 -> about -2..2
    x = convolution(x, shape.stem, 4, 2, "stem")  # (n, size, size, 3) -> (n, size / 2, size / 2, stem)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, (width, depth) in enumerate(zip(shape.widths, shape.depths, strict=True)):
        for step in range(depth):
            stride = 2 if stage > 0 and step == 0 else 1
            x = block(x, width, stride, stage >= shape.excited_from, f"stage{stage + 1}_block{step + 1}")
    if shape.head:
        x = layers.ReLU(name="head_relu")(convolution(x, shape.head, 1, 1, "head"))
    # (n, size / 16, size / 16, d) -> (n, d); the mean over 3 x 3 windows counts the middle more than the edges
    windows = layers.AveragePooling2D(3, strides=1, name="windows")
    mean = layers.GlobalAveragePooling2D(name="mean")
    x = keras.ops.cast(x, "float32")  # whatever the layers compute in
    feature = layers.Identity(name="feature")(generalized_mean(x, lambda cubes: mean(windows(cubes))))
    if whitened:
        feature = layers.Dense(shape.dimension, name="whitening")(feature)
    return keras.Model(pictures, feature, name="compact")


def named_weights(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Every weight of the model by "layer/variable", float32, in the order of the graph."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable, dtype=np.float32)
        for layer in model.layers
        for variable in layer.weights
    }


def set_named_weights(model: Any, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put weights in by name. Raises ExtractorError when names or shapes do not fit."""
    variables = {f"{layer.name}/{v.name}": v for layer in model.layers for v in layer.weights}
    if variables.keys() != weights.keys():
        differing = sorted(variables.keys() ^ weights.keys())
        raise ExtractorError(f"these weights do not fit the compact model: {', '.join(differing[:4])}")
    for name, variable in variables.items():
        value = np.asarray(weights[name], dtype=np.float32)
        if tuple(value.shape) != tuple(variable.shape):
            raise ExtractorError(f"weight {name} has shape {value.shape}, the model wants {tuple(variable.shape)}")
        variable.assign(value)


def fold_batch_norm(
    weights: Mapping[str, npt.NDArray[np.float32]], *, epsilon: float = 1e-3
) -> dict[str, npt.NDArray[np.float32]]:
    """Fold each batch normalisation into the convolution before it.

    Takes the weights of `build_compact(...)`, returns those of `build_compact(..., folded=True)`: gamma / sqrt(variance
    + epsilon) scales the kernel, and what is left of the shift becomes the bias.
    """
    folded: dict[str, npt.NDArray[np.float32]] = {}
    for name, value in weights.items():
        layer, variable = name.split("/")
        prefix = layer.removesuffix("_conv")
        if f"{prefix}_norm/gamma" in weights and variable == "kernel":
            gamma, beta, mean, variance = (
                weights[f"{prefix}_norm/{part}"].astype(np.float64)
                for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            scale = gamma / np.sqrt(variance + epsilon)
            folded[name] = (value * scale).astype(np.float32)  # (k, k, in, out) * (out,)
            folded[f"{layer}/bias"] = (beta - mean * scale).astype(np.float32)
        elif not layer.endswith("_norm"):
            folded[name] = value
    return folded


def read_card(folder: Path = MODEL_FOLDER) -> dict[str, Any]:
    """The shipped model's card: size, dimension, shape, SHA-256 of each file. Raises WeightsNotFoundError."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsNotFoundError(
            f"the compact model is missing: {folder / CARD} should have come with the package; install it again"
        ) from error
    return card


def checked_file(name: str, folder: Path = MODEL_FOLDER) -> Path:
    """Path of one file of the shipped model, after its SHA-256 was compared with the card.

    Raises WeightsNotFoundError where it is missing and ExtractorError where it was changed.
    """
    expected = read_card(folder)["sha256"][name]
    path = folder / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise WeightsNotFoundError(f"the compact model is incomplete: {path} is missing; install it again") from error
    if found != expected:
        raise ExtractorError(
            f"{path} is not the file that was released (SHA-256 {found[:12]}, not {expected[:12]}); install it again"
        )
    return path


def graph_file(folder: Path = MODEL_FOLDER) -> Path:
    """The OpenVINO graph of the shipped model, it and its weights checked.

    (n, size, size, 3) uint8 RGB -> (n, dimension) float32, not L2-normalised; `size` and `dimension` are in the card.
    """
    checked_file(GRAPH_WEIGHTS, folder)
    return checked_file(GRAPH, folder)


def load_compact(folder: Path = MODEL_FOLDER, *, size: int | None = None) -> Any:
    """The shipped model as a Keras model, to train further; `size` may differ from the size it was shipped for.

    Batch normalisation is folded in; the layer "feature" gives what stands before the whitening. Raises
    WeightsNotFoundError or ExtractorError, as `checked_file` does.
    """
    card = read_card(folder)
    shape = CompactShape(
        stem=card["shape"]["stem"],
        widths=tuple(card["shape"]["widths"]),
        depths=tuple(card["shape"]["depths"]),
        excited_from=card["shape"]["excited_from"],
        head=card["shape"].get("head", 0),  # a model of an earlier version has none
    )
    model = build_compact(size or card["size"], shape, folded=True, whitened=True)
    with np.load(checked_file(KERAS_WEIGHTS, folder), allow_pickle=False) as weights:
        set_named_weights(model, dict(weights))
    return model
