"""Which seeds the libraries behind a map and its groups take."""

from __future__ import annotations

from searchengine.errors import QueryError


def check_seed(seed: int) -> None:
    """QueryError for a seed that scikit-learn and openTSNE would refuse, after what takes long."""
    if not 0 <= seed < 2**32:
        raise QueryError("The seed must be a whole number from 0 to 4294967295.")
