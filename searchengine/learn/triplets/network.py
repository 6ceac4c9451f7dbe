"""The network: a backbone, a scale, the new dense layer, L2 normalisation. All are ordinary Keras layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError, check_name
from searchengine.extractors.loading import source_of
from searchengine.extractors.models import is_preset
from searchengine.extractors.networks import BuiltModel
from searchengine.extractors.source import is_model_file
from searchengine.extractors.spec import ExtractorSpec
from searchengine.progress import Say

_ROWS = 1024  # features from which the first directions are computed
# Layers that may follow the last dense layer of a classifier or a metric.
_AFTER_DENSE = {"Activation", "Softmax", "UnitNormalization", "Dropout", "BatchNormalization", "LayerNormalization"}


@dataclass(frozen=True, slots=True)
class Head:
    """The layers on top of a backbone: ``scale`` is fixed, ``dense`` learns, ``unit`` normalises to length 1."""

    scale: Any
    dense: Any
    unit: Any

    def on(self, features: Any) -> Any:
        """(n, d) features -> (n, dim) embeddings of length 1."""
        return self.unit(self.dense(self.scale(features)))

    @property
    def weights(self) -> list[Any]:
        """The variables that learn."""
        return list(self.dense.trainable_variables)


def new_head(features: NDArray[np.float32], dim: int, seed: int) -> Head:
    """A head that starts with the distances of the backbone's features.

    The dense layer starts as a projection on the ``dim`` main directions of the features (a singular value
    decomposition of some of them), which changes their cosines as little as possible. Dimensions beyond the number of
    directions start near zero.

    Args:
        features: (n, d) float32, raw features of the backbone; n >= 1.
        dim: numbers in an embedding.
        seed: of the choice of features.
    """
    from keras import layers

    random = np.random.default_rng(seed)
    length = float(np.linalg.norm(features, axis=1).mean())
    sample = features[random.permutation(len(features))[:_ROWS]].astype(np.float64)
    directions = np.linalg.svd(sample, full_matrices=False)[2][:dim]  # (r, d), r <= dim
    width = features.shape[1]
    kernel = 0.01 * random.standard_normal((width, dim)) / np.sqrt(width)
    kernel[:, : len(directions)] = directions.T
    head = Head(
        layers.Rescaling(1.0 / max(length, 1e-12), name="feature_scale"),
        layers.Dense(dim, name="embedding"),
        layers.UnitNormalization(name="unit"),
    )
    head.dense.build((None, width))
    head.dense.set_weights([kernel.astype(np.float32), np.zeros(dim, dtype=np.float32)])
    return head


def load_backbone(spec: ExtractorSpec, weights_file: Path | None, say: Say) -> BuiltModel:
    """The backbone of a spec as a Keras model, (n, h, w, 3) uint8 -> (n, d) float32, with its weights.

    Raises the errors of ``extractors.load_extractor``, and LearningError for a model of KerasHub, whose layers a .keras
    file cannot be opened with.
    """
    if is_preset(spec.model):
        raise LearningError(f"{spec.title.partition(',')[0]} cannot be trained here. Choose a network of Keras.")
    source = source_of(spec.model)
    return source.build(spec, source.locate(spec, weights_file, say), "float32")


def joined(built: BuiltModel, head: Head) -> Any:
    """Backbone and head as one Keras model: (n, h, w, 3) uint8 RGB -> (n, dim) float32 of length 1."""
    import keras

    return keras.Model(built.model.inputs[0], head.on(built.model.outputs[0]), name="metric")


def thawed(built: BuiltModel, first_layer: str) -> list[Any]:
    """The variables of a backbone from a layer on, in the order of the network.

    Raises UnknownNameError if it has no such layer, and LearningError if nothing from that layer on has weights.
    """
    names = [layer.name for layer in built.network.layers]
    check_name("layer of the backbone", first_layer, names)
    used = {id(variable) for variable in built.model.trainable_variables}
    layers: Sequence[Any] = built.network.layers[names.index(first_layer) :]
    variables = [variable for layer in layers for variable in layer.trainable_variables if id(variable) in used]
    if not variables:
        raise LearningError(
            f"Nothing from {first_layer} on has weights. Name an earlier layer of the backbone with --thaw, or "
            "leave it out."
        )
    return variables


def layer_before_last_dense(backbone: str) -> str | None:
    """Where to cut a ``.keras`` file so that its last dense layer is replaced.

    None where it does not end in a dense layer, which keeps all of it, and for published models, whose layer is known.
    Raises the errors of ``ModelSource.describe``.
    """
    if not is_model_file(backbone):
        return None
    layers = list(source_of("own").describe(backbone).layers.values())
    while layers and layers[-1].kind in _AFTER_DENSE:
        layers.pop()
    return layers[-2].name if len(layers) > 1 and layers[-1].kind == "Dense" else None
