"""Workarounds for library bugs, each with its upstream report and a test that fails once it is no longer needed."""

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
# "Corrupt EXIF data", "Palette images with Transparency expressed in bytes", ...: users can do nothing about these
# warnings, and where warnings are errors, each would cost an image. `warnings.catch_warnings` replaces the filters of
# the whole process, but decoding runs in threads: https://github.com/python/cpython/issues/128384 (solved in Python
# 3.14 by -X context_aware_warnings). So we insert one filter, which matches only Pillow's modules, and only in a thread
# that is decoding.


class _Thread(threading.local):
    decoding: bool = False


_thread = _Thread()


class _PillowWhileDecoding:
    """Stand-in for the module pattern of a warning filter, on which Python only calls ``match``."""

    pattern = (
        r"(PIL|pi_heif)\."  # read by libraries that copy the filters, such as scikit-learn in its parallel functions
    )

    def match(self, module: str) -> bool:
        return _thread.decoding and module.startswith(("PIL.", "pi_heif."))


_FILTER = ("ignore", None, Warning, _PillowWhileDecoding(), 0)

# Without a handler, logging would print Pillow's few logger.error() calls to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Suppress Pillow's warnings in this thread, and no others."""
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _FILTER:
        # Other code (pytest for each test, `catch_warnings`) may have put filters in front or restored an older list.
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
# OpenVINO looks for TensorFlow with exec("import tensorflow"); exec("del tensorflow"). Since PEP 667, the second call
# does not see the name that the first has defined, and the export ends with a NameError:
# https://github.com/openvinotoolkit/openvino/pull/32482.


def make_openvino_convert_on_python_3_13() -> None:
    """Skip the check for TensorFlow in OpenVINO's frontend; it is installed wherever we call this."""
    if sys.version_info >= (3, 13):
        from openvino.frontend.tensorflow import utils

        utils.exec = lambda code: None


# -- TensorFlow crashes with an illegal instruction on a processor without AVX -----------------------------------------
#
# The published packages are built with AVX and do not check for it: https://github.com/tensorflow/tensorflow/issues/62342.


def lacks_avx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this is an x86 processor without AVX; False if /proc/cpuinfo does not say."""
    with suppress(OSError):
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":  # x86 only; other processors have "Features"
                return "avx" not in value.split()
    return False


# -- glibc keeps freed memory ------------------------------------------------------------------------------------------
#
# Pillow allocates blocks of 16 MB: https://pillow.readthedocs.io/en/stable/reference/block_allocator.html. Once the
# first of them is freed, glibc allocates further ones on the heap of the thread and keeps them (mallopt(3),
# M_MMAP_THRESHOLD), which amounts to gigabytes with 32 threads. With an explicit threshold, they are returned to the
# system.

# Constants of <malloc.h> and our values: block size from which memory is returned at once, free bytes that may be kept,
# and number of arenas.
_MALLOC = {"M_MMAP_THRESHOLD": (-3, 2**20), "M_TRIM_THRESHOLD": (-1, 8 * 2**20), "M_ARENA_MAX": (-8, 4)}


def give_back_memory() -> None:
    """Make this process return the memory of large images to the system when it is freed; only glibc needs this.

    Call it before starting threads, each of which gets an arena of its own.
    """
    with suppress(AttributeError, OSError, TypeError):
        for name, value in _MALLOC.values():
            ctypes.CDLL(None).mallopt(name, value)
