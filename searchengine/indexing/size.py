"""What an index will take on the disk, said before it does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from searchengine.extractors import ExtractorSpec, feature_size

_BYTES = 4  # of a float32


def size_remark(spec: ExtractorSpec, images: int, index_dir: Path) -> str | None:
    """A sentence for a layer that is laid out flat, which pooling would make smaller; None for any other."""
    if spec.pooling != "none" or not images:
        return None
    flat, pooled = feature_size(spec), feature_size(replace(spec, pooling="avg"))
    if flat is None or pooled is None or flat == pooled:
        return None
    needed = flat * _BYTES * images
    free = shutil.disk_usage(next(folder for folder in (index_dir, *index_dir.absolute().parents) if folder.is_dir()))
    room = f"{_size(free.free)} are free there"
    return (
        f"{spec.layer or 'The output'} without pooling is {flat} numbers an image: {images} images take "
        f"{_size(needed)}, {'BUT ONLY ' if needed > free.free else ''}{room}. With --pooling avg or gem it is {pooled} "
        f"numbers, {_size(pooled * _BYTES * images)} together."
    )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
