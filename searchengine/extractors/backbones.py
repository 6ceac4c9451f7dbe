"""The networks that features are taken from: a table, and how a line of it becomes a truncated Keras model."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchengine.extractors.names import check_name

if TYPE_CHECKING:
    import keras

    from searchengine.extractors.spec import ExtractorSpec

COMPACT = "compact"
POOLINGS = ("none", "avg", "max")

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A weights file as its publisher offers it; ``megabytes`` is for messages."""

    url: str
    md5: str
    megabytes: int

    @property
    def file_name(self) -> str:
        """The name under which Keras caches it."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Backbone:
    """One network of keras.applications.

    ``module`` also holds its ``preprocess_input``, which does nothing for the families that preprocess inside the
    model. ``head`` names the layers that exist only with the classification head; the others can do with the smaller
    ``without_head`` file. ``layers`` are all names that can be chosen; empty where only the built network knows them.
    """

    title: str
    module: str
    input_size: tuple[int, int]
    default_layer: str
    head: frozenset[str]
    with_head: PublishedWeights
    without_head: PublishedWeights
    layers: tuple[str, ...] = ()

    def published_for(self, layer: str) -> list[PublishedWeights]:
        """The files that will do for this layer, the smallest first."""
        return [self.with_head] if layer in self.head else [self.without_head, self.with_head]


def _vgg(title: str, convolutions: tuple[int, ...], files: tuple[PublishedWeights, PublishedWeights]) -> Backbone:
    head = ("flatten", "fc1", "fc2", "predictions")
    blocks = [
        [*(f"block{number}_conv{i + 1}" for i in range(count)), f"block{number}_pool"]
        for number, count in enumerate(convolutions, start=1)
    ]
    layers = (*(name for block in blocks for name in block), *head)
    return Backbone(title, title.lower(), (224, 224), "fc2", frozenset(head), *files, layers)


def _kernels(path: str, *, top: tuple[str, int], notop: tuple[str, int]) -> tuple[PublishedWeights, PublishedWeights]:
    stem = f"{_KERAS_FILES}/{path}_weights_tf_dim_ordering_tf_kernels"
    return PublishedWeights(f"{stem}.h5", *top), PublishedWeights(f"{stem}_notop.h5", *notop)


# The hashes are those of the source of keras.applications.
BACKBONES: dict[str, Backbone] = {
    "vgg16": _vgg(
        "VGG16",
        (2, 2, 3, 3, 3),
        _kernels(
            "vgg16/vgg16",
            top=("64373286793e3c8b2b4e3219cbf3544b", 553),
            notop=("6d6bbae143d832006294945121d1f1fc", 59),
        ),
    ),
    "vgg19": _vgg(
        "VGG19",
        (2, 2, 4, 4, 4),
        _kernels(
            "vgg19/vgg19",
            top=("cbe5617147190e668d6c5d5026f83318", 575),
            notop=("253f8cb515780f3b799900260a226db6", 80),
        ),
    ),
    "resnet50": Backbone(
        "ResNet50",
        "resnet",
        (224, 224),
        "avg_pool",
        frozenset({"avg_pool", "predictions"}),
        *_kernels(
            "resnet/resnet50",
            top=("2cb95161c43110f7111970584f804107", 103),
            notop=("4d473c1dd8becc155b73f8504c6f6626", 95),
        ),
    ),
}


def model_names() -> list[str]:
    """Every model that can be asked for."""
    return [*BACKBONES, COMPACT]


def display_name(model: str) -> str:
    """As people write it; a name that is not in the table stays as it is."""
    if model == COMPACT:
        return "compact model"
    return BACKBONES[model].title if model in BACKBONES else model


def build(spec: ExtractorSpec, *, head: bool, policy: str = "float32") -> tuple[keras.Model, keras.Model]:
    """The model that turns pixels into features, and the whole network that takes the weights; they share layers.

    The first maps (n, h, w, 3) uint8 RGB to (n, d) float32, not normalised; the second is the network of
    keras.applications with or without its head, weights random. UnknownNameError when it has no such layer.
    Keras's session is cleared: automatic layer names would otherwise change on a second build.
    """
    import keras

    backbone = BACKBONES[check_name("model", spec.model, BACKBONES)]
    family = importlib.import_module(f"keras.applications.{backbone.module}")
    keras.utils.clear_session()
    with dtype_policy(policy):
        network = getattr(family, backbone.title)(weights=None, include_top=head, input_shape=(*spec.input_size, 3))
        layer = check_name(f"layer of {backbone.title}", spec.layer or "", [one.name for one in network.layers])
        cut = keras.Model(network.inputs, network.get_layer(layer).output)

        pixels = keras.Input((*spec.input_size, 3), dtype="uint8", name="pixels")
        # (n, h, w, 3) uint8 RGB -> float32, centred or scaled as the family was trained
        features = cut(family.preprocess_input(keras.ops.cast(pixels, "float32")))
        # (n, h', w', c) -> (n, c), or (n, h' * w' * c) without pooling; a dense layer is (n, d) as it is
        if len(features.shape) == 4 and spec.pooling == "avg":
            features = keras.layers.GlobalAveragePooling2D()(features)
        elif len(features.shape) == 4 and spec.pooling == "max":
            features = keras.layers.GlobalMaxPooling2D()(features)
        elif len(features.shape) > 2:
            features = keras.layers.Flatten()(features)
        return in_float32(keras.Model(pixels, features)), network


def in_float32(model: keras.Model) -> keras.Model:
    """The same model, its output float32 whatever it computes in."""
    import keras

    return keras.Model(model.inputs, keras.ops.cast(model.outputs[0], "float32"))


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
