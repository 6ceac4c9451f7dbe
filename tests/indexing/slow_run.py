"""A run that can be killed: ``python -m tests.indexing.slow_run IMAGES INDEX``. Small batches, committed at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from searchengine.indexing import IndexingOptions, run, update_index
from tests.fakes import SPEC, FakeExtractor


class Slow(FakeExtractor):
    def embed(self, images: Any) -> Any:
        time.sleep(0.004)
        return super().embed(images)


if __name__ == "__main__":
    run._COMMIT_SECONDS = 0.0
    rebuild = "--rebuild" in sys.argv
    print("ready", flush=True)
    update_index(
        [Path(sys.argv[1])],
        Path(sys.argv[2]),
        spec=SPEC,
        load=Slow,
        options=IndexingOptions(batch_size=2, rebuild=rebuild),
    )
