"""Steps of gradient descent on the triplet loss: embed a batch, mine its triplets, learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.learn.triplets import miners
from searchengine.learn.triplets.batches import ClassBatches, RandomTriplets
from searchengine.learn.triplets.losses import triplet_loss
from searchengine.learn.triplets.recipe import Recipe

_EMBEDDED_AT_ONCE = 64


class NotFiniteError(ArithmeticError):
    """The loss or an embedding is no number any more."""


class Source(Protocol):
    """What the network is fed with: features where the backbone is frozen, else pictures."""

    def draw(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[Any]:
        """(b,) rows -> (b, ...), each varied as the recipe says."""
        ...

    def plain(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(b,) rows -> (b, ...) as they are."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """``weights`` that learn, and the variables of the ``optimizer``."""

    weights: list[NDArray[np.float32]]
    optimizer: list[NDArray[Any]]


class Learner:
    """A network that learns, by Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    It computes as in inference: statistics of small batches would do the backbone harm. Weights decay towards where
    they began, not towards zero (L2-SP; Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483), apart from
    the gradient (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101): what the backbone knew is kept where
    the labels do not speak against it.
    """

    def __init__(
        self, model: Any, variables: Sequence[Any], source: Source, labels: NDArray[np.int64], recipe: Recipe
    ) -> None:
        """``variables`` of the ``model`` learn, from the values that they have now; ``labels`` (n,) int64 are those of
        the rows of ``source``."""
        import keras
        import tensorflow as tf

        self._variables = list(variables)
        self._source, self._labels, self._recipe = source, labels, recipe
        # Three compiled pieces, because the miner between the first two is plain NumPy.
        width, kind = model.output_shape[-1], model.inputs[0]
        self._embed = tf.function(
            lambda inputs: model(inputs, training=False), input_signature=[tf.TensorSpec(kind.shape, kind.dtype)]
        )
        self._loss = tf.function(
            lambda embeddings, triplets: triplet_loss(embeddings, triplets, recipe.margin),
            input_signature=[tf.TensorSpec((None, width), tf.float32), tf.TensorSpec((None, 3), tf.int64)],
        )
        self._optimizer = keras.optimizers.Adam(recipe.learning_rate)
        self._optimizer.build(self._variables)
        starts = [tf.constant(np.array(one.value)) for one in self._variables]
        pull = recipe.learning_rate * recipe.weight_decay

        def apply(gradients: Any) -> None:
            self._optimizer.apply(gradients, self._variables)
            if pull:
                for variable, start in zip(self._variables, starts, strict=True):
                    variable.assign(variable - pull * (variable - start))

        self._apply = tf.function(apply)

    def batches(self, rows: NDArray[np.int64]) -> int:
        """How many an epoch of these (m,) rows has."""
        return len(self._batches(rows))

    def epoch(self, number: int, rows: NDArray[np.int64], advance: Callable[[], None] = lambda: None) -> float:
        """Learn from these (m,) rows once, as a function of the seed and the number alone; gives the mean loss.

        ``advance`` is called after each batch. NotFiniteError where the loss is no number.
        """
        random = np.random.default_rng((self._recipe.seed, number, 1))
        losses = []
        for batch in self._batches(rows).epoch(number):
            of_batch = rows[batch.rows]
            losses.append(self._step(self._source.draw(of_batch, random), self._labels[of_batch], batch.triplets))
            advance()
        return float(np.mean(losses))

    def _batches(self, rows: NDArray[np.int64]) -> RandomTriplets | ClassBatches:
        recipe, labels = self._recipe, self._labels[rows]
        if recipe.triplets == "random":
            return RandomTriplets(labels, size=recipe.batch, seed=recipe.seed)
        return ClassBatches(labels, size=recipe.batch, images_a_class=recipe.images_a_class, seed=recipe.seed)

    def _step(self, inputs: NDArray[Any], labels: NDArray[np.int64], triplets: miners.Triplets | None) -> float:
        import tensorflow as tf

        learning = [one.value for one in self._variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(learning)
            embeddings = self._embed(tf.constant(inputs))  # (b, ...) -> (b, dim)
            if triplets is None:
                triplets = self._mined(np.asarray(embeddings), labels)
            loss = self._loss(embeddings, tf.constant(triplets))
        value = float(loss)
        if not np.isfinite(value):
            raise NotFiniteError
        if value > 0.0:
            self._apply(tape.gradient(loss, learning))
        return value

    def _mined(self, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> miners.Triplets:
        if not np.isfinite(embeddings).all():
            raise NotFiniteError
        distances = miners.squared_distances(embeddings)
        if self._recipe.triplets == "hard":
            return miners.hard(distances, labels)
        return miners.semihard(distances, labels, self._recipe.margin)

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m,) rows -> (m, dim) float32 embeddings. NotFiniteError where one is no number."""
        import tensorflow as tf

        parts = [
            np.asarray(self._embed(tf.constant(self._source.plain(rows[start : start + _EMBEDDED_AT_ONCE]))))
            for start in range(0, len(rows), _EMBEDDED_AT_ONCE)
        ]
        embeddings = np.concatenate(parts)
        if not np.isfinite(embeddings).all():
            raise NotFiniteError
        return embeddings

    def state(self) -> State:
        """A copy of all that changes from step to step."""
        return State(
            [np.array(one.value) for one in self._variables], [np.array(one.value) for one in self._optimizer.variables]
        )

    def restore(self, state: State) -> None:
        """Take a state back."""
        self.restore_weights(state.weights)
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)

    def restore_weights(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Take weights back, and leave the optimiser as it is."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value)
