"""Workarounds for faults in libraries: each with its upstream report, and a test that fails once it is not needed."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


# -- TensorFlow dies of an illegal instruction on a processor without AVX ----------------------------------------------
#
# Its published packages are built with AVX and do not check: https://github.com/tensorflow/tensorflow/issues/62342.


def lacks_avx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is a PC's processor without AVX; False where Linux does not say."""
    with suppress(OSError):
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":  # of x86; others have "Features"
                return "avx" not in value.split()
    return False


# -- glibc keeps freed memory ------------------------------------------------------------------------------------------
#
# Pillow takes blocks of 16 MB: https://pillow.readthedocs.io/en/stable/reference/block_allocator.html. After the first
# was freed, glibc takes the next ones from the heap of the thread, and keeps them there (mallopt(3), M_MMAP_THRESHOLD):
# with 32 threads, gigabytes. With a threshold that is set, they go back to the system.

# Names of <malloc.h>, and our values: bytes from which a block goes back at once, bytes that may lie free, arenas.
_MALLOC = {"M_MMAP_THRESHOLD": (-3, 2**20), "M_TRIM_THRESHOLD": (-1, 8 * 2**20), "M_ARENA_MAX": (-8, 4)}


def give_back_memory() -> None:
    """From now on, have this process give memory of large images back when it is freed; only glibc needs this.

    To be called before there are threads, which get arenas of their own.
    """
    with suppress(AttributeError, OSError, TypeError):
        for name, value in _MALLOC.values():
            ctypes.CDLL(None).mallopt(name, value)
