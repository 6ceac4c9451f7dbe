"""The triplet loss."""

from __future__ import annotations

from typing import Any


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
