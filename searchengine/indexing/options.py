"""The options of an indexing run, and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class IndexingOptions:
    """The flags of ``searchengine index``.

    Args:
        model: the model, as for the options up to ``input_size`` described in ``ExtractorOptions``. None uses the
            model of the index, or VGG16 fc2 for a new one.
        scaled_decoding: decode large JPEGs at a reduced size.
        precision: "auto", "float32" or "bfloat16".
        runtime: "auto", "openvino" or "keras".
        exclude: patterns of files and folders to leave out.
        default_excludes: leave out hidden files, and files that other programs put among photos (``images.Walk``).
        follow_links: follow links that lead out of the image folders.
        check_content: read every file, even if its size and times are unchanged.
        labels: "folder", "none" or a file, see ``indexing.labels``. None uses the choice of the last run, or "folder".
        metric: one of ``index.metrics.METRICS``. None uses the choice of the last run, or "euclidean".
        batch_size: the number of images that the model embeds at a time.
        limit: look at only this many files; nothing is removed.
        rebuild: embed everything again; the old index stays in use until the new one is complete.
        prune: remove images whose files are gone even if they are more than a fifth of all.
        prune_all: remove them even if an image folder is empty, has lost most of its images, or is not mounted.
        relocate: the image folders of the index have moved to the given places.
        ann: "auto", "on" or "off": whether to build a structure for approximate search; see
            ``index.building.update_structure``.
        threads: the number of threads that read and decode files. None uses one per processor.
        commit_seconds: the time between commits, which is the most work that a killed run loses. It may be up to five
            times as long while a batch for the model is not full.
        ray: "auto" or the address of a Ray cluster whose actors read and embed. None uses this process.
        ray_actors: the number of actors. None uses as many as the machines have processors for.
        ray_cpus: the number of processors per actor.
        ray_gpus: the number of GPUs per actor; may be a fraction.
        ray_store_mb: the size of Ray's object store in 10^6 bytes, if Ray is started for the run.
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
        """Whether a run may remove many images at once."""
        return self.prune or self.prune_all


@dataclass(frozen=True, slots=True)
class Summary:
    """The number of files by what a run did with them.

    ``missing``: not found, but kept in the index; ``vanished``: found, but gone before they could be read; ``dated``:
    unchanged files of an older index, whose date and camera were read; ``embedded``: images put through the model;
    ``images``: images in the index.
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
        """Return the numbers by name, ready for JSON."""
        return asdict(self)
