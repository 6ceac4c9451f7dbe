"""The network: a backbone, a scale, the new dense layer, L2 normalisation. All of it layers that Keras itself has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.extractors import backbones, shipped
from searchengine.extractors.building import Built
from searchengine.extractors.export import load_model
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.names import check_name
from searchengine.extractors.spec import ExtractorSpec
from searchengine.extractors.weights import locate

if TYPE_CHECKING:
    from collections.abc import Callable

_ROWS = 1024  # from which directions are taken


@dataclass(frozen=True, slots=True)
class Head:
    """The layers that are put on a backbone: ``scale`` is fixed, ``dense`` learns, ``unit`` brings to length one."""

    scale: Any
    dense: Any
    unit: Any

    def on(self, features: Any) -> Any:
        """(n, d) features -> (n, dim) embeddings of length one."""
        return self.unit(self.dense(self.scale(features)))

    @property
    def weights(self) -> list[Any]:
        """What learns."""
        return list(self.dense.trainable_variables)


def new_head(features: NDArray[np.float32], dim: int, seed: int) -> Head:
    """A head that begins where the backbone is: its embeddings are as far from each other as the features were.

    The dense layer starts as the ``dim`` directions that hold most of the features (a singular value decomposition of
    some of them), so that of their cosines as little as possible is lost; numbers beyond the directions that there are
    start near zero.

    Args:
        features: (n, d) float32, as the backbone gives them; n >= 1.
        dim: numbers an embedding.
        seed: of the choice of rows.
    """
    from keras import layers

    random = np.random.default_rng(seed)
    length = float(np.linalg.norm(features, axis=1).mean())
    some = features[random.permutation(len(features))[:_ROWS]].astype(np.float64)
    directions = np.linalg.svd(some, full_matrices=False)[2][:dim]  # (r, d), r <= dim
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


def load_backbone(spec: ExtractorSpec, weights_file: Path | None, say: Callable[[str], None]) -> Built:
    """The backbone of a spec as a Keras model, (n, h, w, 3) uint8 -> (n, d) float32, with its weights.

    The errors of ``extractors.load_extractor``.
    """
    import_keras()
    if spec.model == backbones.COMPACT:
        return shipped.built(spec)
    return load_model(spec, locate(spec, weights_file), say)


def joined(built: Built, head: Head) -> Any:
    """The whole as one Keras model: (n, h, w, 3) uint8 RGB -> (n, dim) float32 of length one."""
    import keras

    return keras.Model(built.model.inputs[0], head.on(built.model.outputs[0]), name="metric")


def thawed(built: Built, layer: str) -> list[Any]:
    """The variables of a backbone from a layer on, in the order of the network.

    Raises UnknownNameError for a layer that it has not, and LearningError where nothing after it could learn.
    """
    names = [one.name for one in built.network.layers]
    check_name("layer of the backbone", layer, names)
    used = {id(variable) for variable in built.model.trainable_variables}
    later: Sequence[Any] = built.network.layers[names.index(layer) :]
    found = [variable for one in later for variable in one.trainable_variables if id(variable) in used]
    if not found:
        raise LearningError(
            f"From {layer} on nothing in the backbone has weights: name an earlier layer with --thaw, or leave it out."
        )
    return found
