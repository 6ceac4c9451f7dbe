"""COCO 2017 (Lin et al. 2014, https://cocodataset.org): photographs, and what is to be seen in each."""

from __future__ import annotations

import re
from pathlib import Path

from searchengine.exchange.collections.download import Resource
from searchengine.exchange.collections.unpacking import unpack_zip
from searchengine.progress import Progress

# Its publisher gives no hashes. The name on its certificate is another than this, so it is fetched without one.
_PUBLISHER = "http://images.cocodataset.org"
ANNOTATIONS = Resource(f"{_PUBLISHER}/annotations/annotations_trainval2017.zip")


def photos(split: str) -> Resource:
    """The photographs of "val2017" (5 000, 0.8 GB) or "train2017" (118 287, 19 GB)."""
    return Resource(f"{_PUBLISHER}/zips/{split}.zip")


def unpack_photos(split: str, archive: Path, to: Path, progress: Progress) -> int:
    """``to/val2017/000000000139.jpg``, ...; returns how many."""
    return unpack_zip(archive, to, re.compile(rf"{split}/[0-9]{{12}}\.jpg", re.ASCII), progress)


def unpack_annotations(archive: Path, to: Path, progress: Progress) -> int:
    """``to/annotations/instances_val2017.json`` and ``..._train2017.json``: the objects in each photograph."""
    return unpack_zip(archive, to, re.compile(r"annotations/instances_(val|train)2017\.json", re.ASCII), progress)
