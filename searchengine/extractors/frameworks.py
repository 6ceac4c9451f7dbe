"""Importing TensorFlow and OpenVINO without their chatter, and without telemetry."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from searchengine.compat import make_openvino_convert_on_python_3_13
from searchengine.errors import ExtractorError


def import_keras() -> ModuleType:
    """Keras on TensorFlow. ExtractorError if it is not installed, or already runs on something else."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silent_start(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras
            import tensorflow as tf

            tf.constant(0)  # the rest of what it says, it says when it first looks for devices
    except ImportError as error:
        raise ExtractorError(
            f"TensorFlow cannot be loaded ({error}). Install it: pip install tensorflow keras."
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise ExtractorError(
            f"Keras runs on {keras.backend.backend()} in this process; TensorFlow is needed. Set "
            "KERAS_BACKEND=tensorflow before Keras is first imported."
        )
    return keras  # type: ignore[no-any-return]


def import_openvino() -> ModuleType:
    """OpenVINO, with its telemetry absent. ExtractorError if it is not installed."""
    # Its conversion tools report each use to their makers through this package, and do without it where it is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ExtractorError(
            f"OpenVINO cannot be loaded ({error}). Install it (pip install openvino), or use --runtime keras."
        ) from error
    return openvino  # type: ignore[no-any-return]


def export_openvino(model: Any, file: Path) -> None:
    """Write a Keras model as OpenVINO IR: ``file`` (.xml), and a .bin beside it."""
    import_openvino()
    make_openvino_convert_on_python_3_13()
    model.export(str(file), format="openvino", verbose=False)


@contextlib.contextmanager
def _silent_start() -> Iterator[None]:
    """TensorFlow writes to file descriptor 2 before its log level is read; what it raises still comes through."""
    if "tensorflow" in sys.modules:
        yield
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
