"""TensorFlow and OpenVINO: imported quietly and without telemetry, or used in a subprocess.

``run_task`` runs work that needs TensorFlow as ``python -m searchengine.extractors.export TASK``. That process reads
one JSON object from stdin and answers on stdout with one JSON object per line: any number of ``{"progress": text}``,
then the result or ``{"error": class, "message": text}``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from searchengine import errors
from searchengine.compat import lacks_avx, make_openvino_convert_on_python_3_13
from searchengine.errors import ExtractorError, SearchEngineError
from searchengine.files import parse_json
from searchengine.processes import environment, python
from searchengine.progress import Say

_NO_AVX = (
    "This processor lacks AVX, instructions that TensorFlow needs. Use --model efficientnet-lite0, which runs without "
    "TensorFlow, or run `searchengine prepare` on another machine and share the model cache (SEARCHENGINE_CACHE_DIR)."
)
_NOT_LOADED = (
    "TensorFlow cannot be loaded ({}). Install it (pip install tensorflow keras), or run `searchengine prepare` where "
    "it is installed and share the model cache (SEARCHENGINE_CACHE_DIR)."
)


def check_keras() -> None:
    """Raise ExtractorError if ``import_keras`` is certain to fail, without loading anything."""
    if "tensorflow" in sys.modules:
        return
    if lacks_avx():
        raise ExtractorError(_NO_AVX)
    if importlib.util.find_spec("tensorflow") is None:
        raise ExtractorError(_NOT_LOADED.format("it is not installed"))


def import_keras() -> ModuleType:
    """Import Keras on TensorFlow.

    Raises ExtractorError if it is not installed, or if Keras already runs on another backend.
    """
    check_keras()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silent_start(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras
            import tensorflow as tf

            tf.constant(0)  # TensorFlow prints its remaining messages when it first looks for devices
    except ImportError as error:
        raise ExtractorError(_NOT_LOADED.format(error)) from error
    if keras.backend.backend() != "tensorflow":
        raise ExtractorError(
            f"Keras runs on {keras.backend.backend()} in this process, but TensorFlow is needed. Set "
            "KERAS_BACKEND=tensorflow before Keras is first imported."
        )
    return keras  # type: ignore[no-any-return]


@contextlib.contextmanager
def _silent_start() -> Iterator[None]:
    """Discard what TensorFlow writes to file descriptor 2 before it reads its log level; exceptions still pass."""
    if "tensorflow" in sys.modules:
        yield
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry. Raises ExtractorError if it is not installed."""
    # Its conversion tools report each use through this package, and work without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ExtractorError(
            f"OpenVINO cannot be loaded ({error}). Install it (pip install openvino), or use --runtime keras."
        ) from error
    return openvino  # type: ignore[no-any-return]


def compile_openvino(model: Any, precision: str = "float32", threads: int | None = None) -> Any:
    """Compile an OpenVINO model, or an .xml file, for the CPU; ``precision`` is "float32" or "bfloat16".

    Raises RuntimeError if the file cannot be read.
    """
    settings: dict[str, Any] = {
        # Always set, because OpenVINO would choose bfloat16 by itself.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        # All threads work on one batch: as fast as several streams, a third of the memory, and no query waits.
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads would wait for other work on their processor, such as decoding.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    # The batch size stays dynamic, because fixed sizes were no faster. CACHE_DIR would double the disk use and save
    # nothing.
    return import_openvino().Core().compile_model(str(model) if isinstance(model, Path) else model, "CPU", settings)


def export_openvino(model: Any, file: Path) -> None:
    """Write a Keras model with one input as OpenVINO IR: ``file`` (.xml), with a .bin beside it."""
    openvino = import_openvino()
    make_openvino_convert_on_python_3_13()
    import tensorflow as tf

    (source,) = model.inputs
    signature = [tf.TensorSpec(source.shape, source.dtype, source.name)]
    # Keras's own Model.export traces the network three times, and takes three times as long.
    traced = tf.function(lambda batch: model(batch, training=False), input_signature=signature, autograph=False)
    openvino.serialize(openvino.convert_model(traced.get_concrete_function()), str(file))


def first_line(error: Exception) -> str:
    """Return the first line of a library's error message; most have many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")


@contextlib.contextmanager
def linked(file: Path, suffix: str) -> Iterator[Path]:
    """Provide a link to a file with another suffix, from which Keras infers the format."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(file.resolve())
        yield link


# -- TensorFlow in a subprocess ----------------------------------------------------------------------------------------

Task = Callable[[Mapping[str, Any], Say], Mapping[str, Any]]
_COMMAND = ("-m", "searchengine.extractors.export")


def run_task(task: str, request: Mapping[str, Any], say: Say, *, doing: str) -> dict[str, Any]:
    """Run a task of ``export`` in a subprocess and return its result; ``say`` receives the progress.

    ``doing`` starts the error message of a failure, for example "Preparing VGG16". An error of this package is raised
    again here; ExtractorError is raised if the subprocess fails in another way.
    """
    with tempfile.TemporaryFile() as log:
        answer, code = _run_process(task, request, say, log)
        log.seek(0)
        output = log.read().decode(errors="replace").strip()
    if "error" in answer:
        raise getattr(errors, answer["error"], ExtractorError)(answer["message"])
    if code == 0 and answer and "progress" not in answer:
        return answer
    if code == -signal.SIGILL:
        raise ExtractorError(f"{doing} was stopped by an illegal instruction. {_NO_AVX}")
    if code < 0:
        raise ExtractorError(
            f"{doing} was stopped by signal {-code}, perhaps because memory ran out: this takes about 3 GB, once. Free "
            "memory, or prepare the model on another machine and copy the model cache."
        )
    raise ExtractorError(f"{doing} failed: {output[-2000:] or f'exit code {code}'}")


def _run_process(task: str, request: Mapping[str, Any], say: Say, log: IO[bytes]) -> tuple[dict[str, Any], int]:
    """Return the last answer of the subprocess and its exit code; its other output goes to ``log``."""
    variables = environment(
        KERAS_BACKEND="tensorflow",
        TF_CPP_MIN_LOG_LEVEL="3",
        PYTHONWARNINGS="ignore",  # TensorFlow has many
        CUDA_VISIBLE_DEVICES="-1",  # a GPU is not needed
    )
    pipe = subprocess.PIPE
    answer: dict[str, Any] = {}
    with subprocess.Popen(  # noqa: S603  (nothing in it comes from outside)
        python(*_COMMAND, task), stdin=pipe, stdout=pipe, stderr=log, env=variables
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has already ended: the exit code says why
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
            for line in process.stdout:
                with contextlib.suppress(ValueError):  # not an answer: the exit code says the rest
                    answer = parse_json(line)
                if "progress" in answer:
                    say(answer["progress"])
        except BaseException:
            process.kill()
            raise
        return answer, process.wait()


def serve_task(task: Task) -> int:
    """Perform one task as the subprocess, and return the exit status."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that output of the libraries is not mistaken for an answer

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    with answers:
        try:
            answer(task(parse_json(sys.stdin.read()), lambda text: answer({"progress": text})))
        except SearchEngineError as error:
            answer({"error": type(error).__name__, "message": str(error)})
            return 1
        except Exception as error:  # whatever it is, the waiting user gets a sentence
            message = f"TensorFlow failed: {type(error).__name__}: {error}"
            answer({"error": "ExtractorError", "message": message})
            raise
    return 0
