"""How a run is asked for, where it tells how far it is, and what it says at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class IndexingOptions:
    """How a run goes. None for ``labels`` or ``metric``: as the index was made (at first, "folder" and "euclidean").

    ``labels`` is "folder", "none" or a file: see ``indexing.labels``; ``metric`` one of ``index.metrics.METRICS``.
    ``commit_seconds``: how long work is gathered before it is made part of the index; up to five times as long where a
    batch for the model is not full by then. A killed run loses no more, and what the model is at.
    """

    exclude: tuple[str, ...] = ()
    labels: str | None = None
    batch_size: int = 32
    limit: int | None = None
    rebuild: bool = False
    prune: bool = False
    relocate: bool = False
    metric: str | None = None
    threads: int | None = None
    commit_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did, in files.

    ``missing``: indexed once, not found, but kept all the same; ``vanished``: found, and gone when it was to be read;
    ``embedded``: put through the model.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: int = 0
    missing: int = 0
    vanished: int = 0
    embedded: int = 0
    images: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, int | float]:
        """As JSON has it."""
        return asdict(self)
