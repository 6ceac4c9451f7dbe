"""The network that learns a metric: its settings, its layers, the triplet loss, and training steps.

The network is a backbone, a scale, a new dense layer and L2 normalisation, all of them ordinary Keras layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError, check_name
from searchengine.extractors.loading import source_of
from searchengine.extractors.models import is_preset
from searchengine.extractors.networks import BuiltModel
from searchengine.extractors.source import is_model_file
from searchengine.extractors.spec import ExtractorSpec
from searchengine.learn.triplets.sampling import (
    Batch,
    Triplets,
    class_batches,
    hard,
    random_triplets,
    semihard,
    squared_distances,
)
from searchengine.progress import Say

TRIPLETS = ("random", "semihard", "hard")
SPLITS = ("image", "class")
_EMBED_BATCH = 64
_SAMPLE = 1024  # number of features from which the main directions are computed
# Layers that may follow the last dense layer of a classifier or a metric.
_AFTER_DENSE = {"Activation", "Softmax", "UnitNormalization", "Dropout", "BatchNormalization", "LayerNormalization"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of the network and its training.

    Attributes:
        dim: length of an embedding.
        margin: margin of the loss, in squared distance.
        triplets: how triplets are chosen, one of ``TRIPLETS``.
        batch: triplets per batch for "random"; images per batch for the others.
        images_a_class: images of each class in a batch; not used for "random".
        learning_rate: learning rate of Adam.
        weight_decay: at each step, weights move back to their start by this share times the learning rate.
        blend: the model that is validated and written has weights ``start + blend * (learnt - start)``. 1 uses the
            learnt weights; less preserves more of what the backbone knows of other classes.
        dropout: share of a feature's numbers that a step leaves out; for frozen backbones only.
        views: augmented variants of each image besides itself. For a frozen backbone they are made once; for a thawed
            one, again at each step.
        thaw: first layer of the backbone that learns; None if only the new layer does.
        split: whether validation holds out some images of each class ("image") or all images of some classes ("class").
        validation: share of the images, or of the classes, to hold out.
        epochs: maximum number of epochs.
        patience: number of epochs without a better mAP after which training stops.
        seed: seed for all randomness.
    """

    dim: int = 384
    margin: float = 0.2
    triplets: str = "semihard"
    batch: int = 32
    images_a_class: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    blend: float = 0.4
    dropout: float = 0.0
    views: int = 0
    thaw: str | None = None
    split: str = "image"
    validation: float = 0.2
    epochs: int = 60
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise LearningError for values that make no sense."""
        faults = {
            f"--triplets must be one of {', '.join(TRIPLETS)}": self.triplets not in TRIPLETS,
            f"--split must be one of {', '.join(SPLITS)}": self.split not in SPLITS,
            "--dim, --batch, --epochs and --patience must be at least 1": min(
                self.dim, self.batch, self.epochs, self.patience
            )
            < 1,
            "--images-a-class must be at least 2": self.images_a_class < 2,
            "--views and --seed must be at least 0": min(self.views, self.seed) < 0,
            "--margin and --learning-rate must be above 0": not (self.margin > 0 and self.learning_rate > 0),
            "--weight-decay must be at least 0, and times --learning-rate at most 1": not (
                self.weight_decay >= 0 and self.weight_decay * self.learning_rate <= 1
            ),
            "--blend must be above 0 and at most 1": not 0 < self.blend <= 1,
            "--dropout must be at least 0 and below 1": not 0 <= self.dropout < 1,
            "--validation must be above 0 and below 1": not 0 < self.validation < 1,
        }
        for message, is_wrong in faults.items():
            if is_wrong:
                raise LearningError(f"{message}.")


# -- the network -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The layers on top of a backbone: ``scale`` is fixed, ``dense`` learns, ``unit`` normalises to length 1."""

    scale: Any
    dense: Any
    unit: Any

    def on(self, features: Any) -> Any:
        """Apply the head to (n, d) features, giving (n, dim) embeddings of length 1."""
        return self.unit(self.dense(self.scale(features)))

    @property
    def weights(self) -> list[Any]:
        """The variables that learn."""
        return list(self.dense.trainable_variables)


