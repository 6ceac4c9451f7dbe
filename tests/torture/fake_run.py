"""An indexing run without a model: ``python -m tests.torture.fake_run IMAGES INDEX``."""

from __future__ import annotations

import sys

from searchengine.indexing import update_index
from tests.fakes import FakeExtractor

if __name__ == "__main__":
    update_index([sys.argv[1]], sys.argv[2], extractor=FakeExtractor())
