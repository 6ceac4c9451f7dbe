"""A pupil with the heads that it only needs while it is taught, and the checkpoint of such a training."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from searchengine.errors import SearchEngineError
from searchengine.learning import losses
from searchengine.learning.photos import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

TEACHER_SCALE = 10.0


@dataclass(frozen=True)
class Weighting:
    """What each part of the loss counts."""

    direction: float = 5.0
    neighbours: float = 1.0
    classes: float = 0.5


@dataclass(frozen=True)
class Progress:
    """How far a training has come: images drawn, seconds spent training, steps of the optimiser."""

    images: int = 0
    seconds: float = 0.0
    steps: int = 0


def fused_normalization(**options: Any) -> Any:
    """`keras.layers.BatchNormalization`, by TensorFlow's fused kernel where that is the backend: fewer passes."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.layers.BatchNormalization(**options)
    import tensorflow as tf

    class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if not training or inputs.shape.rank != 4:
                return super().call(inputs, training=training, mask=mask)
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
            )
            kept = self.momentum
            self.moving_mean.assign(self.moving_mean * kept + mean * (1 - kept))
            self.moving_variance.assign(self.moving_variance * kept + variance * (1 - kept))
            return outputs

    return FusedBatchNormalization(**options)


def build_distiller(student: Any, *, teacher_dimension: int, classes: int, weighting: Weighting | None = None) -> Any:
    """A trainable `keras.Model` around the student.

    In: pictures (n, s, s, 3) uint8. Out: a dict of feature (n, d), teacher (n, teacher_dimension) and classes
    (n, classes).
    Targets: a dict of teacher (n, teacher_dimension) float32 unit rows, and label (n,) int, below 0 where unknown.
    """
    import keras
    from keras import layers, ops

    weights = weighting or Weighting()

    class Distiller(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="distiller")
            self.student = student
            self.teacher_head = layers.Dense(teacher_dimension, name="teacher")
            self.class_head = layers.Dense(classes, name="classes")
            self.log_scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(2.3), name="log_scale")
            parts = ("direction", "neighbours", "classes")
            self.trackers = {part: keras.metrics.Mean(name=part) for part in parts}

        def build(self, input_shape: Any) -> None:
            dimension = self.student.output_shape[-1]
            self.teacher_head.build((None, dimension))
            self.class_head.build((None, dimension))
            self.built = True

        def call(self, pictures: Any, training: bool | None = None) -> Any:
            feature = self.student(pictures, training=training)
            return {
                "feature": feature,
                "teacher": self.teacher_head(feature),
                "classes": self.class_head(feature),
            }

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            scale = ops.minimum(ops.exp(self.log_scale), 100.0)
            parts = {
                "direction": losses.cosine_loss(y_pred["teacher"], y["teacher"]),
                "neighbours": losses.neighbourhood_loss(
                    y_pred["feature"], y["teacher"], scale=scale, teacher_scale=TEACHER_SCALE
                ),
                "classes": losses.smoothed_cross_entropy(y_pred["classes"], y["label"]),
            }
            for name, value in parts.items():
                self.trackers[name].update_state(value)
            return sum(value * getattr(weights, name) for name, value in parts.items())

    return Distiller()


def compile_distiller(distiller: Any, *, ema_momentum: float = 0.999, weight_decay: float = 0.05) -> None:
    """Give the model its optimiser: AdamW with averaged weights kept beside, no decay on norms and biases."""
    import keras

    distiller.build(None)
    optimizer = keras.optimizers.AdamW(
        learning_rate=1e-5,
        weight_decay=weight_decay,
        beta_2=0.99,
        clipnorm=None,
        use_ema=True,
        ema_momentum=ema_momentum,
        ema_overwrite_frequency=None,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "log_scale"])
    distiller.compile(optimizer=optimizer, jit_compile=False)
    optimizer.build(distiller.trainable_variables)


def save_checkpoint(path: Path, distiller: Any, progress: Progress) -> None:
    """Write all variables of model and optimiser, and the progress, to one .npz; a kill leaves the old file whole."""
    stream = io.BytesIO()
    arrays = {f"model_{i:04d}": np.asarray(v) for i, v in enumerate(distiller.variables)}
    arrays |= {f"optimizer_{i:04d}": np.asarray(v) for i, v in enumerate(distiller.optimizer.variables)}
    np.savez(stream, progress=np.array(json.dumps(asdict(progress))), **arrays)  # type: ignore[arg-type]
    write_atomically(path, stream.getvalue())


def load_checkpoint(path: Path, distiller: Any) -> Progress:
    """Put back what `save_checkpoint` wrote. Raises SearchEngineError where it belongs to another architecture."""
    with np.load(path, allow_pickle=False) as stored:
        for kind, variables in (("model", distiller.variables), ("optimizer", distiller.optimizer.variables)):
            names = sorted(name for name in stored.files if name.startswith(kind))
            if len(names) != len(variables):
                raise SearchEngineError(f"{path} belongs to another architecture; use another --out")
            for name, variable in zip(names, variables, strict=True):
                value = stored[name]
                if tuple(value.shape) != tuple(variable.shape):
                    raise SearchEngineError(f"{path} belongs to another architecture; use another --out")
                variable.assign(value)
        return Progress(**json.loads(str(stored["progress"])))