def new_head(features: NDArray[np.float32], dim: int, seed: int) -> Head:
    """Create a head that initially preserves the distances of the backbone's features.

    The dense layer starts as a projection onto the ``dim`` main directions of the features (a singular value
    decomposition of some of them), which changes their cosines as little as possible. Dimensions beyond the number of
    directions start near zero.

    Args:
        features: (n, d) float32, raw features of the backbone; n >= 1.
        dim: length of an embedding.
        seed: seed for the choice of features.
    """
    from keras import layers

    random = np.random.default_rng(seed)
    length = float(np.linalg.norm(features, axis=1).mean())
    sample = features[random.permutation(len(features))[:_SAMPLE]].astype(np.float64)
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
    """Return the backbone of a spec as a Keras model with its weights: (n, h, w, 3) uint8 -> (n, d) float32.

    Raises the errors of ``extractors.load_extractor``, and LearningError for a KerasHub model, because a .keras file
    with its layers could not be opened.
    """
    if is_preset(spec.model):
        raise LearningError(
            f"{spec.title.partition(',')[0]} cannot be trained here. Choose a network of Keras instead."
        )
    source = source_of(spec.model)
    return source.build(spec, source.locate(spec, weights_file, say), "float32")


def joined(built: BuiltModel, head: Head) -> Any:
    """Join backbone and head into one Keras model: (n, h, w, 3) uint8 RGB -> (n, dim) float32 of length 1."""
    import keras

    return keras.Model(built.model.inputs[0], head.on(built.model.outputs[0]), name="metric")


def thawed(built: BuiltModel, first_layer: str) -> list[Any]:
    """Return the variables of a backbone from a layer on, in the order of the network.

    Raises UnknownNameError if it has no such layer, and LearningError if nothing from that layer on has weights.
    """
    names = [layer.name for layer in built.network.layers]
    check_name("layer of the backbone", first_layer, names)
    used = {id(variable) for variable in built.model.trainable_variables}
    layers: Sequence[Any] = built.network.layers[names.index(first_layer) :]
    variables = [variable for layer in layers for variable in layer.trainable_variables if id(variable) in used]
    if not variables:
        raise LearningError(
            f"No layer from {first_layer} on has weights to train. Name an earlier layer of the backbone with --thaw, "
            "or leave it out."
        )
    return variables


def layer_before_last_dense(backbone: str) -> str | None:
    """Return where to cut a ``.keras`` file so that its last dense layer is replaced.

    Returns None if it does not end in a dense layer, so that all of it is kept, and for published models, whose layer
    is known. Raises the errors of ``ModelSource.describe``.
    """
    if not is_model_file(backbone):
        return None
    layers = list(source_of("own").describe(backbone).layers.values())
    while layers and layers[-1].kind in _AFTER_DENSE:
        layers.pop()
    return layers[-2].name if len(layers) > 1 and layers[-1].kind == "Dense" else None


# -- the loss and its minimisation -------------------------------------------------------------------------------------


def triplet_loss(embeddings: Any, triplets: Any, margin: float) -> Any:
    """Return the mean of max(0, D(a, p) - D(a, n) + margin) over triplets.

    D is the squared Euclidean distance, as in FaceNet (Schroff, Kalenichenko and Philbin 2015,
    https://arxiv.org/abs/1503.03832): 0 to 4 between embeddings of length 1.

    Args:
        embeddings: (b, d) float, a Keras tensor or an array.
        triplets: (t, 3) int, rows of anchor, positive and negative.
        margin: by how much the negative should be farther away than the positive.

    Returns:
        A scalar >= 0; 0 if there are no triplets.
    """
    from keras import ops

    anchors = ops.take(embeddings, triplets[:, 0], axis=0)  # (b, d) -> (t, d)
    positives = ops.take(embeddings, triplets[:, 1], axis=0)
    negatives = ops.take(embeddings, triplets[:, 2], axis=0)
    near = ops.sum(ops.square(anchors - positives), axis=1)  # (t, d) -> (t,)
    far = ops.sum(ops.square(anchors - negatives), axis=1)
    losses = ops.maximum(near - far + margin, 0.0)
    return ops.sum(losses) / ops.maximum(ops.cast(ops.shape(losses)[0], losses.dtype), 1.0)


def batches_of(epoch: int, labels: NDArray[np.int64], recipe: Recipe) -> list[Batch]:
    """Return the batches of an epoch over images with (m,) labels; each epoch has the same number."""
    random = np.random.default_rng((recipe.seed, epoch))
    if recipe.triplets == "random":
        return random_triplets(labels, recipe.batch, random)
    return class_batches(labels, recipe.batch, recipe.images_a_class, random)


class NotFiniteError(ArithmeticError):
    """The loss or an embedding is NaN or infinite."""


