"""Import TensorFlow and OpenVINO without their messages, and without telemetry."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from searchengine.compat import lacks_avx, make_openvino_convert_on_python_3_13
from searchengine.errors import ExtractorError

NO_AVX = (
    "This processor lacks AVX, instructions that TensorFlow needs. Use --model efficientnet-lite0, which runs without "
    "TensorFlow, or run `searchengine prepare` on another machine and share the cache of models "
    "(SEARCHENGINE_CACHE_DIR)."
)
_NOT_LOADED = (
    "TensorFlow cannot be loaded ({}). Install it (pip install tensorflow keras), or run `searchengine prepare` where "
    "it is installed and share the cache of models (SEARCHENGINE_CACHE_DIR)."
)


def check_keras() -> None:
    """ExtractorError if ``import_keras`` is certain to fail; loads nothing."""
    if "tensorflow" in sys.modules:
        return
    if lacks_avx():
        raise ExtractorError(NO_AVX)
    if importlib.util.find_spec("tensorflow") is None:
        raise ExtractorError(_NOT_LOADED.format("it is not installed"))


def import_keras() -> ModuleType:
    """Keras on TensorFlow. Raises ExtractorError if it is not installed, or Keras already runs on another backend."""
    check_keras()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silent_start(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras
            import tensorflow as tf

            tf.constant(0)  # it prints the rest of its messages when it first looks for devices
    except ImportError as error:
        raise ExtractorError(_NOT_LOADED.format(error)) from error
    if keras.backend.backend() != "tensorflow":
        raise ExtractorError(
            f"Keras runs on {keras.backend.backend()} in this process; TensorFlow is needed. Set "
            "KERAS_BACKEND=tensorflow before Keras is first imported."
        )
    return keras  # type: ignore[no-any-return]


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry. Raises ExtractorError if it is not installed."""
    # Its conversion tools report each use through this package, and work without it where it is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ExtractorError(
            f"OpenVINO cannot be loaded ({error}). Install it (pip install openvino), or use --runtime keras."
        ) from error
    return openvino  # type: ignore[no-any-return]


def export_openvino(model: Any, file: Path) -> None:
    """Write a Keras model of one input as OpenVINO IR: ``file`` (.xml), and a .bin beside it."""
    openvino = import_openvino()
    make_openvino_convert_on_python_3_13()
    import tensorflow as tf

    (given,) = model.inputs
    signature = [tf.TensorSpec(given.shape, given.dtype, given.name)]
    # Keras's own Model.export traces the network three times, and takes three times as long.
    traced = tf.function(lambda batch: model(batch, training=False), input_signature=signature, autograph=False)
    openvino.serialize(openvino.convert_model(traced.get_concrete_function()), str(file))


def first_line(error: Exception) -> str:
    """The first line of an error of a library; most have many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")


@contextlib.contextmanager
def linked(file: Path, suffix: str) -> Iterator[Path]:
    """A link to a file with this ending, by which Keras tells the format."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(file.resolve())
        yield link


@contextlib.contextmanager
def _silent_start() -> Iterator[None]:
    """TensorFlow writes to file descriptor 2 before it reads its log level. Its exceptions are not affected."""
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
