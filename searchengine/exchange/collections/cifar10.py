"""CIFAR-10 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html): 60 000 pictures of 32 x 32 in ten classes.

It is read from the binary archive: the one for Python holds pickles, which run what their maker likes.
"""

from __future__ import annotations

import re
from pathlib import Path

from searchengine.exchange.collections.asking import DownloadError
from searchengine.exchange.collections.download import Resource
from searchengine.exchange.collections.unpacking import read_tar
from searchengine.progress import Progress

ARCHIVE = Resource("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label, then the red, green and blue planes
_BATCH = 10_000
_NAME = re.compile(r"(?:\./)?cifar-10-batches-bin/(data_batch_[1-5]|test_batch)\.bin", re.ASCII)


def unpack(archive: Path, to: Path, progress: Progress) -> int:
    """``to/train/cat/00042.png`` and ``to/test/cat/00007.png``, numbered as in the archive; returns how many.

    DownloadError for an archive that is not what it should be.
    """
    import numpy as np
    from PIL import Image

    for split in ("train", "test"):
        for name in CLASSES:
            (to / split / name).mkdir(parents=True, exist_ok=True)
    progress.start(6 * _BATCH, what=f"unpacking {archive.name}", unit="pictures")
    written = 0
    for name, data in read_tar(archive, _NAME, _RECORD * _BATCH):
        if not data or len(data) % _RECORD:
            raise DownloadError(f"{archive.name} is damaged ({name} has {len(data):,} bytes).")
        split, first = _place(name)
        records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD)  # (n, 3073)
        if int(records[:, 0].max()) >= len(CLASSES):
            raise DownloadError(f"{archive.name} is damaged ({name} names a class that does not exist).")
        # (n, 3072) -> (n, 3, 32, 32) -> (n, 32, 32, 3)
        pictures = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        for number, (label, pixels) in enumerate(zip(records[:, 0].tolist(), pictures, strict=True), first):
            Image.fromarray(pixels).save(to / split / CLASSES[label] / f"{number:05}.png")
            progress.advance(1)
        written += len(records)
    return written


def _place(name: str) -> tuple[str, int]:
    """The split of a batch, and the number of its first picture in that."""
    found = _NAME.fullmatch(name)
    assert found is not None
    if found[1] == "test_batch":
        return "test", 0
    return "train", (int(found[1][-1]) - 1) * _BATCH