class Source(Protocol):
    """Training inputs: features for a frozen backbone, else pictures."""

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[Any]:
        """Return the inputs of (b,) rows, (b, ...), each varied as the recipe says."""
        ...

    def plain(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the inputs of (b,) rows, (b, ...), without variation."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that changes from step to step: the ``weights`` that learn, and the variables of the ``optimizer``."""

    weights: list[NDArray[np.float32]]
    optimizer: list[NDArray[Any]]


class Learner:
    """A network and the Adam optimiser that trains it (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    The network computes as in inference, because batch statistics of small batches would harm the backbone. Weights
    decay towards their start instead of zero (L2-SP; Li, Grandvalet and Davoine 2018,
    https://arxiv.org/abs/1802.01483), decoupled from the gradient (Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101).

    Args:
        model: the network.
        variables: its variables that learn, starting from their present values.
        source: the training inputs.
        labels: (n,) int64, the labels of the rows of ``source``.
        recipe: the settings.
    """

    def __init__(
        self, model: Any, variables: Sequence[Any], source: Source, labels: NDArray[np.int64], recipe: Recipe
    ) -> None:
        import keras
        import tensorflow as tf

        self._variables = list(variables)
        self._source, self._labels, self.recipe = source, labels, recipe
        # Compiled in three pieces, because the miner between the first two is plain NumPy.
        width, inputs = model.output_shape[-1], model.inputs[0]
        self._embed = tf.function(
            lambda batch: model(batch, training=False), input_signature=[tf.TensorSpec(inputs.shape, inputs.dtype)]
        )
        self._loss = tf.function(
            lambda embeddings, triplets: triplet_loss(embeddings, triplets, recipe.margin),
            input_signature=[tf.TensorSpec((None, width), tf.float32), tf.TensorSpec((None, 3), tf.int64)],
        )
        self._optimizer = keras.optimizers.Adam(recipe.learning_rate)
        self._optimizer.build(self._variables)
        self._start = [np.array(variable.value) for variable in self._variables]
        start = [tf.constant(value) for value in self._start]
        pull = recipe.learning_rate * recipe.weight_decay

        def apply(gradients: Any) -> None:
            self._optimizer.apply(gradients, self._variables)
            if pull:
                for variable, value in zip(self._variables, start, strict=True):
                    variable.assign(variable - pull * (variable - value))

        self._apply = tf.function(apply)

    def epoch(self, number: int, rows: NDArray[np.int64], advance: Callable[[], None] = lambda: None) -> float:
        """Train on these (m,) rows once and return the mean loss; the result depends only on the seed and ``number``.

        ``advance`` is called after each batch. Raises NotFiniteError if the loss is NaN or infinite.
        """
        random = np.random.default_rng((self.recipe.seed, number, 1))
        losses = []
        for places, triplets in batches_of(number, self._labels[rows], self.recipe):
            chosen = rows[places]
            losses.append(self._step(self._source.draw(chosen, random), self._labels[chosen], triplets))
            advance()
        return float(np.mean(losses))

    def _step(self, inputs: NDArray[Any], labels: NDArray[np.int64], triplets: Triplets | None) -> float:
        import tensorflow as tf

        watched = [variable.value for variable in self._variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            embeddings = self._embed(tf.constant(inputs))  # (b, ...) -> (b, dim)
            if triplets is None:
                triplets = self._mine(np.asarray(embeddings), labels)
            loss = self._loss(embeddings, tf.constant(triplets))
        value = float(loss)
        if not np.isfinite(value):
            raise NotFiniteError
        if value > 0.0:
            self._apply(tape.gradient(loss, watched))
        return value

    def _mine(self, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> Triplets:
        if not np.isfinite(embeddings).all():
            raise NotFiniteError
        distances = squared_distances(embeddings)
        if self.recipe.triplets == "hard":
            return hard(distances, labels)
        return semihard(distances, labels, self.recipe.margin)

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embed (m,) rows as (m, dim) float32. Raises NotFiniteError if an embedding is NaN or infinite."""
        import tensorflow as tf

        parts = [
            np.asarray(self._embed(tf.constant(self._source.plain(rows[start : start + _EMBED_BATCH]))))
            for start in range(0, len(rows), _EMBED_BATCH)
        ]
        embeddings = np.concatenate(parts)
        if not np.isfinite(embeddings).all():
            raise NotFiniteError
        return embeddings

    def state(self) -> State:
        """Return a copy of the state."""
        return State(
            [np.array(variable.value) for variable in self._variables],
            [np.array(variable.value) for variable in self._optimizer.variables],
        )

    def blended(self, weights: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return ``start + blend * (weights - start)``, the weighted average of both.

        It keeps most of what was learnt and most of what the start was good at (WiSE-FT; Wortsman et al. 2022,
        https://arxiv.org/abs/2109.01903).
        """
        share = np.float32(self.recipe.blend)
        return [start + share * (learnt - start) for start, learnt in zip(self._start, weights, strict=True)]

    def restore(self, state: State) -> None:
        """Set weights and optimiser."""
        self.restore_weights(state.weights)
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)

    def restore_weights(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Set the weights, and leave the optimiser as it is."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value)
