"""Slow runs with workers that may die:

python -m tests.torture.ray_run IMAGES INDEX auto|ADDRESS
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchengine.address import Address
from searchengine.extractors import Extractor, ExtractorRecipe
from searchengine.images import DecodedImage
from searchengine.index.storage import storage_of
from searchengine.indexing import IndexingOptions, Summary
from searchengine.indexing.model import RunExtractor
from searchengine.indexing.run import update_with
from searchengine.progress import Bar, Progress, Say
from tests.extractors.tiny import SPEC

KILLER = b"killer"  # at the end of a file


class Fragile:
    """An extractor that is slow, and kills its process on some files."""

    def __init__(self, extractor: Extractor, seconds: float) -> None:
        self.extractor = extractor
        self.seconds = seconds

    def preprocess(self, data: bytes) -> DecodedImage:
        if data.endswith(KILLER):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return self.extractor.preprocess(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.extractor, name)


@dataclass(frozen=True, slots=True)
class FragileRecipe(ExtractorRecipe):
    seconds: float = 0

    def load(self, say: Say | None = None) -> Any:
        return Fragile(ExtractorRecipe(self.spec, precision=self.precision).load(say), self.seconds)


def run(photos: Path, index: Address, progress: Progress | None = None, seconds: float = 0, **options: Any) -> Summary:
    """Index photos with the tiny model, which must be in the cache."""
    recipe = FragileRecipe(SPEC, precision=options.get("precision", "auto"), seconds=seconds)
    extractor = RunExtractor(recipe, print)
    return update_with(extractor, [photos], storage_of(index), IndexingOptions(**options), progress or Progress())


if __name__ == "__main__":
    images, index, address, pause = sys.argv[1:]
    slowly = {"batch_size": 4, "commit_seconds": 0} if float(pause) else {}
    with Bar() as bar:
        done = run(Path(images), Path(index), bar, float(pause), ray=address, ray_actors=2, **slowly)
    print(json.dumps(done.to_dict()))
