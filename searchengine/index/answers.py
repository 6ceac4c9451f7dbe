"""Search by an image of the index, and count copies among the hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from searchengine.index.exact import Searcher
from searchengine.index.metrics import check_metric, score
from searchengine.index.protocol import Index
from searchengine.index.types import Hit

_COPIES_WORTH_SAYING = 0.5  # of the hits


def search_by_id(index: Index, image_id: int, k: int, metric: str | None = None) -> list[Hit]:
    """The k images nearest to one of the index: itself before all others that are no nearer, such as copies of it.

    Raises UnknownImageError, QueryError and UnknownNameError.
    """
    feature = index.feature(image_id)
    hits = index.search(feature, k, metric)[0]
    metric = check_metric(metric or index.metric)
    own = next((hit for hit in hits if hit.id == image_id), None)
    if own is None:
        distance = float(Searcher.of_rows(feature[None], metric).nearest(feature[None], 1)[0].distances[0])
        worth, record = score(metric, distance, normalized=index.normalized), index.records([image_id])[0]
        own = Hit(0, image_id, record.path, distance, worth, record.label, record)
    others = [hit for hit in hits if hit.id != image_id]
    nearer = sum(hit.distance < own.distance and not np.isclose(hit.distance, own.distance) for hit in others)
    ordered = [*others[:nearer], own, *others[nearer:]][:k]
    return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, 1)]


def count_copies(hits: Sequence[Hit]) -> int:
    """How many hits are copies, byte for byte, of one that is nearer."""
    hashes = [hit.record.content_hash for hit in hits if hit.record.content_hash is not None]
    return len(hashes) - len(set(hashes))


def copies_sentence(hits: Sequence[Hit]) -> str:
    """A sentence where most of an answer are copies, so that it is not taken for all that is alike; else nothing."""
    copies = count_copies(hits)
    if copies < _COPIES_WORTH_SAYING * len(hits) or copies < 2:
        return ""
    return f"{copies} of these {len(hits)} are copies of others shown. Ask for more results to see other pictures."
