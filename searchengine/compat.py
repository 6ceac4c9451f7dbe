"""Workarounds for faults in libraries: each with its upstream report, and a test that fails once it is not needed."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

# -- Pillow warns about odd metadata -----------------------------------------------------------------------------------
#
# "Corrupt EXIF data", "Palette images with Transparency expressed in bytes", ...: a person who indexes 100 000 photos
# can do nothing about those, and where warnings are errors each would cost an image. `warnings.catch_warnings` replaces
# the filters of the whole process, and decoding runs in threads: https://github.com/python/cpython/issues/128384
# (solved in Python 3.14 by -X context_aware_warnings). So a single filter is put in front, which matches only Pillow's
# modules and only in a thread that is decoding.


class _Thread(threading.local):
    decoding: bool = False


_thread = _Thread()


class _PillowWhileDecoding:
    """Takes the place of a warning filter's module pattern, of which Python only calls ``match``."""

    pattern = r"(PIL|pi_heif)\."  # for libraries that copy the filters, such as scikit-learn in its parallel functions

    def match(self, module: str) -> bool:
        return _thread.decoding and module.startswith(("PIL.", "pi_heif."))


_FILTER = ("ignore", None, Warning, _PillowWhileDecoding(), 0)

# Without a handler, Pillow's few logger.error() calls would be printed to stderr as a last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Drop Pillow's warnings, in this thread only, and no other warnings."""
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _FILTER:
        # Others (pytest for each test, `catch_warnings`) put theirs in front or restore an older list.
        if _FILTER in filters:
            filters.remove(_FILTER)
        filters.insert(0, _FILTER)
    before = _thread.decoding
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = before


# -- OpenVINO cannot convert TensorFlow models on Python 3.13 ----------------------------------------------------------
#
# It looks for TensorFlow by exec("import tensorflow"); exec("del tensorflow"). Since PEP 667 the second no longer sees
# what the first did, and the export ends with a NameError: https://github.com/openvinotoolkit/openvino/pull/32482.


def make_openvino_convert_on_python_3_13() -> None:
    """Let OpenVINO's TensorFlow frontend take TensorFlow for installed, as it is wherever we call it."""
    if sys.version_info >= (3, 13):
        from openvino.frontend.tensorflow import utils

        utils.exec = lambda code: None
