"""A linear support vector machine for a few hundred examples, small enough to be solved while someone waits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-4
_PASSES = 300


def linear_svm(
    rows: NDArray[np.float64], signs: NDArray[np.float64], costs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Minimise ``(|w|^2 + b^2) / 2 + sum of costs_i max(0, 1 - signs_i (w . rows_i + b))``.

    By dual coordinate descent (Hsieh et al. 2008) over the Gram matrix: an update costs n, whatever the dimension. The
    examples are taken in their order, so that the result is the same each time.

    Args:
        rows: (n, d) float64.
        signs: (n,) +1 or -1.
        costs: (n,) above 0.

    Returns:
        w, (d,) float64, and b.
    """
    gram = rows @ rows.T + 1.0  # the bias is one more feature that is always 1: (n, n)
    signed = signs[:, None] * gram * signs[None, :]
    weights = np.zeros(len(rows))  # of the dual: between 0 and costs
    gradient = np.full(len(rows), -1.0)  # of the dual: signed @ weights - 1
    bounds, diagonal = costs.tolist(), np.diag(signed).tolist()
    for _ in range(_PASSES):
        worst = 0.0
        for i, (bound, curvature) in enumerate(zip(bounds, diagonal, strict=True)):
            old, slope = float(weights[i]), float(gradient[i])
            new = min(max(old - slope / curvature, 0.0), bound)
            if new != old:
                worst = max(worst, abs(slope))
                weights[i] = new
                gradient += (new - old) * signed[i]
        if worst < _TOLERANCE:
            break
    combined = weights * signs
    return combined @ rows, float(combined.sum())
