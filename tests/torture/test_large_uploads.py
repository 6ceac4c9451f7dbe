"""Uploads of 80 megapixels in few bytes: each is decoded in less than 1 GB, and leaves nothing behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from searchengine.extractors import make_spec
from searchengine.extractors.extractor import preprocess
from searchengine.images import isolation
from searchengine.processes import Limits

pytestmark = pytest.mark.torture

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STATUS = Path("/proc/self/status")
LIMITS = Limits(60, 2**30)
GIGABYTE = 2**30
# One of each decoder and of what it holds at a time; the long form has the others, too.
USUAL = ["JPEG, progressive", "PNG, RGBA of 16 bits", "GIF", "WebP, RGBA", "HEIC", "AVIF", "TIFF, CMYK, Deflate"]
OTHERS = [
    *("JPEG", "JPEG, CMYK", "PNG, RGBA", "PNG, grey of 16 bits", "PNG, RGB of 16 bits, a colour transparent"),
    *("BMP, run-length", "TIFF, float", "TIFF, RGBA, LZW", "TIFF, fax"),
]


@pytest.fixture(scope="module")
def uploads() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import uploads
    finally:
        sys.path.remove(str(BENCHMARKS))
    return uploads


def memory(status: str, which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("name", [*USUAL, *(pytest.param(name, marks=pytest.mark.longest) for name in OTHERS)])
def test_an_upload_of_80_megapixels(name: str, uploads: ModuleType) -> None:
    isolation._POOL.close()  # the next worker is a new one
    data = uploads.UPLOADS[name]()
    before = memory(STATUS.read_text(), "VmRSS")
    decoded = preprocess(make_spec("efficientnet-lite0"), data, uploads._MAX_PIXELS, 480)
    assert decoded.pixels.shape == (224, 224, 3)
    grown = memory(STATUS.read_text(), "VmRSS") - before
    worker = isolation._POOL.call(STATUS.read_text, limits=LIMITS)
    assert memory(worker, "VmHWM") + grown < GIGABYTE
    assert memory(worker, "VmRSS") < GIGABYTE // 8  # it has been given back
