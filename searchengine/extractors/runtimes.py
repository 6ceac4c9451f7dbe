"""The two implementations of ``Extractor``: OpenVINO on the CPU, which starts fast without TensorFlow, and Keras."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.extractor import BatchExtractor
from searchengine.extractors.frameworks import compile_openvino, import_keras, import_openvino
from searchengine.extractors.networks import BuiltModel
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import Pixels
from searchengine.processors import thread_limit

# -- OpenVINO ---------------------------------------------------------------------------------------------------------

# Eight images of 224 x 224. Larger batches are no faster and need memory: VGG16 takes about 30 MB per image.
_PIXELS_PER_BATCH = 8 * 224 * 224
_MAX_BATCH = 64


class OpenVINOExtractor(BatchExtractor):
    """An ``Extractor`` that runs an exported model, compiled on first use: fork before that, not after.

    ``export`` is called if the model cannot be loaded: another process may have cleared it since it was looked up.
    Raises ExtractorError for bfloat16 on a processor that does not support it.
    """

    runtime = "openvino"
    device = "CPU"

    def __init__(
        self, spec: ExtractorSpec, model: ExportedModel, export: Callable[[], ExportedModel], *, precision: str = "auto"
    ) -> None:
        height, width = spec.input_size
        super().__init__(spec, model.parts, max(1, min(_MAX_BATCH, _PIXELS_PER_BATCH // (height * width))))
        self._xml = model.xml
        self._export = export
        self._compiling = threading.Lock()
        self._idle: queue.LifoQueue[Any] | None = None  # inference requests, which run in parallel
        self._precision = None if precision == "auto" else precision
        if precision == "bfloat16" and not _has_bfloat16():
            raise ExtractorError(
                "This processor does not compute in bfloat16 natively. Use --precision float32, or --precision auto, "
                "which chooses what the processor does best."
            )

    @property
    def precision(self) -> str:
        """The chosen precision; "auto" means bfloat16 if the processor supports it natively, else float32."""
        if self._precision is None:
            self._precision = "bfloat16" if _has_bfloat16() else "float32"
        return self._precision

    def _run(self, batch: Pixels) -> NDArray[np.float32]:
        with self._compiling:
            idle = self._idle = self._idle or self._new_requests(self._export)
        request = idle.get()  # for this call alone; a shared one would raise "Infer Request is busy"
        try:
            # (m, h, w, 3) -> (m, d) float32; the request keeps its output, so it is copied
            request.infer({0: batch}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            idle.put(request)

    def _new_requests(self, export: Callable[[], ExportedModel] | None) -> queue.LifoQueue[Any]:
        try:
            model = compile_openvino(self._xml, self.precision, thread_limit())
        except RuntimeError as error:
            if export is None:
                raise ExtractorError(f"OpenVINO cannot load {self._xml}: {error}") from error
            self._xml = export().xml
            return self._new_requests(None)
        # As many as run in parallel: one request per thread would take memory and gain nothing.
        idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            idle.put(model.create_infer_request())
        return idle


def _has_bfloat16() -> bool:
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


# -- Keras ------------------------------------------------------------------------------------------------------------

_BATCH_ON_CPU = 8
_BATCH_ON_GPU = 64
_AMPERE = (8, 0)  # the first NVIDIA architecture that computes in bfloat16


def gpu_in_sight() -> bool:
    """Return whether TensorFlow is likely to find an NVIDIA GPU, without loading it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in {"", "-1"} or not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    # Without the CUDA libraries, TensorFlow would run on the CPU, slower than OpenVINO.
    packaged = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.cudnn") is not None
    return packaged or ctypes.util.find_library("cudnn") is not None


def gpu_found() -> bool:
    """Return whether TensorFlow finds a GPU. Loads TensorFlow."""
    import_keras()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class KerasExtractor(BatchExtractor):
    """An ``Extractor`` that runs a compiled TensorFlow function.

    It loads TensorFlow into this process; do not fork after that. ``precision`` "auto" means bfloat16 on a GPU that
    supports it, else float32. ``build`` builds the model for a dtype policy.
    """

    runtime = "keras"

    def __init__(self, spec: ExtractorSpec, build: Callable[[str], BuiltModel], *, precision: str = "auto") -> None:
        import_keras()
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        self.device = "GPU" if gpus else "CPU"
        self.precision = _best_precision(tf, gpus) if precision == "auto" else precision
        if self.precision == "float32":
            # Recent GPUs would otherwise round float32 to 10 bits of mantissa.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        built = build("float32" if self.precision == "float32" else "mixed_bfloat16")
        model = built.model
        super().__init__(spec, built.parts, _BATCH_ON_GPU if gpus else _BATCH_ON_CPU)
        self._lock = threading.Lock()
        self._function = tf.function(
            lambda batch: model(batch, training=False),
            input_signature=[tf.TensorSpec((None, *spec.input_size, 3), model.inputs[0].dtype)],
        )

    def _run(self, batch: Pixels) -> NDArray[np.float32]:
        # One batch at a time: it uses the whole device, and two would need twice the memory.
        with self._lock:
            return np.array(self._function(batch), dtype=np.float32)


def _best_precision(tf: Any, gpus: list[Any]) -> str:
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return "bfloat16" if capabilities and min(capabilities) >= _AMPERE else "float32"
