"""A fitted classifier as plain arrays: a feature -> every label with its probability. NumPy is all that it needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchengine.errors import QueryError
from searchengine.learn.scores import FitReport


@dataclass(frozen=True, slots=True)
class Prediction:
    """``probability`` is between 0 and 1; over all labels they sum to 1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Multinomial logistic regression on standardised features.

    ``P(c | x) = softmax(W ((x - mean) / scale) + b)_c`` (Bishop 2006, section 4.3.4). Two classes are two rows too, of
    which one is zero: that is the logistic function of the other. Never changes; safe to share between threads.
    """

    classes: tuple[str, ...]
    coefficients: NDArray[np.float64]  # (c, d), W
    intercepts: NDArray[np.float64]  # (c,), b
    mean: NDArray[np.float64]  # (d,), of the features it was fitted on
    scale: NDArray[np.float64]  # (d,), their standard deviation; 1 where that is 0
    fingerprint: str  # of the extractor that made those features
    version: str  # of the images and labels that it was fitted on
    report: FitReport
    stale: bool = False  # images or labels have changed since

    def probabilities(self, features: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of all classes, in their order.

        Args:
            features: (n, d) float32, or (d,) for a single one; made by the extractor of the index.

        Returns:
            (n, c) float64; each row sums to 1.

        Raises:
            QueryError: a wrong shape, NaN or infinity.
        """
        block = np.atleast_2d(np.asarray(features, dtype=np.float64))  # (d,) -> (1, d)
        if block.ndim != 2 or block.shape[1] != len(self.mean):
            raise QueryError(f"Features have the shape {block.shape}; this classifier wants (n, {len(self.mean)}).")
        if not np.isfinite(block).all():
            raise QueryError("A feature holds NaN or infinity, so nothing can be said of it.")
        return softmax(((block - self.mean) / self.scale) @ self.coefficients.T + self.intercepts)  # (n, d) -> (n, c)

    def predict(self, feature: ArrayLike) -> list[Prediction]:
        """One feature, (d,) or (1, d) -> all labels, the most probable first; QueryError.

        Of labels with equal probability, the one that comes first in the order of the alphabet stands first.
        """
        rows = self.probabilities(feature)
        if len(rows) != 1:
            raise QueryError(f"One feature is predicted at a time, not {len(rows)}; probabilities() takes several.")
        order = np.argsort(-rows[0], kind="stable")
        return [Prediction(self.classes[i], float(rows[0, i])) for i in order.tolist()]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, c) -> (n, c), rows that sum to 1; no overflow, whatever the size of the logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
