"""A slow run that commits small batches at once: ``python -m tests.indexing.slow_run IMAGES INDEX``."""

from __future__ import annotations

import sys
import time
from typing import Any

from searchengine.indexing import IndexingOptions, update_index
from tests.fakes import FakeExtractor


class Slow(FakeExtractor):
    def embed(self, images: Any) -> Any:
        time.sleep(0.004)
        return super().embed(images)


if __name__ == "__main__":
    update_index(
        [sys.argv[1]], sys.argv[2], extractor=Slow(), options=IndexingOptions(batch_size=2, commit_seconds=0.0)
    )
