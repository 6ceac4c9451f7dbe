"""What the compact model is taught: the teacher's direction, the teacher's neighbourhoods, and the class."""

from __future__ import annotations

from typing import Any


def unit_rows(x: Any) -> Any:
    """Rows of length one, (n, d) -> (n, d); a zero row stays zero."""
    from keras import ops

    return x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-12))


def cosine_loss(predicted: Any, wanted: Any) -> Any:
    """Mean of 1 - cos over rows: (n, d) and (n, d) -> scalar in 0..2."""
    from keras import ops

    return 1.0 - ops.mean(ops.sum(unit_rows(predicted) * unit_rows(wanted), axis=-1))


def neighbourhood_loss(feature: Any, wanted: Any, *, scale: Any, teacher_scale: float) -> Any:
    """How differently pupil and teacher see who is near whom in a batch: (n, d) and (n, e) -> scalar >= 0.

    For each row, the cosines with all other rows, times a scale, become a distribution by softmax; the loss is the
    mean Kullback-Leibler divergence of the pupil's from the teacher's (as in Fang et al. 2021, SEED,
    https://arxiv.org/abs/2101.04731, with the batch in the place of a queue).
    """
    from keras import ops

    def log_neighbours(rows: Any, factor: Any) -> Any:
        unit = unit_rows(rows)
        cosines = ops.matmul(unit, ops.transpose(unit)) * factor
        return ops.log_softmax(cosines - 1e4 * ops.eye(ops.shape(rows)[0]), axis=-1)

    theirs = log_neighbours(wanted, teacher_scale)
    ours = log_neighbours(feature, scale)
    return ops.mean(ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1))


def smoothed_cross_entropy(logits: Any, labels: Any, *, smoothing: float = 0.1) -> Any:
    """Mean cross entropy with label smoothing: (n, c) and (n,) int -> scalar. A label below 0 counts for nothing."""
    from keras import ops

    known = ops.cast(labels >= 0, logits.dtype)
    classes = logits.shape[-1]
    wanted = ops.one_hot(ops.maximum(labels, 0), classes, dtype=logits.dtype)
    wanted = wanted * (1.0 - smoothing) + smoothing / classes
    each = -ops.sum(wanted * ops.log_softmax(logits, axis=-1), axis=-1)
    return ops.sum(each * known) / ops.maximum(ops.sum(known), 1.0)
