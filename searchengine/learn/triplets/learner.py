"""Gradient descent on the triplet loss: its settings, the loss, steps of a batch, epochs, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import LearningError
from searchengine.learn.triplets.epochs import Checkpoint, Epoch, Scores, State, best_of
from searchengine.learn.triplets.sampling import (
    ClassBatches,
    RandomTriplets,
    Triplets,
    hard,
    semihard,
    squared_distances,
)

TRIPLETS = ("random", "semihard", "hard")
SPLITS = ("image", "class")
_EMBED_BATCH = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the metric is learnt.

    Attributes:
        dim: numbers in an embedding.
        margin: of the loss, in squared distance.
        triplets: how they are chosen, one of ``TRIPLETS``.
        batch: triplets in a batch for "random"; images in a batch for the others.
        images_a_class: images of each class in a batch; not for "random".
        learning_rate: of Adam.
        weight_decay: times the learning rate, the share of the way back to their start that weights go at each step.
        blend: the model that is validated and written has weights ``start + blend * (learnt - start)``. 1 is what was
            learnt; less keeps more of what the backbone knows of other classes.
        dropout: share of a feature's numbers that a step leaves out; frozen backbones only.
        views: augmented variants of each image besides itself. For a frozen backbone they are made once, for a thawed
            one again at each step.
        thaw: the first layer of the backbone that learns; None if only the new layer does.
        split: what is held back for validation: some images of each class, or all images of some classes.
        validation: share of the images, or of the classes, that is held back.
        epochs: at most.
        patience: epochs without a better mAP after which training stops.
        seed: of everything random.
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
        """Refuse values that make no sense; LearningError."""
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


def triplet_loss(embeddings: Any, triplets: Any, margin: float) -> Any:
    """Mean of max(0, D(a, p) - D(a, n) + margin) over triplets.

    D is the squared Euclidean distance, as in FaceNet (Schroff, Kalenichenko and Philbin 2015,
    https://arxiv.org/abs/1503.03832): 0 to 4 between embeddings of length 1.

    Args:
        embeddings: (b, d) float, a Keras tensor or an array.
        triplets: (t, 3) int, rows of anchor, positive and negative.
        margin: by how much the negative should be farther away.

    Returns:
        a scalar >= 0; 0 where there are no triplets.
    """
    from keras import ops

    anchors = ops.take(embeddings, triplets[:, 0], axis=0)  # (b, d) -> (t, d)
    positives = ops.take(embeddings, triplets[:, 1], axis=0)
    negatives = ops.take(embeddings, triplets[:, 2], axis=0)
    near = ops.sum(ops.square(anchors - positives), axis=1)  # (t, d) -> (t,)
    far = ops.sum(ops.square(anchors - negatives), axis=1)
    each = ops.maximum(near - far + margin, 0.0)
    return ops.sum(each) / ops.maximum(ops.cast(ops.shape(each)[0], each.dtype), 1.0)


class NotFiniteError(ArithmeticError):
    """The loss or an embedding is NaN or infinite."""


class Source(Protocol):
    """Training inputs: features where the backbone is frozen, else pictures."""

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[Any]:
        """(b,) rows -> (b, ...), each varied as the recipe says."""
        ...

    def plain(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(b,) rows -> (b, ...) as they are."""
        ...


class Learner:
    """A network and the Adam optimiser that trains it (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    It computes as in inference: batch statistics of small batches would harm the backbone. Weights decay towards their
    start instead of zero (L2-SP; Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483), decoupled from the
    gradient (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101).
    """

    def __init__(
        self, model: Any, variables: Sequence[Any], source: Source, labels: NDArray[np.int64], recipe: Recipe
    ) -> None:
        """``variables`` of the ``model`` learn, starting from their present values; ``labels`` (n,) int64 are those of
        the rows of ``source``."""
        import keras
        import tensorflow as tf

        self._variables = list(variables)
        self._source, self._labels, self.recipe = source, labels, recipe
        # Three compiled pieces, because the miner between the first two is plain NumPy.
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

    def batches(self, rows: NDArray[np.int64]) -> int:
        """The number of batches in an epoch over these (m,) rows."""
        return len(self._batches(rows))

    def epoch(self, number: int, rows: NDArray[np.int64], advance: Callable[[], None] = lambda: None) -> float:
        """Learn from these (m,) rows once, as a function of seed and number alone; returns the mean loss.

        ``advance`` is called after each batch. NotFiniteError where the loss is NaN or infinite.
        """
        random = np.random.default_rng((self.recipe.seed, number, 1))
        losses = []
        for batch in self._batches(rows).epoch(number):
            batch_rows = rows[batch.rows]
            losses.append(self._step(self._source.draw(batch_rows, random), self._labels[batch_rows], batch.triplets))
            advance()
        return float(np.mean(losses))

    def _batches(self, rows: NDArray[np.int64]) -> RandomTriplets | ClassBatches:
        recipe, labels = self.recipe, self._labels[rows]
        if recipe.triplets == "random":
            return RandomTriplets(labels, size=recipe.batch, seed=recipe.seed)
        return ClassBatches(labels, size=recipe.batch, images_a_class=recipe.images_a_class, seed=recipe.seed)

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
        """(m,) rows -> (m, dim) float32 embeddings. NotFiniteError where one is NaN or infinite."""
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
        """A copy of all that changes from step to step."""
        return State(
            [np.array(variable.value) for variable in self._variables],
            [np.array(variable.value) for variable in self._optimizer.variables],
        )

    def blended(self, weights: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """``start + blend * (weights - start)``: the average of both (WiSE-FT; Wortsman et al. 2022,
        https://arxiv.org/abs/2109.01903) keeps most of what was learnt and most of what the start was good at."""
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


def start_training(learner: Learner, judge: Callable[[], Scores], settings: Mapping[str, Any]) -> Checkpoint:
    """The state before the first epoch. It counts as epoch 0, so the best epoch is never worse than the start.

    LearningError where the backbone makes an embedding NaN or infinite.
    """
    began = time.monotonic()
    state = learner.state()
    try:
        scores = judge()
    except NotFiniteError as error:
        raise LearningError(
            "An embedding is NaN or infinite before anything was learnt: the numbers of the backbone are too large, or "
            "its weights are damaged. Nothing was written. Choose another --layer, --backbone or --weights."
        ) from error
    return Checkpoint(settings, (_epoch(0, None, scores, began),), state, state.weights)


def further_epochs(
    learner: Learner,
    rows: NDArray[np.int64],
    judge: Callable[[], Scores],
    state: Checkpoint,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Checkpoint]:
    """The state after each further epoch, until the recipe of the learner is done or nothing gets better.

    Args:
        learner: in the last state of ``state``.
        rows: (m,) int64, the training part.
        judge: scores the learner with its present weights on the validation part.
        state: where to start.
        advance: called after each batch.

    Raises:
        NotFiniteError: the loss became NaN or infinite; the state before that is sound.
    """
    while not _done(state.epochs, learner.recipe):
        began = time.monotonic()
        number = state.epochs[-1].number + 1
        loss = learner.epoch(number, rows, advance)
        last = learner.state()
        blended = learner.blended(last.weights)
        learner.restore_weights(blended)
        epoch = _epoch(number, loss, judge(), began)
        learner.restore_weights(last.weights)
        better = epoch.mean_average_precision > best_of(state.epochs).mean_average_precision
        state = Checkpoint(state.settings, (*state.epochs, epoch), last, blended if better else state.best)
        yield state


def _epoch(number: int, loss: float | None, scores: Scores, began: float) -> Epoch:
    seconds = time.monotonic() - began
    return Epoch(number, loss, scores.triplet_accuracy, scores.precision, scores.mean_average_precision, seconds)


def _done(epochs: Sequence[Epoch], recipe: Recipe) -> bool:
    last = epochs[-1].number
    return last >= recipe.epochs or last - best_of(epochs).number >= recipe.patience
