"""The options of an indexing run, and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class IndexingOptions:
    """The flags of ``searchengine index``.

    Args:
        model: and what follows up to ``input_size``: as ``ExtractorOptions`` has it; None: as the index was made, or
            VGG16 fc2 for a new one.
        scaled_decoding: decode large JPEGs at a reduced size.
        precision: "auto", "float32" or "bfloat16".
        runtime: "auto", "openvino" or "keras".
        exclude: patterns of files and folders to leave out.
        default_excludes: leave out hidden files, and what other programs leave among photos (``images.find``).
        follow_links: take also what links out of the image folders lead to.
        check_content: read every file, also those whose size and times are as they were.
        labels: "folder", "none" or a file, see ``indexing.labels``; None: as the index was made, at first "folder".
        metric: one of ``index.metrics.METRICS``; None: as the index was made, at first "euclidean".
        batch_size: images that the model embeds at a time.
        limit: look at the first files only; nothing is removed.
        rebuild: embed everything again; the old index answers until the new one is complete.
        prune: remove what is gone even if it is more than a fifth of the images.
        prune_all: also if an image folder is empty or has lost most of its images, or its disk is not mounted.
        relocate: the image folders of the index are now at the places given.
        ann: "auto", "on" or "off": whether to build a structure for approximate search; see
            ``index.building.update_structure``.
        threads: that read and decode files; None: as many as there are processors.
        commit_seconds: the time between commits; up to five times as long while a batch for the model is not full. A
            killed run loses no more than that.
        ray: None: this process reads and embeds; "auto" or the address of a Ray cluster: actors do.
        ray_actors: how many; None: as many as the machines have processors for.
        ray_cpus: processors of an actor.
        ray_gpus: GPUs of an actor, or a part of one.
        ray_store_mb: 10^6 bytes of Ray's object store, where Ray is started for the run.
    """

    model: str | Path | None = None
    layer: str | Sequence[str] | None = None
    pooling: str | None = None
    normalize: str | None = None
    weights: str | Path | None = None
    preprocessing: str | None = None
    input_size: int | None = None
    scaled_decoding: bool = False
    precision: str = "auto"
    runtime: str = "auto"
    exclude: str | Sequence[str] = ()
    default_excludes: bool = True
    follow_links: bool = False
    check_content: bool = False
    labels: str | None = None
    metric: str | None = None
    batch_size: int = 32
    limit: int | None = None
    rebuild: bool = False
    prune: bool = False
    prune_all: bool = False
    relocate: bool = False
    ann: str = "auto"
    threads: int | None = None
    commit_seconds: float = 1.0
    ray: str | None = None
    ray_actors: int | None = None
    ray_cpus: int = 1
    ray_gpus: float = 0
    ray_store_mb: int = 128

    @property
    def may_prune(self) -> bool:
        """Whether many images may be removed at once."""
        return self.prune or self.prune_all


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of files by what a run did with them.

    ``missing``: indexed before, not found, but kept; ``vanished``: found, but gone before it was read; ``dated``: of an
    older index, read again for when and with what they were taken; ``embedded``: put through the model.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: int = 0
    missing: int = 0
    vanished: int = 0
    dated: int = 0
    embedded: int = 0
    images: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, int | float]:
        """As JSON has it."""
        return asdict(self)
